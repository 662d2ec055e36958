"""From a rollout to a candidate: its tail and its answer; and what is left of one where its round was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Completion, Usage
from rsa.answers.calls import Answered, answered
from rsa.answers.checking import Checker
from rsa.answers.verdicts import preferred
from rsa.confidence import confidence_of, recorded
from rsa.policies.levels import over
from rsa.prompts import prompt_sha256
from rsa.requests import Requests
from rsa.results import Candidate, Check, Decision, RoundKind, Status, Tail
from rsa.rollouts import Rollout
from rsa.tails import cut_tail

LONGEST_TAG = 16
"""Tokens that a closing think tag has at most. Who stopped thinking so shortly before a cut counts as thinking on: of
tokens that may be the half of a tag, only those after them tell."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Makes the candidates of one run; each follows from its request and its completion."""

    requests: Requests
    checker: Checker | None = None

    def of(self, rollout: Rollout, read: Sequence[Candidate], *, finished_s: float) -> Candidate:
        """The candidate of a rollout that has ended, and that read these."""
        completion, status = rollout.completion, rollout.status or "failed"
        number, kind, index = rollout.round, rollout.kind, rollout.index
        tail = None if completion is None else self._tail(completion, rollout.monitor.after)
        found = self.answer_given(completion, status, kind=kind, number=number, index=index, read=read)
        candidate = Candidate(
            round=number,
            index=index,
            parents=rollout.parents,
            seed=rollout.request.sampling.seed,
            status=status,
            completion=recorded(completion, self.requests.config.confidence),
            tail=tail,
            answer=found.answer,
            calls=found.calls,
            check=self._check(found) if kind != "match" else None,
            confidence=confidence_of(completion, loops_after=rollout.monitor.after),
            error=rollout.error,
            interruptions=rollout.interruptions,
            prompt_sha256=prompt_sha256(rollout.request.messages, rollout.request.tools),
            sampling=self.requests.sampling(number, kind, index),
            started_s=rollout.started_s,
            finished_s=finished_s,
        )
        return candidate if rollout.cut is None else self.cut(candidate, rollout.cut)

    def not_begun(self, number: int, index: int, read: Sequence[Candidate], status: Status, at_s: float) -> Candidate:
        """A candidate of a round that ended before it was begun; `read`: whose tails it would have read."""
        request, _ = self.requests.of(number, "population", index, read)
        return Candidate(
            round=number,
            index=index,
            parents=tuple(parent.index for parent in read),
            seed=request.sampling.seed,
            status=status,
            prompt_sha256=prompt_sha256(request.messages, request.tools),
            sampling=request.sampling,
            started_s=at_s,
            finished_s=at_s,
        )

    def answer_given(
        self,
        completion: Completion | None,
        status: Status,
        *,
        kind: RoundKind,
        number: int,
        index: int,
        read: Sequence[Candidate],
    ) -> Answered:
        """The answer of a candidate that ended so, and that read these."""
        if completion is None or status not in ("ok", "cancelled"):
            return Answered(None)
        problem, rule, thinks = self.requests.problem, self.requests.prompts.answer, self.requests.engine.model.thinks
        if kind == "match":
            return Answered(preferred(completion, [str(each.answer) for each in read], rule, thinks=thinks))
        return answered(
            completion,
            rule,
            thinks=thinks,
            tools=problem.tools,
            salt=f"{problem.id} {kind} {number} {index}",
        )

    def as_decided(self, candidate: Candidate, decision: Decision | None) -> Candidate:
        """A candidate of a round in which this was decided."""
        if decision is None or decision.action != "cut" or decision.at is None or decision.wave is None:
            return candidate
        return self.cut(candidate, decision.at) if candidate.index in range(*decision.wave) else candidate

    def cut(self, candidate: Candidate, at: int) -> Candidate:
        """What is left of a candidate in a round that was cut at so many tokens, however far it had come: itself if it
        had ended by then, or repeated itself; else its first `at` tokens, without an answer. Cut again, it is the same.
        """
        completion = candidate.completion
        if completion is None or over(candidate, at):
            return candidate
        short = self._short(completion, at)
        return left_of(candidate, short, self._tail(short, None))

    def _short(self, completion: Completion, at: int) -> Completion:
        """Its first `at` tokens."""
        ids, closed = completion.token_ids[:at], _has_closed(completion.usage, at)
        likelihoods = completion.likelihoods and completion.likelihoods.first(at)
        return completion.model_copy(
            update={
                "token_ids": ids,
                "reasoning": completion.reasoning if closed else self.requests.engine.tokenizer.decode(ids),
                "text": "",
                "finish_reason": "cancelled",
                "closed": closed and completion.closed,
                "forced": closed and completion.forced,
                "likelihoods": likelihoods,
                "usage": usage_of_first(completion.usage, at),
            }
        )

    def _tail(self, completion: Completion, loops_after: int | None) -> Tail:
        return cut_tail(
            completion,
            carry=self.requests.config.carry,
            tail_tokens=self.requests.budgets.tau,
            tokenizer=self.requests.engine.tokenizer,
            loops_after=loops_after,
        )

    def _check(self, found: Answered) -> Check | None:
        """What the model's checker says of an answer that is no call."""
        if found.answer is None or found.calls or self.checker is None:
            return None
        return self.checker(self.requests.problem.text, found.answer)


def left_of(candidate: Candidate, completion: Completion | None, tail: Tail | None) -> Candidate:
    """A candidate of a round that was cut before it had ended, with what is left of it, and without an answer."""
    nothing = {"answer": None, "calls": (), "check": None, "confidence": None}
    return candidate.model_copy(update={"status": "cut", "completion": completion, "tail": tail, **nothing})


def usage_of_first(usage: Usage, at: int) -> Usage:
    """Of the first `at` tokens of a completion, or of all if they are fewer."""
    tokens = min(at, usage.completion_tokens)
    thought = usage.reasoning_tokens if _has_closed(usage, at) else tokens
    return usage.model_copy(update={"completion_tokens": tokens, "reasoning_tokens": thought})


def _has_closed(usage: Usage, at: int) -> bool:
    """Whether its reasoning counts as closed within its first `at` tokens."""
    return usage.reasoning_tokens + LONGEST_TAG <= min(at, usage.completion_tokens)
