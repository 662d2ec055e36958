"""Runs on a model without think tags: who uses up beta is asked, and what comes of it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA
from rsa.answers.extract import CUES

pytestmark = pytest.mark.anyio
ENDLESS = Script(reasoning="so and so ", answer="42}, I say.\nAnd more", never_ends=True)
SMALL: dict[str, Any] = {"n": 2, "c": 2, "t": 1, "beta": 40, "tau": 16, "answer_budget": 64}


async def test_who_used_up_beta_is_asked(tmp_path: Path) -> None:
    engine = ScriptedEngine(ENDLESS, thinks=False)
    result = await MarkovianRSA(engine, **SMALL).solve("why?", out=tmp_path / "run")
    assert (result.answer, result.votes[0].share) == ("42", 1.0)
    for candidate in result.rounds[1].candidates:
        assert candidate.completion is not None
        assert candidate.completion.forced
        assert candidate.completion.text.endswith(f"{CUES['boxed'].text}42}}, I say.")
        assert candidate.completion.usage.reasoning_tokens == 40
    for candidate in result.rounds[0].candidates:
        assert candidate.completion is not None
        assert candidate.completion.finish_reason == "budget", "only the last round has to answer"
    (tmp_path / "run" / "result.json").unlink()
    again = await MarkovianRSA(ScriptedEngine("never asked", thinks=False), **SMALL).solve(
        "why?", out=tmp_path / "run", resume=True
    )
    assert [r.candidates for r in again.rounds] == [r.candidates for r in result.rounds]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"force_answer": False}, None),
        ({"task": "choice"}, None),  # 42 is no letter
        ({"task": "general"}, "so and so so and so so and so so and so"),  # the whole text is the answer as it is
    ],
)
async def test_who_is_not_asked_so(settings: dict[str, Any], answer: str | None) -> None:
    result = await MarkovianRSA(ScriptedEngine(ENDLESS, thinks=False), **SMALL, **settings).solve("why?")
    assert result.answer == answer


@pytest.mark.parametrize("thinks", [True, False])
async def test_nobody_is_asked_on_an_engine_that_cannot(thinks: bool) -> None:
    """The default gives way; whoever is out of budget ends there, concluded or not."""
    engine = ScriptedEngine(ENDLESS, thinks=thinks, conclude=False, tokens_per_step=4)
    result = await MarkovianRSA(engine, **{**SMALL, "beta": 4000, "t": 0}, limits={"total_tokens": 600}).solve("why?")
    assert {(asked.sampling.force_answer, asked.sampling.cue) for asked in engine.requests} == {(False, None)}
    assert engine.concluded
    for candidate in result.rounds[0].candidates:
        assert candidate.completion is not None
        assert (candidate.completion.finish_reason, candidate.completion.forced) == ("budget", False)


async def test_a_limit_asks_too() -> None:
    engine = ScriptedEngine(ENDLESS, thinks=False, tokens_per_step=4)
    result = await MarkovianRSA(engine, **{**SMALL, "beta": 4000, "t": 0}, limits={"total_tokens": 600}).solve("why?")
    assert engine.concluded
    assert (result.answer, result.stopped_because) == ("42", "total_tokens")


async def test_a_model_that_thinks_has_no_cue() -> None:
    engine = ScriptedEngine(ENDLESS)
    await MarkovianRSA(engine, **SMALL).solve("why?")
    assert {request.sampling.cue for request in engine.requests} == {None}
