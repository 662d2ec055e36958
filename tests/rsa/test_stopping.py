"""Policies inside a round while it runs: what they decide depends on tokens, whoever was quick."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed import rewrite_event

from engine.api import GenerationRequest
from engine.errors import OutOfMemoryError
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RunFolderError, RunResult, read_events
from rsa.events import CandidateFinished, Event, PolicyDecided

N = 6
SETTINGS: dict[str, Any] = {"n": N, "c": 2, "t": 0, "beta": 600, "tau": 16, "answer_budget": 32}
TIMES = {"at_s", "started_s", "finished_s", "wall_s", "started_at"}
OVER_ROUNDS: dict[str, Any] = {"t": 2, "answers": "every", "stop": "beta:.8"}
IN_WAVES: dict[str, Any] = {**OVER_ROUNDS, "waves": "2,3,1"}
KINDS = st.sampled_from([{"stop": "decided"}, OVER_ROUNDS, IN_WAVES])


def timeless(value: Any) -> Any:
    """A JSON value without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(result: RunResult) -> Any:
    return timeless(result.model_dump(mode="json", exclude={"model"}))  # which says how many rows there are


def dice(request: GenerationRequest, sides: int, use: str) -> int:
    """The same for a candidate whoever asks."""
    said = f"{use} {request.id} {request.sampling.seed} {request.messages[0].text}"
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=4).digest(), "big") % sides


def written(request: GenerationRequest) -> Script:
    """Some are short, some are long, some of those for ever; of three answers one is the likeliest."""
    length = (3, 20, 60, 150, 250)[dice(request, 5, "length")]
    words = " ".join(str(dice(request, 10**6, f"word {at}")) for at in range(length))
    answer = rf"\boxed{{{(7, 7, 7, 7, 8, 9)[dice(request, 6, 'answer')]}}}"
    return Script(words[: length * 4], answer, never_ends=length > 200)


def at_speed(speeds: list[int], rows: int | None) -> ScriptedEngine:
    """An engine on which candidates have speeds of their own, and so many run at once."""

    def script(request: GenerationRequest) -> Script:
        told = written(request)
        return Script(told.reasoning, told.answer, never_ends=told.never_ends, tokens_per_step=speeds[number(request)])

    return ScriptedEngine(script, max_rows=rows)


def number(request: GenerationRequest) -> int:
    return int(request.id.partition("-c")[2])


def rsa(engine: ScriptedEngine | None = None, **changes: Any) -> MarkovianRSA:
    return MarkovianRSA(engine or ScriptedEngine(written), **{**SETTINGS, **changes})


def solve(engine: ScriptedEngine | None = None, **changes: Any) -> RunResult:
    return rsa(engine, **changes).solve_sync("why?")


SPEEDS = st.lists(st.sampled_from([1, 3, 16, 100, 1000]), min_size=N, max_size=N)
ROWS = st.sampled_from([None, 1, 2, 5])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), speeds=SPEEDS, rows=ROWS)
def test_decided_gives_the_answer_of_the_whole_round_for_no_more_tokens(
    seed: int, speeds: list[int], rows: int | None
) -> None:
    whole = solve(seed=seed)
    found = solve(at_speed(speeds, rows), seed=seed, stop="decided")
    assert found.answer == whole.answer
    assert found.answered_from_round == whole.answered_from_round
    assert found.stopped_because == "finished"
    assert bool(found.decisions) == ("cut" in found.rounds[0].statuses)
    assert found.usage.completion_tokens <= whole.usage.completion_tokens
    for ours, its in zip(found.rounds[0].candidates, whole.rounds[0].candidates, strict=True):
        assert ours.completion is not None
        assert its.completion is not None
        assert ours.completion.token_ids == its.completion.token_ids[: len(ours.completion.token_ids)]


