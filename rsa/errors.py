"""Every error the method raises on purpose. Engine trouble keeps its own tree (`engine.errors`).

RSAError
├── ConfigError         a setting is wrong, unknown, or clashes with another: the caller's to mend
│   └── UnknownPolicyError   a policy that no package brings here
├── ProblemError        the problem itself: empty, unreadable, or too long for the model
├── PromptError         a prompts file is missing, lacks a template, or its template does not render
├── RunFolderError      a run folder cannot be used
│   ├── RunLockedError    another process works in it
│   ├── RunWriteError     it cannot be written any more: the disk is full; what it holds can be gone on with
│   └── ResumeMismatchError   it holds another run than the one asked for
├── NoCandidatesError   every candidate of a round failed; carries what the run had until then
└── PausedError         a run has come as far as it had leave to; carries its rounds

Each message says what happened, where, and what to do about it: it is shown to people as it stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rsa.words import shown

if TYPE_CHECKING:
    from rsa.results import Round, RunResult

_LONGEST_WORD = 100
"""Comparing takes time that grows with the square of a word's length, and strangers may send long ones."""


class RSAError(Exception):
    """Base of all errors of this package."""


class ConfigError(RSAError):
    """A setting is wrong, unknown, or clashes with another one; the message names them."""


class UnknownPolicyError(ConfigError):
    """No package that is installed here brings this policy; `policy` names it with its setting, `stop = patient`."""

    def __init__(self, message: str, policy: str) -> None:
        super().__init__(message)
        self.policy = policy


class ProblemError(RSAError):
    """The problem cannot be worked on: empty, unreadable, or too long for the model even alone."""


class PromptError(RSAError):
    """A prompts file is missing, lacks a template, or one of its templates does not render."""


class RunFolderError(RSAError):
    """A run folder cannot be created, read or continued."""


class RunLockedError(RunFolderError):
    """Another process is working in the run folder."""


class RunWriteError(RunFolderError):
    """A run folder that was in use cannot be written any more. What it holds is whole, and can be gone on with."""


class ResumeMismatchError(RunFolderError):
    """The folder holds a run of another problem, configuration or model; `keys` names what differs."""

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class NoCandidatesError(RSAError):
    """Every candidate of a round failed. `result` has the rounds until then, and an earlier answer if any."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


class PausedError(RSAError):
    """A run has come as far as it had leave to, and is not at its end (`rsa.limits.Leave`). `rounds` are those that it
    played; resumed, it goes on after them."""

    def __init__(self, rounds: tuple[Round, ...]) -> None:
        super().__init__(f"the run waits for leave to play round {len(rounds)}")
        self.rounds = rounds


def check_argument(given: object, good: bool, name: str, wanted: str) -> None:
    """Raises ConfigError for an argument of the library that is not what it should be."""
    if not good:
        raise ConfigError(f"{name} = {shown(given)}: should be {wanted}")


def is_options(given: object) -> bool:
    """Whether it is what `engine_options` takes: values by name, or None."""
    return given is None or (isinstance(given, Mapping) and all(isinstance(key, str) for key in given))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or the empty string if nothing known is near `word`, or that is no text. Quick, however
    long it is."""
    if not isinstance(word, str) or len(word) > _LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
