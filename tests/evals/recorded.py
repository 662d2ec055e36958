"""Evaluations to be decided again, and what their replays come to."""

from __future__ import annotations

import random
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from evals.folder import RUNS, read_results, run_name
from evals.replay.deciding import Course, Remembering, replay
from evals.replay.figures import Figures, Replayed, Replays
from evals.replay.recording import RecordedEval
from evals.replay.replaying import replay_folders
from evals.replay.variants import Variant
from rsa.answers.math_pool import MathWorkers
from rsa.results import RunResult
from rsa.runlog import read_result

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
run, script_of_all, benchmark = (_CHILD[name] for name in ("run", "script", "benchmark"))
FAILING = _CHILD["FAILING"]
SETTINGS: dict[str, Any] = {"n": 8, "c": 2, "t": 2, "answer_budget": 32, "confidence": "summary"}


def script(request: GenerationRequest) -> Script:
    """Candidates of all lengths, which agree more from round to round; some give no answer."""
    rng = random.Random(request.sampling.seed)
    agreed = rng.random() < {"r0": 0.5, "r1": 0.7}.get(request.id[:2], 0.9)
    answer = "1" if agreed else str(rng.randrange(4))
    text = "who knows" if rng.random() < 0.1 else rf"\boxed{{{answer}}}"
    return Script(" ".join(["so"] * rng.randint(1, 60)), text)


def evaluated(folder: Path, **settings: Any) -> Path:
    """By a model that nobody has vouched for, so that `auto` decides."""
    run(folder, ScriptedEngine(script, aggregates=None), of=benchmark(6), **{**SETTINGS, **settings})
    return folder


def replayed(folder: Path, *variants: Variant, **more: Any) -> Replayed:
    """The replay of one folder."""
    found: Replays = anyio.run(partial(replay_folders, [folder], variants, **more))
    (only,) = found.replays
    return only


def figures(folder: Path, variant: Variant, **more: Any) -> Figures:
    """What an evaluation comes to with other settings."""
    (only,) = replayed(folder, variant, **more).variants
    return only


def courses(folder: Path, variant: Variant) -> list[Course]:
    """How each of its runs would have gone."""

    async def main() -> list[Course]:
        async with MathWorkers() as math:
            runs = [run for runs in RecordedEval(folder).problems() for run in runs]
            return [await replay(run, variant, Remembering(run.result.config.task, math)) for run in runs]

    return anyio.run(main)


def results_of(folder: Path) -> list[RunResult]:
    """What the runs of an evaluation came to, in order."""
    results = read_results(folder)
    return [
        read_result(folder / RUNS / run_name(problem.id, epoch))
        for problem in results.problems
        for epoch in range(results.epochs)
    ]
