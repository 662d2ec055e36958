"""What the engine is asked for: the prompt of a candidate, and how it is to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Engine, GenerationRequest, SamplingParams
from rsa import seeds
from rsa.answers.extract import CUES
from rsa.answers.verdicts import CUE
from rsa.problem import Problem
from rsa.prompts import Prompt, PromptSet
from rsa.results import Budgets, Candidate, Decision, RoundKind, Tail
from rsa.settings.config import RSAConfig
from rsa.tails import aggregation_prompt, match_prompt, shown_answer

SELECTION_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 40}
"""Sampling of the one more aggregation of `select="aggregate"`, after Zyphra's proxy, and of matches."""
MATCH_BETA, MATCH_ANSWER = 2048, 512
"""The most tokens of a judge's reasoning and answer: it compares two attempts, and makes none."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Makes the requests of one run; each follows from the run's settings, its place in the run, and whom it reads."""

    engine: Engine
    config: RSAConfig
    problem: Problem
    prompts: PromptSet
    budgets: Budgets

    def of(
        self,
        number: int,
        kind: RoundKind,
        index: int,
        read: Sequence[Candidate],
        *,
        decision: Decision | None = None,
    ) -> tuple[GenerationRequest, int]:
        """The request of a candidate that reads these, none in round 0; and how many tokens its prompt has.

        decision  what was decided of its round, if it had not ended then.

        Its id is for people who read an engine's messages: `r0-c01` (round 0, candidate 1), `select`, or `m3-c01` (a
        match).
        """
        tokenizer, bound = self.engine.tokenizer, self.budgets.prompt_bound
        tails = tails_of(read)
        if kind == "match":
            answers = self._answers(read)
            prompt, length = match_prompt(self.prompts, self.problem, tails, answers, tokenizer=tokenizer, bound=bound)
        elif tails:
            prompt, length = aggregation_prompt(self.prompts, self.problem, tails, tokenizer=tokenizer, bound=bound)
        else:
            prompt = self.prompts.initial(self.problem)
            length = tokenizer.prompt_tokens(prompt, tools=self.problem.tools)
        name = "select" if kind == "selection" else f"{'m' if kind == 'match' else 'r'}{number}-c{index:02}"
        sampling = self.sampling(number, kind, index)
        if decision is not None and decision.at is not None:
            sampling = sampling.model_copy(update=self._ended_by(decision, sampling))
        asked = GenerationRequest(
            id=name,
            messages=prompt,
            sampling=sampling,
            tools=self.problem.tools,
            likelihoods=self.config.confidence not in (None, "none"),
        )
        return asked, length

    @staticmethod
    def _ended_by(decision: Decision, sampling: SamplingParams) -> dict[str, int | None]:
        """What of its budgets is left where it is known how it ends."""
        if decision.action == "cut":
            return {"max_tokens": decision.at}
        return {"reasoning_budget": min(filter(None, (decision.at, sampling.reasoning_budget)))}

    def uncut(self, kind: RoundKind, read: Sequence[Candidate]) -> Prompt:
        """The prompt of a candidate that reads these, as it is unless it has to be cut: without measuring it."""
        texts = [tail.text for tail in tails_of(read)]
        if kind == "match":
            return self.prompts.match(self.problem, texts, self._answers(read))
        return self.prompts.aggregate(self.problem, texts) if texts else self.prompts.initial(self.problem)

    def sampling(self, number: int, kind: RoundKind, index: int) -> SamplingParams:
        """How a candidate is drawn."""
        config = self.config
        answers_now = config.wants_answers(number)
        # A carry of answers takes those that come by themselves; forcing more would only cost tokens.
        may_answer = answers_now or config.carry == "answer_or_reasoning"
        match = kind == "match"
        sampling = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "min_p": config.min_p,
            "seed": seeds.derive(config.seed, self.problem.id, number, index, "sample"),
            "reasoning_budget": min(self.budgets.beta, MATCH_BETA) if match else self.budgets.beta,
            "answer_budget": self._answer_budget(match=match) if may_answer else 0,
            "force_answer": config.force_answer and answers_now,
            "cue": (CUE if match else CUES.get(self.prompts.answer)) if self._takes_cue else None,
            **(SELECTION_SAMPLING if kind != "population" else {}),
        }
        return SamplingParams(**sampling)

    def _answer_budget(self, *, match: bool) -> int:
        return min(self.budgets.answer_budget, MATCH_ANSWER) if match else self.budgets.answer_budget

    def _answers(self, read: Sequence[Candidate]) -> list[str]:
        return [shown_answer(str(each.answer), self.budgets.tau, self.engine.tokenizer) for each in read]

    @property
    def _takes_cue(self) -> bool:
        return self.engine.model.conclude and not self.engine.model.thinks


def tails_of(read: Sequence[Candidate]) -> list[Tail]:
    """What candidates hand on, who completed."""
    tails = [each.tail for each in read]
    assert None not in tails, "who completed has a tail"
    return [tail for tail in tails if tail is not None]
