"""Policies of other packages, held to what a policy keeps.

What such a policy raises, and what it says that makes no sense, is a ConfigError that names its package: before
anything of it is acted on or recorded, so that a run can be gone on with when the package is mended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Never, SupportsIndex, TypeVar

from rsa.errors import ConfigError
from rsa.policies.parents import ParentsPolicy, Subset
from rsa.policies.selecting import Played, SelectPolicy
from rsa.policies.stopping import Standing, Stop, StopPolicy
from rsa.policies.tournament import Pair, most_matches
from rsa.words import in_one_line, shortened, shown

if TYPE_CHECKING:
    from rsa.results import Candidate, Round

_Given = TypeVar("_Given")
_SHOWN_CHARACTERS = 200


def guarded(policy: object, kind: str, where: str, package: str) -> StopPolicy | SelectPolicy | ParentsPolicy:
    """A policy of a package, as one that keeps its contract or raises ConfigError.

    where  it is asked for, as a message begins: `stop = patient:3`.

    Raises ConfigError for what is no policy of its kind.
    """
    guard = _Guard(where, package)
    if kind == "stop":
        return _Stop(guard.is_a(StopPolicy, policy), guard)
    if kind == "select":
        return _Select(guard.is_a(SelectPolicy, policy), guard)
    return _Parents(guard.is_a(ParentsPolicy, policy), guard)


def told(error: BaseException) -> str:
    """What a package's code raised, in a line."""
    said = in_one_line(" ".join(str(error).split()))
    return shortened(f"{type(error).__name__}: {said}" if said else type(error).__name__, _SHOWN_CHARACTERS)


class _Guard:
    """Says of a package's policy what is wrong with it."""

    def __init__(self, where: str, package: str) -> None:
        self._where, self._package = where, package

    def broken(self, why: str) -> Never:
        raise ConfigError(f"{self._where}: the policy of {self._package} is broken: {why}") from None

    def is_a(self, kind: type[_Given], policy: object) -> _Given:
        if not isinstance(policy, kind):
            self.broken(f"{shown(policy)} is no {kind.__name__}")
        return policy

    def asked(self, what: str, ask: Callable[[], _Given]) -> _Given:
        """What the policy says."""
        try:
            return ask()
        except Exception as error:  # another package's code, whatever it does
            self.broken(f"{what} raised {told(error)}")

    def flags(self, policy: object, base: type) -> dict[str, bool]:
        """What the policy states of itself, by name."""
        names = [name for name, value in vars(base).items() if isinstance(value, bool)]
        return {name: self.asked(name, partial(_states, policy, name)) for name in names}

    def different(self, what: str, ask: Callable[[], Iterable[Any]], known: Sequence[int]) -> Subset:
        """Numbers that the policy says: different ones of those that are known."""
        said = self.asked(what, lambda: tuple(ask()))
        numbers = tuple(each for each in said if isinstance(each, SupportsIndex))
        if len(numbers) < len(said) or len({*numbers}) < len(said) or not {*numbers} <= {*known}:
            self.broken(f"{what} said {shown(said)}: should be different ones of {shown(tuple(known))}")
        return tuple(map(index, numbers))


def _states(policy: object, name: str) -> bool:
    return bool(getattr(policy, name))


class _Stop(StopPolicy):
    def __init__(self, policy: StopPolicy, guard: _Guard) -> None:
        self._policy, self._guard = policy, guard
        self._inside = guard.asked("inside", lambda: bool(policy.inside))
        vars(self).update(guard.flags(policy, StopPolicy))

    @property
    def inside(self) -> bool:
        return self._inside

    def within(self, standing: Standing) -> Stop | None:
        stop = self._guard.asked("within", lambda: self._policy.within(standing))
        return self._checked("within", stop, "cut", "conclude")

    def after(self, rounds: Sequence[Round]) -> Stop | None:
        return self._checked("after", self._guard.asked("after", lambda: self._policy.after(rounds)), "end")

    def _checked(self, what: str, stop: Any, *actions: str) -> Stop | None:
        if stop is None:
            return None
        if not isinstance(stop, Stop):
            self._guard.broken(f"{what} said {shown(stop)}: should be a Stop, or None")
        if stop.action not in actions:
            self._guard.broken(f"{what} said {shown(stop.action)}: should be {' or '.join(actions)}")
        numbers = self._guard.asked(
            f"numbers of {what}", lambda: {name: float(value) for name, value in stop.numbers.items()}
        )
        for name, value in numbers.items():
            if not isinstance(name, str) or not math.isfinite(value):
                self._guard.broken(f"{what} said {shown(name)} is {value}: should be a finite number by its name")
        return Stop(stop.action, numbers)


class _Select(SelectPolicy):
    def __init__(self, policy: SelectPolicy, guard: _Guard) -> None:
        self._policy, self._guard = policy, guard
        vars(self).update(guard.flags(policy, SelectPolicy))

    def choose(self, played: Played) -> Candidate:
        chosen = self._guard.asked("choose", lambda: self._policy.choose(played))
        if not any(chosen is candidate for each in played.rounds for candidate in each.candidates):
            self._guard.broken(f"choose said {shown(chosen)}: should be a candidate of a round")
        if chosen.answer is None:
            self._guard.broken(
                f"choose said candidate {chosen.index} of round {chosen.round}: should be one with an answer"
            )
        return chosen

    def meeting(self, last: Round, matches: Sequence[Round]) -> tuple[Pair, ...]:
        if not self.compares:
            return ()
        said = self._guard.asked("meeting", lambda: tuple(self._policy.meeting(last, matches)))
        answered = [candidate.index for candidate in last.candidates if candidate.answer is not None]
        pairs = [self._guard.different("meeting", partial(tuple, pair), answered) for pair in said]
        if any(len(pair) != 2 for pair in pairs):
            self._guard.broken(f"meeting said {shown(said)}: should be pairs of candidates")
        most, before = most_matches(len(last.candidates)), sum(len(each.candidates) for each in matches)
        if before + len(pairs) > most:
            self._guard.broken(f"meeting wants {before + len(pairs)} matches: {most} are the most of such a round")
        return tuple((one, other) for one, other in pairs)

    def why(self, played: Played) -> str:
        """A fault is told here, too: there is an answer by then."""
        try:
            said = self._policy.why(played)
        except Exception as error:  # another package's code, whatever it does
            return f"cannot say why: {told(error)}"
        return in_one_line(said) if isinstance(said, str) else ""


class _Parents(ParentsPolicy):
    def __init__(self, policy: ParentsPolicy, guard: _Guard) -> None:
        self._policy, self._guard = policy, guard
        vars(self).update(guard.flags(policy, ParentsPolicy))

    def draw(self, before: Round, size: int, seed: int) -> Subset:
        drawn = self._guard.different("draw", lambda: self._policy.draw(before, size, seed), before.parents)
        if len(drawn) != min(size, len(before.parents)):
            self._guard.broken(f"draw said {shown(drawn)}: should be {min(size, len(before.parents))} parents")
        return drawn