def test_stories_above_are_of_both_kinds() -> None:
    saved = [solve(seed=seed, stop="decided").decisions for seed in range(40)]
    assert 10 < sum(bool(decisions) for decisions in saved) < 40


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 500),
    speeds=SPEEDS,
    rows=ROWS,
    more=st.sampled_from([{"stop": "decided"}, OVER_ROUNDS, IN_WAVES]),
)
def test_who_is_quick_changes_nothing(seed: int, speeds: list[int], rows: int | None, more: dict[str, Any]) -> None:
    assert outcome(solve(at_speed(speeds, rows), seed=seed, **more)) == outcome(solve(seed=seed, **more))


def test_a_quick_candidate_that_ended_with_many_tokens_is_cut_to_few() -> None:
    """Of a queue: the last two agree after 20 tokens, when the first has long ended with more of them."""

    def script(request: GenerationRequest) -> Script:
        return Script("long " * 30, r"\boxed{9}") if number(request) == 0 else Script("short", r"\boxed{7}")

    result = solve(ScriptedEngine(script, max_rows=1), n=3, c=1, stop="decided")
    (decision,) = result.decisions
    assert (decision.policy, decision.action, decision.round) == ("decided", "cut", 0)
    assert decision.numbers == {"leader": 2, "running": 1}
    assert decision.vote is not None
    assert (decision.vote.answer, decision.vote.of) == ("7", 3)
    first = result.rounds[0].candidates[0]
    assert first.completion is not None
    assert (first.status, first.answer, first.completion.finish_reason) == ("cut", None, "cancelled")
    assert len(first.completion.token_ids) == decision.at == first.completion.usage.completion_tokens
    assert first.tail is not None
    assert first.tail.text == ("long " * 30)[: decision.at or 0][-SETTINGS["tau"] :]


@pytest.mark.anyio
async def test_a_decision_is_told_before_those_whom_it_ends() -> None:
    async with rsa(**OVER_ROUNDS, seed=1).stream("why?") as stream:
        events: list[Event] = [event async for event in stream]
    cut: set[int] = set()
    ended: set[int] = set()
    for event in events:
        if isinstance(event, PolicyDecided):
            assert event.decision.round not in ended, "somebody was cut before"
            cut.add(event.decision.round)
        elif isinstance(event, CandidateFinished) and event.candidate.status == "cut":
            ended.add(event.candidate.round)
    assert ended
    assert ended <= cut


@pytest.mark.anyio
async def test_rows_of_a_model_that_run_together_or_in_a_queue_are_cut_to_the_same() -> None:
    sizes: dict[str, Any] = {"n": 8, "t": 0, "beta": 256, "tau": 32, "answer_budget": 32}

    async def solved(stop: str, **options: Any) -> RunResult:
        async with MarkovianRSA("nano", engine_options=options, stop=stop, **sizes) as solver:
            return await solver.solve("Make 24 from the numbers 3, 7, 5, 2.")

    whole, together, queued = await solved(""), await solved("decided"), await solved("decided", max_rows=3)
    assert together.answer == whole.answer
    assert together.rounds[0].statuses["cut"] > 0
    assert together.usage.completion_tokens < whole.usage.completion_tokens
    assert queued.decisions == together.decisions
    for one, other in zip(queued.rounds[0].candidates, together.rounds[0].candidates, strict=True):
        assert (one.status, one.answer, one.tail) == (other.status, other.answer, other.tail)


# ---- quorum


def in_step(request: GenerationRequest) -> Script:
    """Longer the higher its index; the last two for ever."""
    words = " ".join(str(dice(request, 10**6, f"word {at}")) for at in range(80))
    return Script(words[: 20 + 15 * number(request)], r"\boxed{7}", never_ends=number(request) >= 4)


@pytest.mark.parametrize("step", [1, 7, 16])
def test_at_a_quorum_the_others_answer_at_a_place_that_all_have_before_them(step: int) -> None:
    result = solve(ScriptedEngine(in_step, tokens_per_step=step), stop="quorum:2")
    (decision,) = result.decisions
    assert (decision.action, decision.at, decision.numbers) == ("conclude", 128, {"ended": 2}), "level 46, 64, 64 more"
    assert outcome(result) == outcome(solve(ScriptedEngine(in_step), stop="quorum:2"))
    ends = [each.completion for each in result.rounds[0].candidates if each.completion]
    assert [(each.forced, each.usage.reasoning_tokens) for each in ends[2:]] == [
        *((False, 50), (False, 65), (True, 128), (True, 128)),
    ]
    assert [vote.count for vote in result.votes] == [6], "who is made to answer votes"


