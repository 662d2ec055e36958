"""What `rsa solve` does, without its flags: gather a job, run it, keep it resumable."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio

from engine.documents import DocumentError, read_all
from engine.paths import path_named
from rsa.compose import model_to_open, options_to_open
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, ProblemError, ResumeMismatchError, RunFolderError
from rsa.events import Event, RunFinished
from rsa.problem import Problem
from rsa.results import RunResult
from rsa.runlog import RUN, check_free, read_run
from rsa.settings.config import RSAConfig
from rsa.settings.methods import load_method, with_method
from rsa.settings.suitability import suited
from rsa.words import shortened

MAX_PROBLEM_BYTES = 16_000_000
"""The largest problem that is read: no model has a context for it."""
_SHOWN_CHARACTERS = 200
"""Characters shown of what was given as a file's name."""


@dataclass(frozen=True, slots=True)
class SolveJob:
    """A problem, how to solve it, and the folder where its run lives.

    options  what opens the model takes besides its name.
    trust    what was changed in the folder since it was written is taken as it is.
    """

    problem: Problem
    model: str
    options: Mapping[str, Any]
    config: RSAConfig
    folder: Path
    resume: bool
    trust: bool = False

    @property
    def begun(self) -> bool:
        """There is something on the disk to go on with."""
        return (self.folder / RUN).is_file()

    @classmethod
    def new(
        cls,
        file: str | None,
        images: list[Path] | None,
        model: str,
        options: Mapping[str, Any],
        method: str | None,
        profile: str | None,
        settings: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        """A run from the start. Raises ConfigError, ProblemError, RunFolderError."""
        from rsa.compose import model_settings

        check_free(path_named(folder, RunFolderError))  # a model takes a while to open
        config = load_method(method, profile, settings, defaults=model_settings(model))
        problem = Problem(read_problem(file), images=images or ())
        return cls(problem, model, options, config, folder, resume=False)

    @classmethod
    def resumed(
        cls,
        folder: Path,
        file: str | None,
        images: list[Path] | None,
        model: str | None,
        options: Mapping[str, Any],
        method: str | None,
        profile: str | None,
        settings: Mapping[str, Any],
        out: Path | None,
        *,
        trust: bool,
    ) -> Self:
        """A run that goes on: everything comes from its folder. What is given besides must agree with it, but for the
        options of the model: its server may have moved.

        Raises RunFolderError if the folder holds no run, ResumeMismatchError for a flag that differs from it.
        """
        if out is not None and out != folder:
            raise ConfigError("--resume goes on in its own folder: leave out --out")
        if images:
            raise ConfigError("--resume takes the images from its folder: leave out --image")
        record, problem = read_run(folder, trust=trust)
        config = record.config
        if settings or profile or method:
            asked = load_method(method, profile, settings) if profile else with_method(config, method, settings)
            asked = asked.for_problem(images=bool(problem.images), tools=problem.takes_tools)
            asked = suited(asked, record.model)
            differing = config.differences(asked)
            if differing:
                raise ResumeMismatchError(
                    f"the run in {folder} has other settings: {'; '.join(differing.values())}. Leave the flags out to "
                    "go on with it, or start a new run",
                    tuple(differing),
                )
        if file is not None and read_problem(file) != problem.text:
            raise ResumeMismatchError(f"the run in {folder} is of another problem", ("problem",))
        kept = options_to_open(record.model) if model is None else {}
        opened = model or model_to_open(record.model)
        return cls(problem, opened, {**kept, **options}, config, folder, resume=True, trust=trust)

    def run(self, show: Callable[[Event], None]) -> RunResult:
        """Run to the end, showing every event. Raises what `MarkovianRSA.solve` raises."""
        return anyio.run(self._run, show)

    async def _run(self, show: Callable[[Event], None]) -> RunResult:
        async with (
            MarkovianRSA(self.model, config=self.config, engine_options=self.options) as rsa,
            rsa.stream(self.problem, out=self.folder, resume=self.resume, trust=self.trust) as events,
        ):
            async for event in events:
                show(event)
                if isinstance(event, RunFinished):
                    result = event.result
        return result


def read_problem(file: str | None) -> str:
    """The text of a problem from a file, or from standard input for `-`. Raises ProblemError."""
    if file is None and sys.stdin.isatty():
        raise ProblemError("no problem given: rsa solve FILE, or - to read standard input")
    name = "-" if file is None else file
    where, hint = "on standard input", ""
    if name != "-":
        where, hint = f"in {shortened(' '.join(name.split()), _SHOWN_CHARACTERS)}", _if_it_is_no_name(name)
    try:
        file_named = nullcontext(sys.stdin.buffer) if name == "-" else path_named(name, ProblemError).open("rb")
        with file_named as opened:
            text = read_all(opened, MAX_PROBLEM_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(f"the problem {where} is not UTF-8 text (byte {error.start})") from None
    except (OSError, DocumentError) as error:
        raise ProblemError(f"cannot read the problem {where}: {getattr(error, 'strerror', error)}{hint}") from None
    except ProblemError as error:
        raise ProblemError(f"{error}{hint}") from None
    if not text.strip():
        raise ProblemError(f"the problem {where} is empty")
    return text.strip()


def _if_it_is_no_name(file: str) -> str:
    """What to do if a problem was given in place of the file that holds it: it has spaces, and names nothing."""
    if len(file.split()) < 2 or os.path.lexists(file):
        return ""
    text = " ".join(file.split())
    return f"; if that is the problem itself: echo {shlex.quote(shortened(text, _SHOWN_CHARACTERS))} | rsa solve -"
