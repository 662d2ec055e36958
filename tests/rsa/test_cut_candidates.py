"""What is left of a candidate that a policy cut: the same however far it had come."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import Completion, Usage
from engine.byte_tokenizer import ByteTokenizer
from engine.likelihoods import Likelihoods
from engine.scripted import ScriptedEngine
from rsa import Problem
from rsa.budgets import plan
from rsa.candidates import LONGEST_TAG, Candidates
from rsa.prompts import load_prompts
from rsa.requests import Requests
from rsa.results import Candidate, Status
from rsa.settings.config import RSAConfig


@cache
def candidates() -> Candidates:
    config = RSAConfig(n=6, c=2, t=0, beta=600, tau=16, answer_budget=32)
    engine, problem = ScriptedEngine("a"), Problem("why?")
    prompts = load_prompts(config.task)
    return Candidates(Requests(engine, config, problem, prompts, plan(engine, config, problem, prompts)))


def ended(tokens: int, reasoning: int, status: Status = "ok", ids: tuple[int, ...] | None = None) -> Candidate:
    ids = ids or tuple(97 + at % 26 for at in range(tokens))
    completion = Completion(
        request_id="r",
        token_ids=ids,
        reasoning=ByteTokenizer().decode(ids[:reasoning]),
        text="the answer",
        finish_reason="stop",
        closed=True,
        usage=Usage(prompt_tokens=3, completion_tokens=tokens, reasoning_tokens=reasoning),
    )
    tail = candidates()._tail(completion, None)
    return Candidate(round=0, index=0, seed=1, status=status, completion=completion, tail=tail, answer="7")


@settings(max_examples=60)
@given(st.integers(1, 80), st.data())
def test_a_candidate_is_cut_to_the_same_however_far_it_had_come(at: int, data: st.DataObject) -> None:
    """One that was in the midst of its closing tag when the engine obeyed has the tag's half counted as reasoning."""
    thought, tag = data.draw(st.integers(0, 100)), data.draw(st.integers(1, LONGEST_TAG))
    of = candidates()
    seen = set()
    for written_by_then in (at, at + 1, at + 5, at + LONGEST_TAG, at + 40):
        counted = thought if written_by_then >= thought + tag else written_by_then
        whole = ended(200, counted)
        assert whole.completion is not None
        usage = whole.completion.usage.model_copy(update={"completion_tokens": written_by_then})
        closed = written_by_then >= thought + tag
        reasoning = ByteTokenizer().decode(whole.completion.token_ids[:counted])
        update = {"token_ids": whole.completion.token_ids[:written_by_then], "usage": usage, "closed": closed}
        completion = whole.completion.model_copy(update={**update, "reasoning": reasoning})
        left = of.cut(whole.model_copy(update={"status": "cut", "completion": completion}), at)
        assert of.cut(left, at) == left
        assert left.status == "cut"
        seen.add(left.model_dump_json())
    assert len(seen) == 1


def test_likelihoods_are_of_the_tokens_that_are_left() -> None:
    whole = ended(5, 5)
    assert whole.completion is not None
    told = Likelihoods(log_probabilities=(-1.0, None, -2.0, -3.0, -4.0), entropies=(1.0, None, 2.0, 3.0, 4.0))
    completion = whole.completion.model_copy(update={"likelihoods": told})
    left = candidates().cut(whole.model_copy(update={"completion": completion}), 3).completion
    assert left is not None
    assert left.likelihoods == Likelihoods(log_probabilities=(-1.0, None, -2.0), entropies=(1.0, None, 2.0))


def test_who_had_ended_by_then_stays_as_it_is() -> None:
    of = candidates()
    assert of.cut(ended(20, 10), 20) == ended(20, 10)
    assert of.cut(ended(21, 10), 20).status == "cut"
    failed = Candidate(round=0, index=0, seed=1, status="failed", error="so")
    assert of.cut(failed, 1) == failed


def test_who_repeats_itself_is_cut_before_that_can_be_seen() -> None:
    of, loops = candidates(), ended(700, 700, "degenerate", ids=(97,) * 700)
    assert of.cut(loops, 512) == loops
    assert of.cut(loops, 511).status == "cut"
