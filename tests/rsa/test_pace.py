"""How long a run will take yet: recorded runs of `nano` on two busy cores, and simulated ones of any machine.

A recorded event is [kind, seconds, ...]: round (number, N), started (index, prompt tokens), progress (index, tokens),
finished (index, tokens), end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import Completion, ModelInfo, Usage
from rsa.command.pace import Pace, Row
from rsa.command.progress import Progress
from rsa.events import CandidateFinished, CandidateProgress, CandidateStarted, Event, RoundStarted, RunStarted
from rsa.results import Budgets, Candidate
from rsa.settings.config import RSAConfig

RECORDED = json.loads((Path(__file__).resolve().parents[1] / "data" / "paced_runs.json").read_text())
SLACK_S = 2.0
"""Nobody minds where a run ends in a moment."""


def events(run: Any) -> Iterator[Event]:
    """A run's events, as far as they matter here."""
    config = RSAConfig(**run["config"])
    sizes = {key: run["config"][key] for key in ("beta", "tau", "answer_budget")}
    budgets = Budgets(**sizes, initial_prompt=5, prompt_bound=99)
    yield RunStarted(
        problem_id="p", config=config, budgets=budgets, model=ModelInfo(name="m"), task="math", prompt_sha256="0"
    )
    number = 0
    parents: tuple[int, ...] = ()
    for kind, at_s, *rest in run["events"]:
        match kind:
            case "round":
                number, n = rest
                parents = tuple(range(config.c)) if number else ()
                yield RoundStarted(at_s=at_s, round=number, subsets=(parents,) * n)
            case "started":
                place = {"round": number, "index": rest[0], "parents": parents, "seed": 0}
                yield CandidateStarted(at_s=at_s, prompt_tokens=rest[1], **place)
            case "progress":
                place = {"round": number, "index": rest[0], "section": "reasoning", "text": "so"}
                yield CandidateProgress(at_s=at_s, tokens=rest[1], **place)
            case "finished":
                usage = Usage(completion_tokens=rest[1])
                done = Completion(
                    request_id="r", token_ids=(), reasoning="", text="", finish_reason="stop", usage=usage
                )
                place = {"round": number, "index": rest[0], "seed": 0, "status": "ok", "finished_s": at_s}
                yield CandidateFinished(at_s=at_s, candidate=Candidate(completion=done, **place))


def forecasts(run: Any) -> list[tuple[int, float, float]]:
    """(round, seconds forecast, seconds that it took) after every event that has a forecast."""
    end_s = run["events"][-1][1]
    progress, told = Progress(), []
    for event in events(run):
        progress.update(event)
        eta_s = progress.eta_s()
        if eta_s is not None:
            told.append((progress.round, eta_s, end_s - event.at_s))
    return told


def off(eta_s: float, true_s: float, slack_s: float = SLACK_S) -> float:
    """By which factor a forecast is wrong."""
    return max((eta_s - slack_s) / max(true_s, 1e-9), (true_s - slack_s) / max(eta_s, 1e-9), 1.0)


@pytest.mark.parametrize("run", RECORDED, ids=lambda run: run["name"])
def test_recorded_runs_end_about_when_it_is_said(run: Any) -> None:
    told = forecasts(run)
    later = [(eta_s, true_s) for number, eta_s, true_s in told if number > 0]
    assert len(later) > len([each for each in run["events"] if each[2:]]) / 3, "it is said most of the time"
    assert max(off(*each) for each in later) < 2.5
    assert max(off(eta_s, true_s) for _, eta_s, true_s in told) < 4


def simulated(
    *, n: int, t: int, rows: int, reads: float, step_s: float, beta: int, typical: int, seed: int
) -> dict[str, Any]:
    """A run on a machine that writes `rows` candidates at once, and reads one prompt after the other: `reads` times as
    many tokens in a second as all of them write."""
    chance = random.Random(seed)
    read_per_s = reads * min(n, rows) / step_s
    c, tau, now, told = min(4, n), beta // 4, 0.0, []
    for number in range(t + 1):
        told.append(["round", now, number, n])
        lengths = [max(1, min(beta, int(chance.lognormvariate(0, 0.4) * typical))) for _ in range(n)]
        prompt = 200 + (c * min(tau, typical) if number else 0)
        told += [["started", now, index, prompt] for index in range(n)]
        if not number:
            now += prompt / read_per_s
        waiting, written = list(range(n)), dict.fromkeys(range(n), 0)
        writing: list[int] = []
        while waiting or writing:
            if waiting and len(writing) < rows:
                now += prompt / read_per_s if number else 0.0
                writing.append(waiting.pop(0))
            # Until somebody ends, or it is time for a report; one step while prompts are read.
            ends = min(lengths[index] - written[index] for index in writing)
            burst = 1 if waiting and len(writing) < rows else min(max(1, typical // 15), ends)
            now += burst * step_s
            for index in list(writing):
                written[index] += burst
                ended = written[index] == lengths[index]
                told.append(["finished" if ended else "progress", now, index, written[index]])
                if ended:
                    writing.remove(index)
    config = {"n": n, "c": c, "t": t, "beta": beta, "tau": tau, "answer_budget": 64}
    return {"config": config, "events": [*told, ["end", now]]}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(4, 12),
    t=st.integers(1, 3),
    rows=st.sampled_from([4, 64]),
    reads=st.sampled_from([0.7, 2.0, 10.0, 50.0]),
    step_s=st.sampled_from([0.005, 0.03, 0.1]),
    beta=st.sampled_from([1024, 16384]),
    share=st.sampled_from([0.1, 0.4, 0.8]),
    seed=st.integers(0, 1000),
)
def test_a_run_on_any_machine_is_never_ten_times_off(
    n: int, t: int, rows: int, reads: float, step_s: float, beta: int, share: float, seed: int
) -> None:
    typical = int(beta * share)
    run = simulated(n=n, t=t, rows=rows, reads=reads, step_s=step_s, beta=beta, typical=typical, seed=seed)
    slack_s = max(SLACK_S, run["events"][-1][1] / 5)  # nobody knows how long the last candidate goes on
    told = forecasts(run)
    assert told
    assert max(off(eta_s, true_s, slack_s) for _, eta_s, true_s in told) < 10


def test_reading_is_not_standing_still() -> None:
    """Fifteen prompts wait while one candidate writes: what it writes in that time says nothing of its speed."""
    pace, rows = Pace(), [Row(index, parents=(0,), prompt_tokens=500, started_s=0.0) for index in range(16)]
    pace.begin_round(0.0)
    pace.update(0.0, rows)
    for index, row in enumerate(rows):
        row.tokens = 1
        pace.update(2.0 * (index + 1), rows)
    assert pace.row_per_s() is None
    assert pace.read_per_s() == 250.0
    for row in rows:
        row.tokens = 21
    pace.update(34.0, rows)
    pace.update(34.1, rows)  # all events of the moment before are in
    assert pace.row_per_s() == pytest.approx(10.0)


def test_a_candidate_is_as_fast_as_it_writes() -> None:
    row = Row(0, tokens=30, started_s=0.0)
    assert row.tokens_per_s(10.0) == 3.0, "of one that was seen once, its whole life is all there is"
    row.began = (8.0, 2)
    assert row.tokens_per_s(10.0) == 14.0
    assert Row(0).tokens_per_s(10.0) == 0.0
