"""The method, point by point, on scripted engines (docs: the algorithm and its invariants)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import GenerationRequest
from engine.errors import OutOfMemoryError
from engine.scripted import ByteTokenizer, Script, ScriptedEngine, ScriptLike
from rsa import MarkovianRSA, NoCandidatesError, Problem, RSAConfig, RunResult
from rsa.budgets import SEAM_TOKENS

pytestmark = pytest.mark.anyio
SMALL: dict[str, Any] = {"n": 4, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}


def counted(request: GenerationRequest) -> ScriptLike:
    """Reasoning that names its request; answers 0, 1 or 2 by the request's seed."""
    return Script(reasoning=f"thinking in {request.id}", answer=rf"\boxed{{{request.sampling.seed % 3}}}")


async def solve(engine: ScriptedEngine, problem: str = "why?", **settings: Any) -> RunResult:
    return await MarkovianRSA(engine, config=RSAConfig(**{**SMALL, **settings})).solve(problem)


def of_round(engine: ScriptedEngine, number: int) -> list[GenerationRequest]:
    return [request for request in engine.requests if request.id.startswith(f"r{number}-")]


async def test_t_counts_aggregation_rounds() -> None:
    for t in (0, 1, 3):
        engine = ScriptedEngine(counted)
        result = await solve(engine, t=t)
        assert len(result.rounds) == t + 1
        assert len(engine.requests) == (t + 1) * 4
        assert engine.max_active == 4, "a round starts when all of the one before ended"


async def test_round_0_is_the_problem_and_later_rounds_hold_c_tails_of_the_round_before() -> None:
    engine = ScriptedEngine(counted)
    result = await solve(engine)
    assert len({request.messages for request in of_round(engine, 0)}) == 1
    for number in (1, 2):
        for candidate, request in zip(result.rounds[number].candidates, of_round(engine, number), strict=True):
            text = request.messages[0].text
            shown = [f"r{number - 1}-c{parent:02}" for parent in candidate.parents]
            assert len(set(candidate.parents)) == 2
            assert [text.index(name) for name in shown] == sorted(text.index(name) for name in shown)
            assert text.count("[Attempt") == 2
            assert "why?" in text
            assert f"r{number - 2}" not in text


async def test_answers_are_written_where_they_are_needed_only() -> None:
    engine = ScriptedEngine(counted)
    result = await solve(engine)
    assert [r.sampling.answer_budget for r in engine.requests] == [0] * 8 + [32] * 4
    assert [candidate.answer is None for each in result.rounds for candidate in each.candidates] == [True] * 8 + [
        False
    ] * 4
    for wish in ({"answers": "every"}, {"stop": "consensus:1"}, {"limits": {"total_tokens": "1M"}}):
        engine = ScriptedEngine(counted)
        await solve(engine, **wish)
        assert all(r.sampling.answer_budget == 32 for r in engine.requests)
        assert all(r.sampling.force_answer for r in engine.requests)


async def test_beta_ends_a_trace_and_the_final_round_still_answers() -> None:
    engine = ScriptedEngine(Script(reasoning="on and on ", answer=r"\boxed{9}", never_ends=True))
    result = await solve(engine)
    for number, each in enumerate(result.rounds):
        for candidate in each.candidates:
            assert candidate.completion is not None
            assert candidate.completion.usage.reasoning_tokens == 64
            assert candidate.completion.forced == (number == 2)
            assert candidate.tail is not None
            assert candidate.tail.ids == candidate.completion.reasoning_ids[-16:]
    assert result.answer == "9"
    unforced = await solve(ScriptedEngine(Script(reasoning="on ", answer="x", never_ends=True)), force_answer=False)
    assert unforced.answer is None
    assert unforced.answered_from_round is None


async def test_c_1_goes_on_from_its_own_tail() -> None:
    engine = ScriptedEngine(counted)
    result = await solve(engine, c=1)
    for each in result.rounds[1:]:
        assert [candidate.parents for candidate in each.candidates] == [(0,), (1,), (2,), (3,)]
    assert "one attempt" in of_round(engine, 1)[0].messages[0].text


