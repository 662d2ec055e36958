"""Answers of Markovian RSA: a run's progress as reasoning, and its result as the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rsa.events import RunFinished
from rsa.policies.words import chosen
from rsa.results import Round, RunResult
from rsa.serve.answering import AnswerDelta, Answering, Finished, FinishReason, Part, ReasoningDelta, ToolCalls
from rsa.serve.offers import Offer
from rsa.serve.progress import ProgressLines
from rsa.serve.runs import RunHandle


class RunAnswering(Answering):
    """The parts of a run's answer. `stop`: strings that cut the answer; `offer`: as it was asked with."""

    def __init__(
        self,
        handle: RunHandle,
        *,
        background: bool,
        stop: tuple[str, ...] = (),
        offer: Offer | None = None,
        deltas: bool = True,
    ) -> None:
        self.run_id = handle.id
        self._handle, self._background, self._stop, self._offer = handle, background, stop, offer or Offer()
        self._parts = self._told(deltas)

    async def begun(self) -> None:
        await self._handle.begun()

    def leave(self) -> None:
        if not self._background:
            self._handle.cancel()

    async def __anext__(self) -> Part:
        return await anext(self._parts)

    async def _told(self, deltas: bool) -> AsyncIterator[Part]:
        lines, said = ProgressLines(), list[str]()
        async for numbered in self._handle.follow():
            event = numbered.event
            if isinstance(event, RunFinished):
                answer = _finished(self._handle.id, event.result, "".join(said), self._stop, self._offer)
                if deltas and answer.text:
                    yield AnswerDelta(answer.text)
                if deltas and answer.calls:
                    yield ToolCalls(answer.calls)
                await self._handle.over()  # whoever has the answer finds the run finished, in its folder too
                yield answer
                return
            if text := lines.feed(event):
                said.append(text)
                if deltas:
                    yield ReasoningDelta(text)
        await self._handle.result()  # raises why there is none


def _finished(run_id: str, result: RunResult, said: str, stop: tuple[str, ...], offer: Offer) -> Finished:
    of_calls = (vote.calls for vote in result.votes if vote.calls)
    calls = offer.kept(next(of_calls, ()) if offer.required else result.calls)
    text = result.text.lstrip() or ("" if calls else result.answer or _unmarked(result))
    if calls and not result.calls:  # they are another candidate's than the text
        text = ""
    for string in stop:
        text = text.partition(string)[0]
    return Finished(
        text=text,
        reasoning=said,
        usage=result.usage,
        finish_reason="tool_calls" if calls else _reason(result, text),
        calls=calls,
        run_id=run_id,
        metadata=facts_of(run_id, result),
    )


def _reason(result: RunResult, text: str) -> FinishReason:
    """`length` for a run that a limit ended, or that came to nothing within its budgets."""
    return "length" if result.limits_hit or not text else "stop"


def _unmarked(result: RunResult) -> str:
    """Of a run without an answer, what a candidate of the latest round wrote that came to its own end: prompts ask for
    answers in a form that can be compared, and who asks for a poem gets one without it. The empty text if none did."""
    asked = [each for played in reversed(result.rounds) for each in played.candidates if each.asked]
    whole = [c.completion for c in asked if c.status == "ok" and c.completion and c.completion.finish_reason == "stop"]
    return next((text for completion in whole if (text := completion.text.strip())), "")


def facts_of(run_id: str, result: RunResult) -> dict[str, Any]:
    """What the field `rsa` of an answer says about its run: plain JSON."""
    return {
        "run_id": run_id,
        "answer": result.answer,
        "check": None if result.check is None else result.check.model_dump(),
        "stopped_because": result.stopped_because,
        "answered_from_round": result.answered_from_round,
        "votes": [
            {"answer": vote.answer, "count": vote.count, "of": vote.of, "share": vote.share} for vote in result.votes
        ],
        "chosen": chosen(result),
        "rounds": [_round(each) for each in result.played],
        "limits_hit": list(result.limits_hit),
        "warnings": list(result.warnings),
        "seed": result.config.seed,
        "n": result.config.n,
        "c": result.config.c,
        "t": result.config.t,
        "wall_s": round(result.timings.wall_s, 3),
    }


def _round(played: Round) -> dict[str, Any]:
    return {
        "round": played.round,
        "kind": played.kind,
        "statuses": dict(played.statuses),
        "usage": played.usage.model_dump(),
        "votes": [{"answer": vote.answer, "count": vote.count, "of": vote.of} for vote in played.votes],
    }
