"""`rsa doctor --smoke`: easy questions that any model in working order answers rightly.

They are four, or for a model that knows little else its own problems (`smoke` in configs/models): greedy, asked all at
once, and small enough for a slow machine. A model that fails one is not weak but broken: weights read wrongly, a chat
template or an end token that is not its own, images that do not reach it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import anyio

from engine.api import (
    Completion,
    Engine,
    Failure,
    GenerationRequest,
    ImagePart,
    Message,
    ModelInfo,
    SamplingParams,
)
from engine.errors import EngineError
from rsa.command.doctor import Finding
from rsa.command.options import with_flags
from rsa.results import Check

SAMPLING = SamplingParams(temperature=0.0, reasoning_budget=1024, answer_budget=256)
_SQUARE = 224
"""Side of the square that is shown, in pixels: 64 tokens."""


_FOUR = re.compile(
    r"(?:=|\b(?:is|equals?|to|makes?|gives?)\b|\banswer:)[\s*_$:(\[]*(?:\\boxed\{)?(?:4|four)\b(?!\.\d|\s*[-+*/=^]\s*\d)"
    r"|^\W*(?:4|four)\W*$|\\boxed\{\s*4\s*\}",
    re.IGNORECASE,
)
"""An answer of 4: said of something, or all that is said. A 4 anywhere, in `2/2=1, ... 4` say, is no answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what judges the answer. `prompt` is how it is put, where that is not `text` alone."""

    what: str
    text: str
    judge: Callable[[str], Check]
    thinking: bool = True
    image: Callable[[], bytes] | None = None
    prompt: str = ""


def holds(pattern: re.Pattern[str], expected: str) -> Callable[[str], Check]:
    """Judges by a pattern; `expected` says in words what it finds."""
    right, wrong = Check(mark="verified"), Check(mark="wrong", reason=f"expected: {expected}")
    return lambda answer: right if pattern.search(answer) else wrong


def names(word: str) -> Callable[[str], Check]:
    """The word is right, wherever it stands."""
    return holds(re.compile(rf"\b{word}\b", re.IGNORECASE), word)


def red_square() -> bytes:
    """A PNG file."""
    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (_SQUARE, _SQUARE), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


QUESTIONS = (
    Question("2 + 2", "What is 2 + 2?", holds(_FOUR, "4 or four")),
    Question("capital", "What is the capital of France?", names("Paris")),
    Question("thinking off", "What colour is grass? Answer with one word.", names("green"), thinking=False),
    Question("image", "What colour is this square? Answer with one word.", names("red"), image=red_square),
)


def questions_for(model: ModelInfo) -> tuple[Question, ...]:
    """The model's own problems, put as `rsa solve` puts them, or else those for any model."""
    from rsa.compose import checker_of, smoke_problems
    from rsa.problem import Problem
    from rsa.prompts import load_prompts

    problems, check = smoke_problems(model), checker_of(model)
    if not problems or check is None:
        return QUESTIONS
    put = load_prompts("math").initial
    return tuple(
        Question(what, text, judge=partial(check, text), prompt=put(Problem(text))[-1].text)
        for what, text in problems.items()
    )


def smoke_model(model: str, options: Mapping[str, Any], tell: Callable[[Finding], None]) -> bool:
    """Open a model, as `rsa.compose.open_engine` does, and `smoke` it. Raises what that raises."""
    from rsa.compose import open_engine

    async def run() -> bool:
        try:
            return await smoke(engine, tell)
        finally:
            await engine.aclose()

    engine = open_engine(model, **options)
    return anyio.run(run)


async def smoke(engine: Engine, tell: Callable[[Finding], None]) -> bool:
    """Tell its notes, ask all questions, and tell each finding as it comes; True if all went well. A model that reads
    text only is not asked about the image."""
    model = engine.model
    tell(Finding("model", f"{model.name}, {'reads images' if model.images else 'text only'}"))
    for note in model.notes:
        tell(Finding("note", with_flags(note)))
    well = True

    async def ask(question: Question) -> None:
        nonlocal well
        finding = await _asked(engine, question)
        well = well and finding.level != "broken"
        tell(finding)

    async with anyio.create_task_group() as tasks:
        for question in questions_for(model):
            if question.image is not None and not model.images:
                tell(Finding(question.what, f"skipped: {model.name} reads text only"))
            else:
                tasks.start_soon(ask, question)
    return well


async def _asked(engine: Engine, question: Question) -> Finding:
    """In a stream of its own: a question that is refused, for want of a chat template say, leaves the others."""
    try:
        async with engine.generate([_request(question)]) as stream:
            (end,) = [event async for event in stream if isinstance(event, Completion | Failure)]
    except EngineError as error:
        return Finding(question.what, f"failed: {error}", level="broken")
    return _judged(question, end)


def _request(question: Question) -> GenerationRequest:
    images = (ImagePart(data=question.image()),) if question.image is not None else ()
    message = Message(role="user", text=question.prompt or question.text, images=images)
    return GenerationRequest(id=question.what, messages=(message,), sampling=SAMPLING, thinking=question.thinking)


def _judged(question: Question, event: Completion | Failure) -> Finding:
    from rsa.command.display import in_a_line

    if isinstance(event, Failure):
        return Finding(question.what, f"failed: {event.error}", level="broken")
    asked, answer = f"{question.text} -> ", in_a_line(event.text) or "nothing"
    check = question.judge(event.text)
    if check.mark == "wrong":
        return Finding(question.what, f"{asked}{answer} ({check.reason})", level="broken")
    if event.finish_reason != "stop":
        right = "right, but " if check.mark == "verified" else ""
        why = f"did not stop within {event.usage.completion_tokens:,} tokens: is its end token the chat template's?"
        return Finding(question.what, f"{asked}{answer} ({right}it {why})", level="broken")
    if check.mark == "unchecked":
        return Finding(question.what, f"{asked}{answer} ({check.reason})", level="warning")
    reasoned = not question.thinking and event.usage.reasoning_tokens > 0
    return Finding(question.what, f"{asked}{answer}{' (it reasoned all the same)' if reasoned else ''}")
