"""What a person is told where there is no answer, and of candidates that nobody asked for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from engine.api import GenerationRequest
from engine.errors import EngineError
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA
from rsa.command.display import Lines
from rsa.events import RunFinished
from rsa.unanswered import unanswered

pytestmark = pytest.mark.anyio
LONG = "and so on " * 40
REFUSAL = "I only know number puzzles. No answer."


async def told(script: Callable[[GenerationRequest], Script], **settings: Any) -> tuple[list[str], Any]:
    """The plain lines of a run, and its result."""
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(console)
    sizes = {"n": 4, "c": 2, "t": 1, "beta": 60, "tau": 10, "answer_budget": 50, **settings}
    async with MarkovianRSA(ScriptedEngine(script), **sizes).stream("What?") as events:
        async for event in events:
            lines.show(event)
            if isinstance(event, RunFinished):
                result = event.result
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines(), result


def index(request: GenerationRequest) -> int:
    return int(request.id.partition("-c")[2])


async def test_candidates_that_hand_on_are_not_said_to_have_no_answer() -> None:
    lines, result = await told(lambda request: Script("hm", r"\boxed{7}"))
    assert [candidate.asked for played in result.rounds for candidate in played.candidates] == [False] * 4 + [True] * 4
    of_round_0 = [line for line in lines if line.startswith("  round 0 ")]
    assert len(of_round_0) == 4
    assert all(line.endswith(" tokens, handed on") for line in of_round_0)
    assert "round 0 done: tails handed on" in lines
    assert all(line.endswith(", answer 7") for line in lines if line.startswith("  round 1 "))


async def test_asked_in_every_round_they_are() -> None:
    lines, _ = await told(lambda request: Script("hm", "none"), answers="every")
    assert sum(line.endswith(" tokens, no answer") for line in lines) == 8
    assert {"round 0 done: no answers", "round 1 done: no answers"} <= set(lines)


async def test_what_all_wrote_is_shown_once() -> None:
    lines, _ = await told(lambda request: Script("hm", REFUSAL))
    assert lines[-2].startswith(
        r"no answer: 4 of 4 final candidates ended without an answer in \boxed{...}; 2 rounds, "
    )
    assert lines[-1] == f"  4 wrote at the end: {REFUSAL}"


async def test_a_beta_that_was_used_up_is_named_with_what_to_try() -> None:
    lines, result = await told(lambda request: Script(LONG, "Not solved yet."))
    assert lines[-3].startswith("no answer: 4 of 4 final candidates used up beta = 60 before they had an answer; ")
    assert lines[-2:] == ["  4 wrote at the end: Not solved yet.", "try a larger --beta"]
    closed = result.rounds[1].candidates[0].completion.usage.reasoning_tokens
    assert all(
        f", reasoning closed at {closed} tokens (beta = 60), no answer" in line
        for line in lines
        if line.startswith("  round 1 ")
    )
    assert all(", reasoning ended at beta = 60, handed on" in line for line in lines if line.startswith("  round 0 "))


async def test_without_force_the_end_of_the_reasoning_is_shown() -> None:
    _, result = await told(lambda request: Script(LONG, "x"), force_answer=False)
    found = unanswered(result)
    assert found is not None
    assert (found.why, found.beta_short) == (
        "4 of 4 final candidates used up beta = 60 before they had an answer",
        True,
    )
    ((words, many),) = found.wrote
    assert many == 4
    assert words in f"…{' '.join(LONG.split())}"


async def test_many_ways_are_counted_and_the_rarest_words_left_out() -> None:
    def script(request: GenerationRequest) -> Script:
        if request.id.startswith("r1") and index(request) == 9:
            return Script(error=EngineError("no luck"))
        if index(request) >= 7:
            return Script(LONG, "too long")
        return Script("hm", "the same" if index(request) < 3 else f"number {index(request)}")

    lines, result = await told(script, n=10)
    found = unanswered(result)
    assert found is not None
    assert found.why == (
        r"7 of 10 final candidates ended without an answer in \boxed{...}, 2 used up beta = 60 before they had an "
        "answer, 1 failed"
    )
    assert found.wrote[:2] == (("the same", 3), ("too long", 2))
    assert (len(found.wrote), found.more, found.beta_short) == (4, 2, False)
    assert lines[-1] == "  and 2 more wrote something else"


@pytest.mark.parametrize(
    ("task", "words"), [("choice", "ended without naming a letter"), ("code", "ended without a block of code")]
)
async def test_every_task_says_what_was_missing(task: str, words: str) -> None:
    lines, _ = await told(lambda request: Script("hm", "I do not know."), task=task)
    assert lines[-2].startswith(f"no answer: 4 of 4 final candidates {words}; ")


async def test_an_answer_needs_no_excuse() -> None:
    _, result = await told(lambda request: Script("hm", r"\boxed{7}" if index(request) == 1 else REFUSAL))
    assert result.answer == "7"
    assert unanswered(result) is None


async def test_what_they_wrote_cannot_drive_the_terminal() -> None:
    lines, _ = await told(lambda request: Script("hm", "gone\x1b[2K"))
    assert lines[-1] == "  4 wrote at the end: gone�[2K"
