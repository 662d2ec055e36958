"""How sure a model was: the few numbers of a candidate, and when they are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Completion, GenerationRequest, Likelihoods, Usage
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RunResult
from rsa.confidence import WINDOW, confidence_of
from rsa.results import Confidence
from rsa.runlog import read_events

SMALL: dict[str, Any] = {"n": 3, "c": 2, "t": 1, "beta": 100, "tau": 16, "answer_budget": 32}


def completion(
    numbers: Sequence[float | None], *, reasoning: int | None = None, entropies: tuple[float | None, ...] | None = None
) -> Completion:
    return Completion(
        request_id="r",
        token_ids=tuple(range(len(numbers))),
        reasoning="",
        text="",
        finish_reason="stop",
        usage=Usage(reasoning_tokens=len(numbers) if reasoning is None else reasoning),
        likelihoods=Likelihoods(log_probabilities=tuple(numbers), entropies=entropies),
    )


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


@given(
    numbers=st.lists(st.one_of(st.none(), st.floats(-20, 0)), max_size=3 * WINDOW),
    reasoning=st.integers(0, 3 * WINDOW),
    loops_after=st.one_of(st.none(), st.integers(1, 3 * WINDOW)),
)
def test_each_number_is_the_mean_that_it_says_it_is(
    numbers: list[float | None], reasoning: int, loops_after: int | None
) -> None:
    """Worked out anew from its definition; of a candidate that repeats itself, what came after that is not there."""
    found = confidence_of(completion(numbers, reasoning=reasoning), loops_after=loops_after)
    drawn = [number for number in numbers[:loops_after] if number is not None]
    if not drawn:
        assert found is None
        return
    thought = [number for number in numbers[:loops_after][:reasoning] if number is not None]
    windows = [drawn[i : i + WINDOW] for i in range(max(len(drawn) - WINDOW, 0) + 1)]
    assert found is not None
    assert (found.tokens, found.entropy) == (len(drawn), None)
    assert found.mean == pytest.approx(mean(drawn), abs=1e-4)
    assert found.tail == pytest.approx(mean((thought or drawn)[-WINDOW:]), abs=1e-4)
    assert found.lowest == pytest.approx(min(map(mean, windows)), abs=1e-4)
    assert found.lowest <= found.mean + 1e-4


def test_what_is_recorded_does_not_differ_where_sums_differ_in_their_last_digits() -> None:
    one, other = ([-0.1 + shift] * 100 for shift in (0.0, 1e-9))
    assert confidence_of(completion(one)) == confidence_of(completion(other))
    assert str(confidence_of(completion([-1e-9, 0.0]))) == "mean=0.0 tail=0.0 lowest=0.0 entropy=None tokens=2"


def test_an_entropy_is_of_drawn_tokens_too() -> None:
    found = confidence_of(completion([-1.0, None, -2.0], entropies=(0.5, None, 1.0)))
    assert found == Confidence(mean=-1.5, tail=-1.5, lowest=-1.5, entropy=0.75, tokens=2)


def test_where_nobody_says_anything_there_is_none() -> None:
    assert confidence_of(None) is None
    assert confidence_of(completion([None, None])) is None
    assert confidence_of(completion([]).model_copy(update={"likelihoods": None})) is None


# ---- in a run


def sure_by_place(request: GenerationRequest) -> Script:
    """The second candidate of a round is surer than the others."""
    sure = request.id.endswith("c01")
    return Script("some thoughts", r"\boxed{4}", log_probabilities=(-0.25 if sure else -2.0,))


def run(folder: Path, engine: ScriptedEngine | None = None, **settings: Any) -> RunResult:
    engine = engine or ScriptedEngine(sure_by_place)
    return MarkovianRSA(engine, **{**SMALL, **settings}).solve_sync("why?", out=folder / "run")


def test_unless_told_otherwise_a_candidate_has_a_summary_and_a_log_no_list(tmp_path: Path) -> None:
    result = run(tmp_path)
    candidates = [candidate for played in result.rounds for candidate in played.candidates]
    assert [c.confidence.mean for c in candidates if c.confidence] == [-2.0, -0.25, -2.0] * 2
    assert {c.confidence.entropy for c in candidates if c.confidence} == {2.0, 0.25}
    assert all(c.completion is not None and c.completion.likelihoods is None for c in candidates)
    logged = [event.candidate for event in read_events(tmp_path / "run") if event.type == "candidate_finished"]
    assert sorted(logged, key=lambda c: (c.round, c.index)) == candidates
    assert '"log_probabilities"' not in (tmp_path / "run" / "events.jsonl").read_text()


def test_asked_for_the_numbers_of_all_tokens_stay_with_the_completion(tmp_path: Path) -> None:
    for candidate in run(tmp_path, confidence="tokens").rounds[-1].candidates:
        assert candidate.completion is not None
        assert candidate.completion.likelihoods is not None
        assert len(candidate.completion.likelihoods.log_probabilities) == len(candidate.completion.token_ids)
        assert candidate.confidence == confidence_of(candidate.completion)


@pytest.mark.parametrize(
    ("engine", "settings"),
    [(ScriptedEngine(sure_by_place), {"confidence": "none"}), (ScriptedEngine(sure_by_place, logprobs=False), {})],
    ids=["not wanted", "cannot be had"],
)
def test_without_it_the_engine_is_not_asked(tmp_path: Path, engine: ScriptedEngine, settings: dict[str, Any]) -> None:
    result = run(tmp_path, engine, **settings)
    assert result.config.confidence == "none"
    assert not any(request.likelihoods for request in engine.requests)
    assert {candidate.confidence for candidate in result.rounds[0].candidates} == {None}
