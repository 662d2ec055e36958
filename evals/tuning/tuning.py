"""A tuning from what is asked to what comes out: recordings by successive halving, the choice, the check of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from engine.api import Engine, ModelInfo
from engine.paths import path_named
from evals.data.benchmarks import Benchmark
from evals.data.choice import rank
from evals.errors import ResultsError
from evals.job import metric_name
from evals.replay.variants import Variant
from evals.results import EvalResults
from evals.stats import estimate, mean_of
from evals.tuning import profile, words
from evals.tuning.choosing import Choice, Option, choose
from evals.tuning.halving import CHECKED, FIRST, LEAST_MORE, better_half, more_problems
from evals.tuning.problems import open_problems, source_of
from evals.tuning.recording import Decided, Recorder, Show
from evals.tuning.records import (
    ASKED,
    CHECK,
    RECORDINGS,
    TUNED,
    Asked,
    Checked,
    Entrant,
    Rung,
    Trial,
    Tuned,
    read_asked,
    write,
)
from evals.tuning.space import Family, families, label, same_answers, settings_of, variants
from rsa.answers.math_pool import MathWorkers
from rsa.errors import ConfigError
from rsa.folders import check_other_kinds, lock_folder, make_folder
from rsa.policies import registry
from rsa.settings.config import RSAConfig
from rsa.settings.methods import RULE, method_settings
from rsa.settings.profiles import load_config
from rsa.settings.suitability import suited
from rsa.words import plural

LEAST_PROBLEMS = 2 * FIRST
"""The fewest problems that can be tuned on: half of them for the first rung, half to check the choice."""
RECORDED: Mapping[str, Any] = {"select": "vote", "stop": ()}
"""The policies that families are recorded with: nothing ends early, so that all others can be decided on it."""
CERTAIN = 0.85
"""The share of what is left that a check is planned with: other problems may take longer than those before."""


async def tune(
    asked: Asked,
    folder: str | Path,
    *,
    engine: Engine | None = None,
    engine_options: Mapping[str, Any] | None = None,
    show: Show = nullcontext,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Find settings for a model and a kind of problem; everything about it is kept in the folder, which may hold the
    beginning of the same tuning, also with another budget.

    engine  that runs the model, and stays the caller's to close; None: it is opened, with `engine_options`.
    show    whom to tell the events of each evaluation; `say` is told a line for each step.

    Raises ConfigError (also for problems that are too few, and a budget that ends in the first rung), EvalError,
    RunFolderError, EngineError. What was recorded until then is kept.
    """
    path = path_named(folder, ResultsError)
    async with AsyncExitStack() as stack:
        steps = await anyio.to_thread.run_sync(partial(_Steps.of, asked))
        if engine is None:
            from rsa.compose import open_in_thread

            engine = await open_in_thread(asked.model, **(engine_options or {}))
            stack.push_async_callback(engine.aclose)
        tried = steps.tried(asked, engine.model)
        stack.enter_context(_begun(path, asked))
        recorder = Recorder(asked, source_of(asked, path), engine, show)
        math = await stack.enter_async_context(MathWorkers())
        tuned = await _Tuning(asked, path, steps, tried, recorder, math, say).run()
        await anyio.to_thread.run_sync(write, path, TUNED, tuned)
        return tuned


def _begun(folder: Path, asked: Asked) -> Any:
    """The folder's lock, with what is asked written there. Raises ResultsError for one that holds something else."""
    try:
        make_folder(folder)
        lock = lock_folder(folder)
    except OSError as error:
        raise ResultsError(f"cannot use folder {folder}: {error.strerror or error}") from None
    try:
        if not (folder / ASKED).exists():
            check_other_kinds(folder, ASKED, ResultsError)
        elif not asked.same_but_for_budget(read_asked(folder)):
            raise ResultsError(f"{folder} holds another tuning: choose another folder")
        write(folder, ASKED, asked)
    except BaseException:
        lock.close()
        raise
    return lock


