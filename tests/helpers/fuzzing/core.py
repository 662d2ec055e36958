"""What all doors share: what may come of a case, how a wrong one is found again and made short, and the tally.

A case is plain JSON: all that is needed to do it again. hypothesis draws cases and shortens those that go wrong; a door
says which cases there are, and does what one says. Of what comes of it only three things are right: the right result,
an error of ours in one line, or, at the command line, such a line and its exit code.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis.strategies import SearchStrategy

from engine.errors import EngineError
from rsa.errors import RSAError

Case = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
OURS = tuple(f"{ROOT / name}/" for name in ("rsa", "engine", "evals"))
BATCH = 500
"""Cases of one seed of hypothesis; what it has found is known when the next begins."""
AGAIN_S = 0.5
"""An alarm is repeated so often: one may ring in a callback of the garbage collector, which ignores what is raised."""
SHORTENING_S = 20.0
"""So long a case is made shorter; then it is short enough."""


class DifferentError(Exception):
    """A door: the case was accepted, and gave another result than it should, without a word."""


class TooLongError(BaseException):
    """The case has not ended in its time. No `Exception`, so that what is stopped does not catch it."""


class AmissError(AssertionError):
    """What must not come of a case. `sign` is the same for cases with the same cause, as far as one can see."""

    def __init__(self, kind: str, sign: str, what: str, case: Case) -> None:
        super().__init__(f"{kind}: {what}\n  {json.dumps(case)[:2000]}")
        self.kind, self.sign, self.what, self.case = kind, f"{kind}: {sign}", what, case


class Door(ABC):
    """A way into the product. It is opened once, in a scratch folder of its own, where it makes what cases begin from.

    name      as it is asked for.
    share     of all cases, beside those of other doors.
    limit_s   for one case, on a busy machine.
    """

    name: str
    share: int = 1
    limit_s: float = 20.0

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @property
    @abstractmethod
    def cases(self) -> SearchStrategy[Case]:
        """All cases; the shortest and plainest come first where hypothesis shortens one."""

    @abstractmethod
    def enter(self, case: Case) -> str:
        """Do what a case says. Returns a word for what came of it, if that is right. Raises whatever the product
        raises, and DifferentError."""


@contextmanager
def opened(door: type[Door]) -> Iterator[Door]:
    """A door with its scratch folder, in memory where the system has such a place: cases wait for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="fuzz-") as name:
        yield door(Path(name))


def judged(door: Door, case: Case) -> str:
    """What came of a case, in a word. Raises AmissError for what must not."""
    try:
        with _limited(door.limit_s):
            return door.enter(case)
    except (RSAError, EngineError) as error:
        _check_message(error, case)
        return "refused"
    except DifferentError as error:
        raise AmissError("different", str(error).split(":")[0], str(error), case) from None
    except TooLongError as error:
        raise AmissError("hung", _place(error), f"no end after {door.limit_s:.0f} s", case) from None
    except AmissError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust's is no Exception
        found = _innermost(error)
        what = f"{type(found).__name__}: {str(found)[:300]} ({_place(found)})"
        raise AmissError("raised", f"{type(found).__name__} in {_place(found)}", what, case) from error


def _check_message(error: Exception, case: Case) -> None:
    message = str(error)
    fault = "an empty message" if not message.strip() else "more than a line" if "\n" in message else None
    if fault is not None:
        raise AmissError("message", f"{fault} in {_place(error)}", f"{fault}: {message[:300]!r}", case)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(error: BaseException) -> str:
    """The innermost function of ours that an error passed through."""
    frames = traceback.extract_tb(_innermost(error).__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)]
    if not ours:
        return "no code of ours"
    return f"{Path(ours[-1].filename).relative_to(ROOT)}, {ours[-1].name}"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TooLongError in this, the main thread, when the time is over; an alarm that was set before goes on."""

    def ring(*_: object) -> None:
        raise TooLongError

    handler = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.01))


@dataclass
class Tally:
    """What came of the cases of a door.

    outcomes  cases by the word for what came of them.
    found     the shortest case of each kind of fault, by its sign.
    again     further cases with a fault that was known.
    """

    door: str
    outcomes: Counter[str] = field(default_factory=Counter)
    found: dict[str, AmissError] = field(default_factory=dict)
    again: int = 0
    seconds: float = 0.0
    seen: set[bytes] = field(default_factory=set)

    @property
    def cases(self) -> int:
        return self.outcomes.total() + self.again + len(self.found)

    def row(self) -> dict[str, Any]:
        """For the table, and for JSON."""
        kinds = Counter(error.kind for error in self.found.values())
        return {
            "door": self.door,
            "cases": self.cases,
            "distinct": len(self.seen),
            "outcomes": dict(sorted(self.outcomes.items())),
            "faults": {**kinds, "again": self.again} if kinds else {},
            "seconds": round(self.seconds, 1),
        }


def fuzz(
    door: Door,
    *,
    cases: int,
    seed: int,
    told: Callable[[AmissError], None] = lambda error: None,
    before: Callable[[Case], None] = lambda case: None,
) -> Tally:
    """Try so many cases, the same ones for the same seed, shortening those that go wrong.

    told    of each new fault, when its case is short.
    before  is given each case before it is tried.
    """
    tally, began, batch = Tally(door.name), time.monotonic(), 0
    while tally.cases < cases:
        there = tally.cases
        error = _batch(door, tally, min(BATCH, cases - there), seed * 1_000_003 + batch, before)
        if error is not None and error.sign not in tally.found:
            tally.found[error.sign] = error
            told(error)
        elif tally.cases == there:
            break  # the door has no more cases
        batch += 1
    tally.seconds = time.monotonic() - began
    return tally


def _batch(door: Door, tally: Tally, cases: int, seed: int, before: Callable[[Case], None]) -> AmissError | None:
    """Some cases; ends with the first new fault, which is returned with its shortest case."""
    last: AmissError | None = None
    until = 0.0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(door.cases)
    def attempt(case: Case) -> None:
        nonlocal last, until
        if last is not None and time.monotonic() > until:
            if case == last.case:
                raise last
            return
        before(case)
        try:
            word = judged(door, case)
        except AmissError as error:
            if error.sign not in tally.found:
                if last is not None and error.sign != last.sign:
                    return  # while one fault is made short, no other takes its place
                until = until or time.monotonic() + SHORTENING_S
                last = error
                raise
            word = ""
        if last is None:
            tally.seen.add(blake2b(json.dumps(case).encode(), digest_size=8).digest())
            tally.outcomes.update([word] if word else [])
            tally.again += not word

    try:
        attempt()
    except AmissError as error:
        return error
    except hypothesis.errors.Flaky:
        return last  # it is not the same each time; the case that went wrong last is still worth a look
    return None