@pytest.mark.parametrize("carry", ["reasoning", "answer_or_reasoning", "full"])
async def test_carry(carry: str) -> None:
    def script(request: GenerationRequest) -> Script:
        return Script(reasoning="x" * 40 + request.id, answer="so 5", never_ends=request.id.endswith("0"))

    engine = ScriptedEngine(script)
    result = await solve(engine, carry=carry)
    endless, finished = result.rounds[0].candidates[0].tail, result.rounds[0].candidates[1].tail
    assert endless is not None
    assert finished is not None
    expected = {"reasoning": "x" * 10 + "r0-c01", "answer_or_reasoning": "so 5", "full": "x" * 40 + "r0-c01"}
    assert finished.text == expected[carry]
    assert len(endless.ids) == (64 if carry == "full" else 16)
    first = of_round(engine, 0)[0].sampling
    assert first.answer_budget == (32 if carry == "answer_or_reasoning" else 0)
    assert not first.force_answer


@settings(max_examples=15, deadline=None)
@given(
    problem=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip),
    c=st.integers(1, 4),
    thought=st.text("aé漢\n", min_size=1, max_size=30),
)
def test_prompts_are_bounded_whatever_the_round(problem: str, c: int, thought: str) -> None:
    def script(request: GenerationRequest) -> Script:
        return Script(reasoning=thought, answer="1", never_ends=True)

    engine = ScriptedEngine(script)
    config = RSAConfig(n=4, c=c, t=8, beta=64, tau=16, answer_budget=8)
    anyio.run(MarkovianRSA(engine, config=config).solve, problem)
    lengths = [ByteTokenizer().prompt_tokens(request.messages) for request in engine.requests]
    overhead = 800  # the wording, whatever it is in detail
    bound = len(problem.encode()) + c * (16 + SEAM_TOKENS + len("[Attempt 1]\n\n")) + overhead
    assert max(lengths) <= bound
    by_round = [max(lengths[4 * number : 4 * number + 4]) for number in range(9)]
    assert max(by_round[2:]) - min(by_round[1:]) <= 3 * c, "cut characters apart, no growth with the round"


async def test_same_seed_same_run_and_every_input_counts() -> None:
    def draws(result: RunResult) -> list[tuple[int, tuple[int, ...]]]:
        return [(c.seed, c.parents) for each in result.rounds for c in each.candidates]

    first = draws(await solve(ScriptedEngine(counted)))
    assert first == draws(await solve(ScriptedEngine(counted)))
    assert len({seed for seed, _ in first}) == len(first)
    assert first != draws(await solve(ScriptedEngine(counted), seed=1))
    assert first != draws(await solve(ScriptedEngine(counted), "why not?"))


async def test_a_failed_candidate_is_recorded_and_never_a_parent() -> None:
    def script(request: GenerationRequest) -> Script:
        if request.id in ("r0-c01", "r1-c02", "r2-c00"):
            return Script(reasoning="abc", error=OutOfMemoryError("lower n"), fail_after=1)
        return Script(reasoning=request.id, answer=r"\boxed{1}")

    result = await solve(ScriptedEngine(script), t=2)
    failed = result.rounds[0].candidates[1]
    assert (failed.status, failed.completion, failed.tail) == ("failed", None, None)
    assert failed.error == "OutOfMemoryError: lower n"
    assert all(1 not in candidate.parents for candidate in result.rounds[1].candidates)
    assert all(2 not in candidate.parents for candidate in result.rounds[2].candidates)
    assert result.votes[0].candidates == (1, 2, 3)
    assert result.votes[0].share == 0.75