def test_resumed_at_any_line_a_quorum_has_the_same_answers(tmp_path: Path) -> None:
    more: dict[str, Any] = {"stop": "quorum:2", "waves": "4,2"}

    def go(folder: Path) -> Any:
        return outcome(rsa(ScriptedEngine(in_step), **more).solve_sync("why?", out=folder, resume=True))

    whole = go(tmp_path / "whole")
    for lines in range(len(log_of(tmp_path / "whole"))):
        assert go(broken_off(tmp_path / "whole", tmp_path / f"{lines}", lines)) == whole


# ---- waves


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=N))
def test_waves_change_no_answer_and_never_cost_more_than_the_whole_round(seed: int, sizes: list[int]) -> None:
    waves = [size for at, size in enumerate(sizes) if sum(sizes[: at + 1]) <= N]
    waves += [N - sum(waves)] if sum(waves) < N else []
    whole, plain = solve(seed=seed), solve(seed=seed, waves=waves)
    assert [each.completion for each in plain.rounds[0].candidates] == [
        each.completion for each in whole.rounds[0].candidates
    ]
    found = solve(seed=seed, waves=waves, stop="decided")
    assert found.answer == whole.answer
    assert found.usage.completion_tokens <= whole.usage.completion_tokens


def test_a_wave_that_is_not_needed_is_not_begun() -> None:
    engine = ScriptedEngine(lambda request: Script("abc" * number(request), r"\boxed{7}"))
    result = solve(engine, waves=(2, 2, 2), stop="beta:.9", t=1, answers="every")
    assert [request.id for request in engine.requests] == [f"r{at}-c0{index}" for at in (0, 1) for index in range(4)]
    first, last = result.rounds
    assert first.statuses == {"ok": 3, "cut": 3}, "three agree, which is likely enough"
    assert [each.wave for each in result.decisions] == [(2, 4), (2, 4)]
    assert [each.completion is None for each in first.candidates] == [False] * 4 + [True] * 2
    assert {parent for each in last.candidates for parent in each.parents} <= {0, 1, 2, 3}, (
        "who wrote nothing is unread"
    )
    assert last.candidates[5].prompt_sha256 == last.candidates[5].prompt_sha256 != ""


def test_a_candidate_of_an_earlier_wave_has_ended_however_long_it_was() -> None:
    def script(request: GenerationRequest) -> Script:
        return Script("long" * (30 if number(request) == 0 else 1), r"\boxed{7}")

    result = solve(ScriptedEngine(script), n=4, waves=(1, 3), stop="decided")
    assert result.rounds[0].candidates[0].answer == "7"
    assert result.decisions == (), "the three that are short end at once"
    assert solve(ScriptedEngine(script), n=4, waves=(1, 1, 2), stop="beta:.8").rounds[0].statuses == {"ok": 2, "cut": 2}


def test_a_limit_leaves_out_the_waves_that_follow() -> None:
    result = solve(waves=(3, 3), limits={"total_tokens": 300}, seed=1)
    assert result.stopped_because == "total_tokens"
    assert [each.status for each in result.rounds[0].candidates[3:]] == ["cancelled"] * 3


# ---- parents


def test_tails_of_candidates_that_were_cut_are_read() -> None:
    results = [solve(seed=seed, **OVER_ROUNDS) for seed in range(8)]
    read = [
        before.candidates[parent].status
        for result in results
        for before, played in zip(result.rounds, result.rounds[1:], strict=False)
        for candidate in played.candidates
        for parent in candidate.parents
    ]
    assert {"ok", "cut"} == set(read)


