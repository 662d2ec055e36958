"""A round that ends when it is decided gives the answer of the whole round to the letter, live and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import Completion, GenerationRequest, Usage
from engine.errors import OutOfMemoryError
from engine.scripted import Script, ScriptedEngine
from evals.replay.deciding import Course, Remembering, replay
from evals.replay.recording import RecordedRun
from evals.replay.variants import Variant
from rsa import Check, MarkovianRSA, Problem, RSAConfig, RunResult, Tool, compose
from rsa.answers.math_pool import MathWorkers
from rsa.policies.ends import stands_for
from rsa.policies.registry import select_policy
from rsa.policies.selecting import Played, choose
from rsa.results import Candidate, Round, Status, Vote

SETTINGS: dict[str, Any] = {"c": 2, "t": 0, "beta": 600, "tau": 16, "answer_budget": 512}
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"days": {"type": "number"}}})
PROBLEMS = {"numbers": Problem("why?"), "calls": Problem("Will it be warm?", tools=[WEATHER])}


def spelled(days: float) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'weather', 'arguments': {'days': days}})}\n</tool_call>"


TOLD = {
    "numbers": [r"\boxed{7}", r"It is \boxed{7.0}", r"\boxed{14/2}", r"\boxed{8}", r"\boxed{8.0} or so", "Who knows?"],
    "calls": [spelled(1), "I look.\n" + spelled(1.0), spelled(2), "So:\n" + spelled(2.0), "It will.", spelled(1)],
}
"""Answers, of which several are the same and none is another's text, but for two equal calls."""
Writes = tuple[int, int, int]
"""How long a candidate reasons, which answer it gives, and how many of its tokens come in a step."""
WRITES = st.tuples(st.sampled_from([1, 2, 3, 9, 40, 599]), st.integers(0, 5), st.sampled_from([1, 16, 1000]))
ROUND = st.lists(WRITES, min_size=2, max_size=7)
LOOPS, FAILS = 40, 599


def writing(told: list[Writes], answers: list[str], *, troubled: bool) -> Callable[[GenerationRequest], Script]:
    """`troubled`: some repeat themselves, and some fail, but never the first."""

    def script(request: GenerationRequest) -> Script:
        index = int(request.id.partition("-c")[2])
        length, answer, speed = told[index]
        if troubled and length == FAILS and index:
            return Script("x" * 50, error=OutOfMemoryError("no room"), fail_after=30, tokens_per_step=speed)
        if troubled and length == LOOPS:
            return Script("ab", answers[answer], never_ends=True, tokens_per_step=speed)
        return Script("".join(chr(65 + at * at % 57) for at in range(length)), answers[answer], tokens_per_step=speed)

    return script


def by_text(problem: str, answer: str) -> Check:
    return Check(mark="unchecked", reason=f"written {answer}")


def solve(
    told: list[Writes], kind: str, *, troubled: bool = False, rows: int | None = None, **changes: Any
) -> RunResult:
    engine = ScriptedEngine(writing(told, TOLD[kind], troubled=troubled), max_rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "checker_of", lambda model: by_text)
        return MarkovianRSA(engine, config=RSAConfig(**{**SETTINGS, "n": len(told), **changes})).solve_sync(
            PROBLEMS[kind]
        )


def again(result: RunResult) -> Course:
    """The recorded run, had it been ended when it was decided."""

    async def main() -> Course:
        async with MathWorkers() as math:
            matcher = Remembering(result.config.task, math)
            return await replay(RecordedRun(Path("run"), result), Variant(stop=("decided",)), matcher)

    return anyio.run(main)