class _Steps:
    """What follows from what is asked before anything is generated.

    choosing, checking  ids of the problems: to choose by, in the order in which they are used, and to check with.
    """

    def __init__(self, benchmark: Benchmark, base: RSAConfig, ids: Sequence[str], all_families: list[Family]) -> None:
        half = (len(ids) + 1) // 2
        self.benchmark, self.base = benchmark, base
        self.choosing, self.checking = tuple(ids[:half]), tuple(ids[half:])
        self.families = all_families

    @classmethod
    def of(cls, asked: Asked) -> _Steps:
        """Raises ConfigError, EvalError."""
        from rsa.compose import model_settings

        for spec in (spec for stop in asked.stops for spec in stop):
            registry.stop_policy(spec)
        for spec in asked.selects:
            registry.select_policy(spec)
        benchmark, data = open_problems(asked)
        first = {name: values[0] for name, values in asked.axes.items() if values}
        wanted = method_settings("rsa", {"task": benchmark.task, **asked.settings, **first}, measured=True)
        base = load_config(asked.profile, wanted, defaults=model_settings(asked.model))
        if base.limits.can_end_early:
            raise ConfigError(
                "`total_tokens` and `deadline` of a run would end what is recorded early: leave them out; `budget` is "
                "of the whole tuning"
            )
        found = families(base, asked.axes)
        every = data.ids if data.ids is not None else tuple(question.id for question in data)
        seed = asked.source.data_seed
        ids = sorted(every, key=lambda one: rank(seed, one))[: asked.limit]  # however the data are sorted
        if len(ids) < LEAST_PROBLEMS:
            raise ConfigError(
                f"{plural(len(ids), 'problem')} cannot tell settings apart: give {LEAST_PROBLEMS} at least, half of "
                "them to choose by and half to check the choice with, better 128"
            )
        return cls(benchmark, base, ids, found)

    def tried(self, asked: Asked, model: ModelInfo) -> _Tried:
        """What is decided on the record of each family. Raises ConfigError, ReplayError."""
        start = self._start(asked, model)
        confidence = model.lacks("logprobs") is None and self.base.confidence != "none"
        found: dict[str, list[Variant]] = {}
        for family in self.families:
            config = self.base.replace(**family.model_dump(), **RECORDED)
            start.settings(config)
            every = variants(config, asked.stops, asked.selects, confidence=confidence)
            found[family.name] = list(dict.fromkeys([start, *every]))
        return _Tried(start, found)

    def _start(self, asked: Asked, model: ModelInfo) -> Variant:
        """What the profile says, or else what a run comes to if nobody says how rounds are to be played."""
        config = self.base if asked.profile is not None else suited(self.base.with_defaults(**RULE), model)
        return Variant(t=config.t, select=config.select, stop=config.stop)


@dataclass(frozen=True, slots=True)
class _Tried:
    """Variants of each family, by its name; `start`, of the first one, is where tuning starts from."""

    start: Variant
    variants: dict[str, list[Variant]]


