"""Tiny models for the command line, and events of a run told by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import Completion, ModelInfo, SamplingParams, Usage
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from rsa.results import Budgets, Candidate, Round, RunResult, Timings, Vote
from rsa.settings.config import RSAConfig


@pytest.fixture(scope="session")
def thinking_model(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    """It is random: it hardly ever boxes an answer."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-thinker", context=4096)


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    """A model without think tags: with `--task general` all that it writes is its answer."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-writer", thinks=False, context=4096)


SMALL = ["--n", "3", "--c", "2", "--t", "1", "--beta", "40", "--tau", "16", "--answer-budget", "8"]
"""Settings with which a tiny model has soon solved a problem."""


@pytest.fixture
def with_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work in a folder of their own, where there is nothing but problem.txt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSA_MODEL", raising=False)
    Path("problem.txt").write_text("Say something.\n")


@pytest.fixture
def writer(plain_model: Path) -> list[object]:
    """Flags of `rsa solve` with which the model answers."""
    return ["--model", plain_model, "--task", "general", *SMALL]


@pytest.fixture
def thinker(thinking_model: Path) -> list[object]:
    """Flags with which it does not answer."""
    return ["--model", thinking_model, *SMALL]


class Story:
    """A run as its events tell it: each method is one event; times are given."""

    def __init__(self, **settings: Any) -> None:
        self.config = RSAConfig(**{"n": 2, "c": 2, "t": 1, "beta": 100, "tau": 10, **settings})
        self.model = ModelInfo(name="tiny", context_tokens=512, details={"architecture": "zaya"})
        self.round = 0
        self.candidates: list[Candidate] = []

    def starts(self, *, resumed: bool = False) -> RunStarted:
        return RunStarted(
            problem_id="p",
            config=self.config,
            budgets=self.budgets,
            model=self.model,
            task="math",
            prompt_sha256="0",
            resumed=resumed,
        )

    @property
    def budgets(self) -> Budgets:
        sizes = {name: getattr(self.config, name) for name in ("beta", "tau", "answer_budget")}
        return Budgets(**sizes, initial_prompt=5, prompt_bound=99)

    def begins_round(self, number: int, at_s: float = 0.0, **more: Any) -> RoundStarted:
        self.round, self.candidates = number, []
        parents = tuple(range(self.config.c)) if number else ()
        return RoundStarted(at_s=at_s, round=number, subsets=(parents,) * self.config.n, **more)

    def begins(self, index: int, at_s: float = 0.0) -> CandidateStarted:
        return CandidateStarted(at_s=at_s, round=self.round, index=index, parents=(), seed=1, prompt_tokens=5)

    def writes(self, index: int, tokens: int, at_s: float, text: str = "so", section: Any = "reasoning") -> Any:
        return CandidateProgress(at_s=at_s, round=self.round, index=index, tokens=tokens, section=section, text=text)

    def ends(self, index: int, tokens: int, at_s: float, answer: str | None = None, **more: Any) -> CandidateFinished:
        completion = Completion(
            request_id="r",
            token_ids=tuple(range(tokens)),
            reasoning="",
            text=answer or "",
            finish_reason="stop",
            usage=Usage(completion_tokens=tokens, reasoning_tokens=tokens),
        )
        wanted = self.round >= self.config.t or self.config.answers_every_round
        sampling = SamplingParams(reasoning_budget=self.config.beta, answer_budget=9 if wanted else 0)
        fields = {"round": self.round, "index": index, "seed": 1, "status": "ok", "sampling": sampling, **more}
        fields = {"completion": completion, **fields}
        candidate = Candidate(answer=answer, finished_s=at_s, **fields)
        self.candidates.append(candidate)
        return CandidateFinished(at_s=at_s, candidate=candidate)

    def votes(self, *counts: tuple[str, int]) -> tuple[Vote, ...]:
        n = self.config.n
        return tuple(Vote(answer=answer, of=n, candidates=tuple(range(count))) for answer, count in counts)

    def ends_round(self, at_s: float, *counts: tuple[str, int]) -> RoundFinished:
        return RoundFinished(
            at_s=at_s,
            round=self.round,
            statuses={"ok": self.config.n},
            asked=self.round >= self.config.t or self.config.answers_every_round,
            votes=self.votes(*counts),
            usage=Usage(),
        )

    def finishes(self, at_s: float, answer: str | None, *counts: tuple[str, int], **more: Any) -> RunFinished:
        votes = more.pop("votes", self.votes(*counts))
        gave = tuple(
            Candidate(round=self.round, index=index, seed=0, status="ok", answer=vote.answer)
            for vote in votes
            for index in vote.candidates
        )
        last = Round(round=self.round, candidates=gave, votes=votes)
        fields = {
            "text": answer or "",
            "stopped_because": "finished",
            "answered_from_round": None if answer is None else self.round,
            "votes": votes,
            "limits_hit": (),
            "warnings": (),
            "usage": Usage(completion_tokens=1234),
            "budgets": self.budgets,
            "config": self.config,
            "problem_id": "p",
            "model": self.model,
            "timings": Timings(started_at="", wall_s=at_s),
            "rounds": (*(Round(round=number, candidates=()) for number in range(self.round)), last),
            **more,
        }
        return RunFinished(at_s=at_s, result=RunResult(answer=answer, **fields))


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def tell() -> Callable[..., Story]:
    """A story with settings of its own."""
    return Story