@settings(max_examples=60, deadline=None)
@given(
    told=ROUND,
    kind=st.sampled_from(list(TOLD)),
    troubled=st.booleans(),
    rows=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 3),
)
def test_the_answer_is_that_of_the_whole_round_to_the_letter(
    told: list[Writes], kind: str, troubled: bool, rows: int | None, seed: int
) -> None:
    whole = solve(told, kind, troubled=troubled, seed=seed)
    found = solve(told, kind, troubled=troubled, seed=seed, rows=rows, stop="decided")
    for field in ("answer", "text", "check", "calls", "answered_from_round"):
        assert getattr(found, field) == getattr(whole, field), field
    course = again(whole)
    if "failed" not in whole.rounds[0].statuses:  # else it is chance whether one that would fail is cut before
        assert course.decisions == found.decisions
    if course.choice is None:
        assert whole.answer is None
        return
    one = course.choice.candidate
    assert (one.answer, one.check, one.calls) == (whole.answer, whole.check, whole.calls)
    for vote, result in ((found.agreeing, found), (whole.agreeing, whole)):
        assert vote is not None
        assert (vote.answer, vote.check, vote.calls) == (result.answer, result.check, result.calls)


def test_the_earliest_of_those_that_agree_is_cut_and_was_never_to_be_the_answer() -> None:
    told: list[Writes] = [(400, 0, 1), (3, 1, 1), (9, 2, 1)]
    whole, found = solve(told, "numbers"), solve(told, "numbers", stop="decided")
    assert [each.status for each in found.rounds[0].candidates] == ["cut", "ok", "ok"]
    assert (found.answer, found.text) == (whole.answer, whole.text) == ("7.0", r"It is \boxed{7.0}")
    assert found.check == whole.check == by_text("", "7.0")
    assert [vote.candidates for vote in (*found.votes, *whole.votes)] == [(1, 2), (0, 1, 2)]


# ---- who stands for those that agree


def candidate(index: int, tokens: int | None, status: Status = "ok") -> Candidate:
    usage = Usage(completion_tokens=tokens or 0)
    told = Completion(request_id="r", token_ids=(), reasoning="", text="", finish_reason="stop", usage=usage)
    completion = None if tokens is None else told
    return Candidate(round=0, index=index, seed=0, status=status, completion=completion, answer=f"7{'.0' * index}")


@pytest.mark.parametrize(
    ("agreeing", "stands"),
    [
        ([candidate(0, 30), candidate(1, 20), candidate(2, 20)], 1),
        ([candidate(0, 3, "cancelled"), candidate(1, 20), candidate(2, 30)], 1),
        ([candidate(1, 20, "cancelled"), candidate(2, 3, "cancelled")], 1),
        ([candidate(0, 0), candidate(1, 0)], 0),
    ],
)
def test_the_fewest_tokens_stand_for_all_and_who_was_cut_off_behind_them(
    agreeing: list[Candidate], stands: int
) -> None:
    assert stands_for(agreeing).index == stands
    assert stands_for(reversed(agreeing)).index == stands


def test_between_votes_a_tie_still_goes_to_the_earliest_candidate() -> None:
    ended = [candidate(0, 30), candidate(1, 10), candidate(2, 5), candidate(3, 40)]
    votes = (Vote(answer="a", candidates=(0, 3), of=4), Vote(answer="b", candidates=(1, 2), of=4))
    found = choose(Played((Round(round=0, candidates=tuple(ended), votes=votes),)), select_policy("vote"))
    assert found is not None
    assert found.candidate.index == 0


@pytest.mark.parametrize("select", ["vote", "weighted", "pooled", "tournament", "first"])
def test_whoever_chooses_the_answer_is_written_by_who_stands_for_it(select: str) -> None:
    """But for the one that takes the earliest candidate: those that agree with it are found all the same."""
    told: list[Writes] = [(40, 0, 1), (3, 1, 1), (9, 2, 1), (1, 3, 1)]
    result = solve(told, "numbers", select=select)
    assert result.answer == ("7" if select == "first" else "7.0")
    assert result.text == TOLD["numbers"][select != "first"]
    assert result.agreeing == result.votes[0]
    assert (result.votes[0].answer, result.votes[0].candidates) == ("7.0", (0, 1, 2))
    assert [vote.answer for vote in result.pooled] == (["7.0", "8"] if select == "pooled" else [])
    assert {parent for played in result.matches for match in played.candidates for parent in match.parents} <= {1, 3}
    assert bool(result.matches) == (select == "tournament")
