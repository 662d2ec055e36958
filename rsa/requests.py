"""What the engine is asked for: the prompt of a candidate, and how it is to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Engine, GenerationRequest, SamplingParams
from rsa import seeds
from rsa.answers.extract import CUES
from rsa.problem import Problem
from rsa.prompts import PromptSet
from rsa.results import Budgets, RoundKind, Tail
from rsa.settings.config import RSAConfig
from rsa.tails import aggregation_prompt

SELECTION_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 40}
"""Sampling of the one more aggregation of `select="aggregate"`, after Zyphra's proxy."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Makes the requests of one run; each follows from the run's settings, its place in the run, and its tails."""

    engine: Engine
    config: RSAConfig
    problem: Problem
    prompts: PromptSet
    budgets: Budgets

    def of(
        self, number: int, kind: RoundKind, index: int, tails: Sequence[Tail], *, most: int | None = None
    ) -> tuple[GenerationRequest, int]:
        """The request of a candidate that reads these tails, none in round 0; and how many tokens its prompt has.

        most  tokens that are wanted of it at most, where its end is known; None: it ends as its budgets say.

        Its id is for people who read an engine's messages: `r0-c01` (round 0, candidate 1), or `select`.
        """
        tokenizer = self.engine.tokenizer
        if tails:
            bound = self.budgets.prompt_bound
            prompt, length = aggregation_prompt(self.prompts, self.problem, tails, tokenizer=tokenizer, bound=bound)
        else:
            prompt = self.prompts.initial(self.problem)
            length = tokenizer.prompt_tokens(prompt, tools=self.problem.tools)
        name = "select" if kind == "selection" else f"r{number}-c{index:02}"
        sampling = self.sampling(number, kind, index).model_copy(update={"max_tokens": most})
        asked = GenerationRequest(
            id=name,
            messages=prompt,
            sampling=sampling,
            tools=self.problem.tools,
            likelihoods=self.config.confidence not in (None, "none"),
        )
        return asked, length

    def sampling(self, number: int, kind: RoundKind, index: int) -> SamplingParams:
        """How a candidate is drawn."""
        config = self.config
        answers_now = self.wants_answers(number)
        # A carry of answers takes those that come by themselves; forcing more would only cost tokens.
        may_answer = answers_now or config.carry == "answer_or_reasoning"
        noise = SELECTION_SAMPLING if kind == "selection" else {}
        sampling = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "min_p": config.min_p,
            "seed": seeds.derive(config.seed, self.problem.id, number, index, "sample"),
            "reasoning_budget": self.budgets.beta,
            "answer_budget": self.budgets.answer_budget if may_answer else 0,
            "force_answer": config.force_answer and answers_now,
            "cue": CUES.get(self.prompts.answer) if self._takes_cue else None,
            **noise,
        }
        return SamplingParams(**sampling)

    def wants_answers(self, number: int) -> bool:
        """Whether the candidates of a round are to write answers."""
        return number >= self.config.t or self.config.answers_every_round

    @property
    def _takes_cue(self) -> bool:
        return self.engine.model.conclude and not self.engine.model.thinks