def test_failed_candidates_hold_nothing_up_and_do_not_count_as_ended() -> None:
    def script(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("lower n") if number(request) == 5 else None
        return Script("a" * (2 + number(request)), r"\boxed{7}", error=error)

    result = solve(ScriptedEngine(script, tokens_per_step=1), stop="decided")
    assert result.rounds[0].statuses == {"ok": 3, "failed": 1, "cut": 2}
    assert result.decisions[0].numbers == {"leader": 3, "running": 3}, "when it failed is chance"


@pytest.mark.parametrize("limits", [{"total_tokens": 400}, {"total_tokens": 900}])
def test_limits_and_policies_the_first_wins(limits: dict[str, int]) -> None:
    for seed in range(20):
        result = solve(seed=seed, stop="decided", limits=limits)
        cut = "cut" in result.rounds[0].statuses
        assert not (cut and result.limits_hit), "a round ends once"
        assert cut == bool(result.decisions)


# ---- resumed


def log_of(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().splitlines(keepends=True)


def broken_off(folder: Path, copy: Path, lines: int) -> Path:
    """A copy of a run folder as it was when its log had so many lines."""
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    (copy / "events.jsonl").write_bytes(b"".join(log_of(folder)[:lines]))
    return copy


@pytest.mark.parametrize(
    ("seed", "more"),
    [
        (3, {"stop": "decided"}),
        pytest.param(9, {"stop": "decided"}, marks=pytest.mark.thorough),
        pytest.param(4, OVER_ROUNDS, marks=pytest.mark.thorough),
        pytest.param(4, IN_WAVES, marks=pytest.mark.thorough),
        (3, {"stop": "decided", "waves": "3,3"}),
    ],
)
@pytest.mark.parametrize("rows", [None, 2])
def test_resumed_at_any_line_it_is_decided_as_if_never_broken(
    tmp_path: Path, seed: int, more: dict[str, Any], rows: int | None
) -> None:
    def go(folder: Path, engine: ScriptedEngine) -> Any:
        return outcome(rsa(engine, **more, seed=seed).solve_sync("why?", out=folder, resume=True))

    whole = go(tmp_path / "whole", ScriptedEngine(written, max_rows=rows))
    assert go(tmp_path / "whole", ScriptedEngine(written)) == whole, "asked again on what is recorded"
    for lines in range(len(log_of(tmp_path / "whole"))):
        copy = broken_off(tmp_path / "whole", tmp_path / f"{lines}", lines)
        decided = {e.decision.round: e.decision.at for e in read_events(copy) if e.type == "policy_decided"}
        engine = at_speed([1, 100, 3, 16, 1000, 7], None)
        assert go(copy, engine) == whole
        for request in engine.requests:
            assert request.sampling.max_tokens == decided.get(int(request.id[1])), "no more is generated than counts"


def test_a_decision_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    run = rsa(stop="decided", seed=3)
    run.solve_sync("why?", out=tmp_path / "whole")
    lines = [e.type for e in read_events(tmp_path / "whole")]
    for name, change in {
        "another": lambda event: event["decision"]["numbers"].update(leader=5),
        "elsewhere": lambda event: event["decision"].update(at=event["decision"]["at"] + 1),
    }.items():
        copy = broken_off(tmp_path / "whole", tmp_path / name, len(lines))
        line = rewrite_event(copy, "policy_decided", change)
        with pytest.raises(RunFolderError, match=rf"line {line}.*what was decided in round 0"):
            run.solve_sync("why?", out=copy, resume=True)


def test_a_decision_that_is_missing_is_noticed(tmp_path: Path) -> None:
    run = rsa(stop="decided", seed=3)
    run.solve_sync("why?", out=tmp_path / "whole")
    copy = broken_off(tmp_path / "whole", tmp_path / "copy", len(log_of(tmp_path / "whole")))
    rewrite_event(copy, "policy_decided", None)
    with pytest.raises(RunFolderError, match="what was decided in round 0: None is recorded"):
        run.solve_sync("why?", out=copy, resume=True)
