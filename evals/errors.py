"""Every error of the harness. They are `RSAError`s, so the command line shows them as one line without a traceback.

EvalError
├── BenchmarkError   no such benchmark or metric, or its file is wrong
├── DataError        the data cannot be loaded: no network, no file, a missing column, nothing left after filters
│   └── GoldError      a gold answer, or a field beside it, is not what the metric needs
└── ResultsError     a results folder cannot be read, written or continued
    ├── OtherEvalError   it holds an evaluation of another configuration; `keys` names what differs
    └── ReplayError      what was recorded does not say how that would have ended
"""

from __future__ import annotations

from rsa.errors import RSAError


class EvalError(RSAError):
    """Base of all errors of this package."""


class BenchmarkError(EvalError):
    """There is no such benchmark or metric, or its file is wrong; the message names what there is."""


class DataError(EvalError):
    """The data of a benchmark cannot be loaded; the message says what to run or where to put a file."""


class GoldError(DataError):
    """A gold answer, or a field beside it, is not what the metric needs."""


class ResultsError(EvalError):
    """A results folder cannot be read, written or continued."""


class OtherEvalError(ResultsError):
    """The folder holds an evaluation of another configuration; `keys` names what differs."""

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class ReplayError(ResultsError):
    """What was recorded does not say how that would have ended: it was never generated, or the record is not whole;
    `why` alone, without where and without what to do."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message