async def test_c_1_draws_another_tail_if_its_own_failed() -> None:
    def script(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("no") if request.id == "r0-c01" else None
        return Script(reasoning=request.id, answer="1", error=error)

    result = await solve(ScriptedEngine(script), c=1, t=1)
    parents = [candidate.parents for candidate in result.rounds[1].candidates]
    assert parents[1] in [(0,), (2,), (3,)]
    assert [parents[0], *parents[2:]] == [(0,), (2,), (3,)]


async def test_a_round_with_none_left_ends_with_the_trace_kept() -> None:
    def script(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("lower n") if request.id.startswith("r1") else None
        return Script(reasoning="abc", answer=r"\boxed{8}", error=error)

    with pytest.raises(NoCandidatesError, match=r"all 4 candidates of round 1 failed: OutOfMemoryError: lower n"):
        await solve(ScriptedEngine(script))
    with pytest.raises(NoCandidatesError) as caught:
        await solve(ScriptedEngine(script), answers="every")
    partial = caught.value.result
    assert (len(partial.rounds), partial.answer, partial.answered_from_round) == (2, "8", 0)
    assert partial.stopped_because == "no_candidates"


async def test_fewer_parents_than_c() -> None:
    def script(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("no") if request.id in ("r0-c00", "r0-c01", "r0-c02") else None
        return Script(reasoning=request.id, answer="1", error=error)

    engine = ScriptedEngine(script)
    result = await solve(engine, t=1, c=3)
    assert [candidate.parents for candidate in result.rounds[1].candidates] == [(3,)] * 4
    assert "one attempt" in of_round(engine, 1)[0].messages[0].text


async def test_degenerate_candidates_are_cut_off_and_passed_over() -> None:
    def script(request: GenerationRequest) -> Script:
        looping = request.id in ("r0-c00", "r1-c01")
        return Script(reasoning="x" if looping else request.id, answer=r"\boxed{1}", never_ends=looping)

    engine = ScriptedEngine(script)
    result = await solve(engine, beta=5000, answers="every", t=1)
    sick = result.rounds[0].candidates[0]
    assert (sick.status, sick.answer) == ("degenerate", None)
    assert sick.completion is not None
    assert sick.completion.finish_reason == "cancelled"
    assert 512 <= sick.completion.usage.completion_tokens < 1024
    assert engine.cancelled == ["r0-c00", "r1-c01"]
    assert all(0 not in candidate.parents for candidate in result.rounds[1].candidates)
    assert result.votes[0].candidates == (0, 2, 3)


async def test_degenerate_candidates_are_parents_if_nobody_is_well() -> None:
    engine = ScriptedEngine(
        lambda r: Script("x", "1", never_ends=True) if r.id[1] == "0" else Script("ok", r"\boxed{1}")
    )
    result = await solve(engine, beta=5000, t=1)
    assert result.rounds[0].statuses == {"degenerate": 4}
    assert result.rounds[1].parents == (0, 1, 2, 3)
    assert result.answer == "1"


async def test_select() -> None:
    def script(request: GenerationRequest) -> Script:
        answers = {"r1-c00": "1", "r1-c01": "2", "r1-c02": "2", "r1-c03": "1/2", "select": "7"}
        return Script(reasoning=request.id, answer=rf"\boxed{{{answers.get(request.id, '0')}}}")

    voted = await solve(ScriptedEngine(script), t=1)
    assert (voted.answer, voted.text, voted.answered_from_round) == ("2", r"\boxed{2}", 1)
    first = await solve(ScriptedEngine(script), t=1, select="first")
    assert first.answer == "1"
    engine = ScriptedEngine(script)
    last = await solve(engine, t=1, select="aggregate")
    assert (last.answer, last.answered_from_round, len(last.rounds)) == ("7", 2, 2)
    assert last.selection is not None
    assert len(last.selection.candidates) == 1
    sampling = engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 40)
    assert last.usage.completion_tokens > voted.usage.completion_tokens


async def test_select_aggregate_needs_no_rounds_before_it() -> None:
    engine = ScriptedEngine(lambda r: Script("abc", rf"\boxed{{{7 if r.id == 'select' else 3}}}"))
    result = await solve(engine, t=0, select="aggregate")
    assert (result.answer, result.answered_from_round, len(result.rounds)) == ("7", 1, 1)


async def test_a_tail_that_repeats_itself_does_not_depend_on_when_it_was_cut_off() -> None:
    tails = set()
    for step in (1, 50, 400):
        engine = ScriptedEngine(Script("abcdefg", never_ends=True), tokens_per_step=step)
        result = await solve(engine, n=1, c=1, t=1, beta=2000, carry="answer_or_reasoning")
        assert result.rounds[0].statuses == {"degenerate": 1}
        tails.add(result.rounds[0].candidates[0].tail)
    assert len(tails) == 1


async def test_select_aggregate_falls_back_to_the_vote() -> None:
    engine = ScriptedEngine(lambda r: Script("abc", "none" if r.id == "select" else r"\boxed{3}"))
    result = await solve(engine, select="aggregate")
    assert (result.answer, result.answered_from_round) == ("3", 2)
    assert "last aggregation gave no answer" in result.warnings[0]


async def test_no_answer_in_the_final_round_falls_back_and_says_so() -> None:
    engine = ScriptedEngine(lambda r: Script("abc", r"\boxed{3}" if r.id.startswith("r1") else "dunno"))
    result = await solve(engine, answers="every")
    assert (result.answer, result.answered_from_round) == ("3", 1)
    assert result.warnings == ("round 2 gave no answer: the answer is of round 1",)


async def test_consensus_counts_all_candidates() -> None:
    def script(request: GenerationRequest) -> Script:
        number, index = int(request.id[1]), int(request.id[-2:])
        agree = index <= number + 1  # 2, 3, 4 of 4
        return Script(reasoning="abc", answer=r"\boxed{6}" if agree else "")

    for share, rounds in ((0.5, 1), (0.75, 2), (0.8, 3)):
        result = await solve(ScriptedEngine(script), stop=f"consensus:{share}", t=5)
        assert (len(result.rounds), result.stopped_because, result.answer) == (rounds, "policy", "6")


async def test_a_model_without_think_tags() -> None:
    engine = ScriptedEngine(
        lambda r: Script(reasoning=f"{r.id}: it is ", answer=r"\boxed{4}"), thinks=False, tokens_per_step=3
    )
    result = await solve(engine, tau=20)
    assert (result.answer, result.answered_from_round) == ("4", 2)
    assert result.rounds[0].candidates[0].tail is not None
    assert result.rounds[0].candidates[0].tail.text.endswith(r"\boxed{4}")


async def test_budgets_are_lowered_to_the_context() -> None:
    engine = ScriptedEngine(counted, context_tokens=1500)
    result = await solve(engine, beta=40_000, tau=4000, answer_budget=40_000)
    assert result.budgets.beta < 1500
    assert "1500" in result.warnings[0]
    assert engine.requests[0].sampling.reasoning_budget == result.budgets.beta
    for request in engine.requests:
        prompt = engine.tokenizer.prompt_tokens(request.messages)
        assert prompt + result.budgets.beta + result.budgets.answer_budget <= 1500


async def test_images_are_sent_in_every_round() -> None:
    engine = ScriptedEngine(counted)
    picture = b"\x89PNG"
    await MarkovianRSA(engine, **SMALL, task="vision").solve(Problem("what?", images=[picture]))
    assert all([image.data for image in request.messages[0].images] == [picture] for request in engine.requests)


async def test_subsets_cover_all_parents_evenly() -> None:
    engine = ScriptedEngine(counted)
    result = await solve(engine, n=64, c=4, t=4)
    counts = Counter(p for each in result.rounds[1:] for candidate in each.candidates for p in candidate.parents)
    assert set(counts) == set(range(64))
    assert max(counts.values()) < 40, "expected 16 each"


async def test_several_runs_share_an_engine() -> None:
    engine = ScriptedEngine(counted)
    alone = await solve(ScriptedEngine(counted))
    results: list[RunResult] = []
    rsa = MarkovianRSA(engine, **SMALL)

    async def one() -> None:
        results.append(await rsa.solve("why?"))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert engine.max_active == 8
    assert [result.rounds[2].candidates[0].answer for result in results] == [alone.rounds[2].candidates[0].answer] * 2