class _Tuning:
    """A tuning while it runs."""

    def __init__(
        self,
        asked: Asked,
        folder: Path,
        steps: _Steps,
        tried: _Tried,
        recorder: Recorder,
        math: MathWorkers,
        say: Callable[[str], None],
    ) -> None:
        self._asked = asked
        self._folder = folder
        self._steps = steps
        self._recorder = recorder
        self._math = math
        self._say = say
        self._decided = {family.name: Decided(tried.variants[family.name]) for family in steps.families}
        self._start = tried.start
        self._rungs: list[Rung] = []
        self._notes: list[str] = []

    async def run(self) -> Tuned:
        """All of it."""
        done = await self._climb()
        ids = self._steps.choosing[:done]
        last = [entrant.family for entrant in self._rungs[-1].families]
        options, start = self._options(last, ids)
        choice = choose(
            [option for option, _ in options.values()], start, self._clusters(), self._asked.tokens_per_problem
        )
        settings = options[choice.chosen.name][1]
        checked = await self._check(choice, settings)
        trials = self._trials(last, ids)
        tuned = Tuned(
            model=self._asked.model,
            benchmark=self._steps.benchmark.name,
            metric=metric_name(self._steps.benchmark),
            budget=self._asked.budget,
            spent=self._recorder.spent,
            problems=done,
            families=tuple(self._steps.families),
            rungs=tuple(self._rungs),
            trials=tuple(trials),
            start=choice.start.name,
            best=choice.best.name,
            chosen=choice.chosen.name,
            decided=choice.decided,
            loss=choice.loss,
            gain=choice.gain,
            checked=checked,
            profile=profile.settings_of(self._steps.base.replace(**settings)),
            conclusion=(),
            notes=tuple(dict.fromkeys(self._notes)),
        )
        return tuned.model_copy(update={"conclusion": tuple(words.conclusion(tuned))})

    # ---- recording

    async def _climb(self) -> int:
        """Rung after rung; how many problems all families of the last one were recorded on."""
        there, done = self._steps.choosing, 0
        standing = list(self._steps.families)
        kept_back = int(CHECKED * self._asked.budget)
        while True:
            left = self._asked.budget - kept_back - self._recorder.spent
            costs = [self._cost(family) for family in standing] if done else []
            more = more_problems(done, len(there), costs, left)
            if more == 0 or not await self._rung(standing, there[done : done + more], done):
                break
            done += more
            standing = self._ranked(standing, done)
        return done

    async def _rung(self, standing: Sequence[Family], ids: Sequence[str], done: int) -> bool:
        """Record these families on more problems; False: the budget does not suffice."""
        for number, family in enumerate(standing):
            folder = self._folder / RECORDINGS / family.name / f"{done + 1}-{done + len(ids)}"
            results = await self._recorder.record(self._recorded_with(family), ids, folder)
            if results is None:
                if done == 0:
                    raise ConfigError(self._too_little(number, len(ids)))
                self._notes.append(words.budget_ended(self._asked.budget, done))
                return False
            decided = self._decided[family.name]
            self._notes += await decided.take(folder, self._math)
            _, value, _ = self._best(family, self._steps.choosing[: done + len(ids)])
            self._say(words.recorded(family, done + len(ids), value, self._cost(family)))
        return True

    def _recorded_with(self, family: Family) -> dict[str, Any]:
        return {**family.model_dump(), **RECORDED}

    def _too_little(self, number: int, problems: int) -> str:
        whole = len(self._steps.families) * problems
        told = number * problems
        least = f"about {int(self._recorder.spent / told * whole / (1 - CHECKED) * 1.2):,}" if told else "more"
        return (
            f"`budget` = {self._asked.budget} ended before {len(self._steps.families)} families of settings were "
            f"recorded on the first {problems} problems, and there is nothing to choose by: give {least}, or fewer "
            f"settings; go on with: rsa tune --resume {self._folder} --budget TOKENS"
        )

    def _cost(self, family: Family) -> float:
        """Tokens a problem that recording takes."""
        return mean_of(list(self._decided[family.name].tokens.values())) or 0.0

    def _best(self, family: Family, ids: Sequence[str]) -> tuple[Variant, float, float]:
        """The best variant of a family, its accuracy and its cost."""
        every = list(self._decided[family.name].means(ids))
        return min(every, key=lambda each: (-each[1], each[2]), default=(self._start, 0.0, 0.0))

    def _ranked(self, standing: Sequence[Family], done: int) -> list[Family]:
        """Who goes on, after a rung that is noted."""
        ids = self._steps.choosing[:done]
        best = {family.name: self._best(family, ids) for family in standing}
        costs = {family.name: self._cost(family) for family in standing}
        scores = {name: value for name, (_, value, _) in best.items()}
        kept = better_half(scores, costs, self._steps.families[0].name)
        entrants = [
            Entrant(
                family=each.name,
                best=label(each, best[each.name][0]),
                answer=scores[each.name],
                tokens=costs[each.name],
            )
            for each in standing
        ]
        self._rungs.append(Rung(problems=done, families=tuple(entrants), kept=tuple(kept)))
        return [family for family in standing if family.name in kept]

    # ---- choosing

    def _clusters(self) -> dict[str, str | None]:
        return {key: cluster for decided in self._decided.values() for key, cluster in decided.clusters.items()}

    def _options(
        self, last: Sequence[str], ids: Sequence[str]
    ) -> tuple[dict[str, tuple[Option, dict[str, Any]]], Option]:
        """What may be chosen, by its name, with its settings; and where tuning started from."""
        found: dict[str, tuple[Option, dict[str, Any]]] = {}
        for family in self._steps.families:
            for variant, runs in self._decided[family.name].runs.items() if family.name in last else ():
                there = {each: runs[each] for each in ids if each in runs}
                name = label(family, variant)
                option = Option(
                    name,
                    label(family, same_answers(variant)),
                    {key: run.value for key, run in there.items()},
                    {key: run.tokens for key, run in there.items()},
                )
                found.setdefault(name, (option, settings_of(family, variant)))
        return found, found[label(self._steps.families[0], self._start)][0]

    def _trials(self, last: Sequence[str], ids: Sequence[str]) -> list[Trial]:
        """Everything that was tried, what could be chosen first."""
        clusters, found = self._clusters(), dict[str, Trial]()
        for family in sorted(self._steps.families, key=lambda each: each.name not in last):
            for variant, runs in self._decided[family.name].runs.items():
                there = {each: runs[each] for each in ids if each in runs}
                trial = Trial(
                    name=label(family, variant),
                    family=family.name,
                    settings=settings_of(family, variant),
                    answer=estimate({key: run.value for key, run in there.items()}, clusters),
                    tokens=mean_of([run.tokens for run in there.values()]) or 0.0,
                    steps=mean_of([run.steps for run in there.values()]) or 0.0,
                    problems=len(there),
                    stands=family.name in last,
                )
                found.setdefault(trial.name, trial)
        return list(found.values())

    # ---- the check

    async def _check(self, choice: Choice, settings: dict[str, Any]) -> Checked | None:
        """The chosen settings on problems that nothing was chosen by, as many as the budget is likely to pay for."""
        left = CERTAIN * (self._asked.budget - self._recorder.spent)
        affordable = int(left // choice.chosen.cost) if choice.chosen.cost else 0
        ids = self._steps.checking[:affordable]
        if len(ids) < LEAST_MORE:
            return None
        folder = self._folder / CHECK / _digest(settings, ids)
        results = await self._recorder.record(settings, ids, folder)
        return None if results is None else _checked(folder.relative_to(self._folder), results)


def _checked(folder: Path, results: EvalResults) -> Checked:
    tokens = [problem.tokens for problem in results.problems if problem.tokens is not None]
    return Checked(
        folder=str(folder), problems=len(results.problems), answer=results.answer, tokens=mean_of(tokens) or 0.0
    )


def _digest(settings: Mapping[str, Any], ids: Sequence[str]) -> str:
    """A folder's name for a check: another one for other settings, or other problems."""
    text = json.dumps([settings, list(ids)], sort_keys=True)
    return f"{len(ids)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
