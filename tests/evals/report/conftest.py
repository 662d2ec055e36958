"""Evaluations and runs to report on: real folders, written by the harness from a scripted engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from PIL import Image, ImageDraw
from pydantic import JsonValue

from engine.api import GenerationRequest, ImagePart
from engine.scripted import Script, ScriptedEngine
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.folder import TIMINGS, read_results
from evals.job import evaluate as run_evaluation
from evals.results import EvalResults, EvalTimings, ProblemTiming
from evals.scorers.protocol import Score
from rsa.answers.extract import last_boxed
from rsa.controller import MarkovianRSA
from rsa.folders import write_record
from rsa.problem import Problem
from rsa.settings.config import RSAConfig
from rsa.settings.methods import Method

Play = Callable[[GenerationRequest], Script]


class Exact:
    """A metric for tests: a boxed answer is right if it is the gold's text; `?` cannot be decided."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def check(self, gold: JsonValue, fields: Mapping[str, JsonValue]) -> None:
        """Any gold answer will do."""

    async def score(self, answer: str, gold: JsonValue, fields: Mapping[str, JsonValue]) -> Score:
        boxed = last_boxed(answer)
        if boxed is None:
            return Score(value=0.0, status="no_answer")
        if boxed == "?":
            return Score(value=None, status="too_hard", extracted=boxed)
        return Score(value=float(boxed == gold), extracted=boxed)

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        groups: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                groups.setdefault(answer, []).append(index)
        return sorted((tuple(group) for group in groups.values()), key=lambda group: (-len(group), group[0]))


def reasoner(words: int = 12, skill: float = 0.3, cut: float = 0.1) -> Play:
    """A model of tests: it reasons about `words` words, and is right more often after reading others' tails.

    skill  chance of a right answer in round 0; `cut`: of reasoning on until it is stopped, and of no answer.
    """

    def play(request: GenerationRequest) -> Script:
        rng = random.Random(request.sampling.seed)
        prompt = request.messages[-1].text
        gold = prompt.partition("gold ")[2].split()[0].strip(".") if "gold " in prompt else "7"
        read = prompt.count(f"so it is {gold}")
        right = rng.random() < min(0.95, skill + 0.25 * read)
        answer = gold if right else str(rng.choice([int(gold) + 1, int(gold) * 2, 7]))
        steps = [rng.choice(["then", "and", "but", "let x be", "mod 9", "hence"]) for _ in range(words)]
        text = " ".join(steps[: rng.randint(words // 3, words)])
        if rng.random() < cut:
            return Script(reasoning=f"{text}. Wait, {rng.random()}. ", never_ends=True, answer=f"\\boxed{{{answer}}}")
        if rng.random() < cut:
            return Script(reasoning=text, answer="I cannot tell.")
        return Script(reasoning=f"{text}, so it is {answer}", answer=f"Thus \\boxed{{{answer}}}.")

    return play


def knowing(**skills: Any) -> Play:
    """The model of `reasoner`, whose tokens are likelier where it is right, by and large."""
    plain = reasoner(**skills)

    def play(request: GenerationRequest) -> Script:
        script, rng = plain(request), random.Random(request.sampling.seed + 1)
        right = f"boxed{{{request.messages[-1].text.partition('gold ')[2].split()[0].strip('.')}}}" in script.answer
        return replace(script, log_probabilities=(round(-0.3 - 0.6 * rng.random() + 0.25 * right, 3),))

    return play


def diagram(size: int = 60) -> ImagePart:
    """A picture as a problem may have one."""
    image = Image.new("RGB", (size, size // 2), "#f4d58d")
    ImageDraw.Draw(image).line([(0, 0), (size, size // 2)], fill="#8d0801", width=max(1, size // 30))
    file = BytesIO()
    image.save(file, "PNG")
    return ImagePart(data=file.getvalue())


def sums(number: int, images: Sequence[ImagePart] = ()) -> list[Question]:
    """Problems with the gold in their text, where the model of tests finds it."""
    return [
        Question(
            id=f"sum-{index:02}",
            problem=f"What is {index} + 40, when $x^2$ is ignored? (gold {index + 40}. )",
            images=tuple(images[:1]) if index % 2 else (),
            gold=str(index + 40),
        )
        for index in range(1, number + 1)
    ]


def evaluate(
    folder: Path,
    questions: Sequence[Question],
    play: Play | None = None,
    *,
    method: Method = "rsa",
    benchmark: str = "sums",
    **settings: Any,
) -> Path:
    """Evaluate as programs do; the clock's part of the folder is made up, since a clock has no place in a test."""
    wanted = {"n": 4, "c": 2, "t": 2, "beta": 400, "tau": 60, **settings}
    problems = Benchmark(name=benchmark, metric=Exact(), questions=questions)
    engine = ScriptedEngine(play or reasoner(), tokens_per_step=256, name="scripted-model")

    async def main() -> None:
        await run_evaluation(problems, engine, method, out=folder, **wanted)

    anyio.run(main)
    results = read_results(folder)
    write_record(folder / TIMINGS, timings(results))
    return folder


def timings(results: EvalResults) -> EvalTimings:
    """Seconds that look like some."""
    return EvalTimings(
        started_at="2026-03-04T05:06:07+00:00",
        wall_s=3725.0,
        tokens_per_s=1234.5,
        problems=tuple(
            ProblemTiming(problem_id=each.id, epoch=epoch, wall_s=20.0 + place, generating_s=80.0)
            for place, each in enumerate(results.problems)
            for epoch in range(results.epochs)
        ),
        machine={"system": "Linux", "machine": "x86_64", "cpus": 2},
    )


@pytest.fixture(scope="session")
def make() -> type[Workshop]:
    """What test files of this folder make their folders with."""
    return Workshop


class Workshop:
    """The functions of this file, for tests, which cannot import a conftest.py."""

    evaluate = staticmethod(evaluate)
    reasoner = staticmethod(reasoner)
    knowing = staticmethod(knowing)
    sums = staticmethod(sums)
    diagram = staticmethod(diagram)


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluation of six problems in three rounds, half of them with an image. Not to be changed."""
    return evaluate(tmp_path_factory.mktemp("report") / "eval", sums(6, [diagram()]))


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve problems in two rounds, every second with an image and three in a cluster, by a model that knows a little
    of what it knows. Not to be changed."""
    clusters = {1: "mates", 2: "mates", 3: "mates"}
    questions = [
        each.model_copy(update={"cluster": clusters.get(place)}) for place, each in enumerate(sums(12, [diagram()]))
    ]
    return evaluate(tmp_path_factory.mktemp("report") / "calibrated", questions, knowing(skill=0.5), n=8, t=1, epochs=2)


@pytest.fixture(scope="session")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one problem. Not to be changed."""
    folder = tmp_path_factory.mktemp("report") / "solved"
    engine = ScriptedEngine(reasoner(), tokens_per_step=256)
    rsa = MarkovianRSA(engine, config=RSAConfig(n=6, c=2, t=2, beta=400, tau=60, answers="every"))
    (question,) = sums(1)
    rsa.solve_sync(Problem(question.problem, images=[diagram()]), out=folder)
    return folder
