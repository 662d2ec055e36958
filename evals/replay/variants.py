"""What to decide otherwise than a run did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from evals.errors import ReplayError
from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.results import Record
from rsa.settings.config import RSAConfig, parts_of
from rsa.settings.methods import check_method, method_settings
from rsa.words import plural, shown

AS_RECORDED = "as recorded"


class Variant(Record):
    """What differs from the record; None: as recorded.

    stop, select, t, waves   as of `RSAConfig`.
    n                 of so many candidates of round 0, drawn from those that there are.
    method            as of `rsa.settings.methods`.
    """

    stop: tuple[str, ...] | None = None
    select: str | None = None
    t: int | None = None
    waves: tuple[int, ...] | None = None
    n: int | None = None
    method: str | None = None

    @property
    def name(self) -> str:
        """What differs, in words."""
        stop = None if self.stop is None else ",".join(self.stop) or "none"
        waves = None if self.waves is None else ",".join(map(str, self.waves)) or "none"
        given = {"method": self.method, "n": self.n, "t": self.t, "waves": waves, "stop": stop, "select": self.select}
        return ", ".join(f"{key} {value}" for key, value in given.items() if value is not None) or AS_RECORDED

    def check(self) -> None:
        """Raises ConfigError for a value that makes no sense whatever it goes with."""
        if self.method is not None:
            check_method(self.method)
        for key in ("n", "t", "stop", "select", "waves"):
            value = getattr(self, key)
            if value is not None:
                RSAConfig(**{"n": max(1, sum(self.waves or (1,))), "c": 1, key: value})

    def settings(self, recorded: RSAConfig) -> RSAConfig:
        """The settings of a run of this variant. Raises ConfigError for those that make no sense, ReplayError for those
        that need what was not generated."""
        given = {key: value for key, value in self.model_dump(exclude={"method"}).items() if value is not None}
        if self.method is not None:
            given = method_settings(self.method, given)
        n, t = given.get("n", recorded.n), given.get("t", recorded.t)
        if n > recorded.n or t > recorded.t:
            what, asked, there = ("n", n, recorded.n) if n > recorded.n else ("t", t, recorded.t)
            raise ReplayError(f"{what} = {asked} is more than was generated, which is {what} = {there}")
        if t == 0:  # nobody reads a tail
            given = {**given, "c": max(1, min(recorded.c, n)), "carry": recorded.carry}
        else:
            self._check_tails(given, recorded, n=n)
        if n != recorded.n:
            given = {"waves": (), **given}  # those that were recorded are of all
        config = recorded.replace(**given)
        self._check_selection(config, recorded)
        return config

    def _check_tails(self, given: dict[str, Any], recorded: RSAConfig, *, n: int) -> None:
        """Raises ReplayError where later rounds would have read other tails."""
        if n < recorded.n:
            raise ReplayError(
                f"n = {n} of {recorded.n} is for round 0 alone: later rounds read tails of candidates that would not "
                "be there; give t = 0, too"
            )
        for key in ("c", "carry"):
            if key in given and given[key] != getattr(recorded, key):
                raise ReplayError(
                    f"method = {self.method} has {key} = {given[key]}, and {key} = {getattr(recorded, key)} was "
                    "recorded: other prompts than those would need the model"
                )

    def _check_selection(self, config: RSAConfig, recorded: RSAConfig) -> None:
        """Raises ReplayError where one more aggregation, or matches, were not generated."""
        if not registry.select_policy(config.select).goes_on:
            return
        if config.select != recorded.select:
            raise ReplayError(
                f"select = {config.select} needs the model: select = {recorded.select} was recorded, without "
                "what would give the answer"
            )
        if config.t < recorded.t or config.n < recorded.n:
            raise ReplayError(
                f"select = {config.select} needs the model: what was recorded follows round {recorded.t} with "
                f"{plural(recorded.n, 'candidate')}; give another select, too"
            )


def policies_of(written: str) -> tuple[str, ...]:
    """The policies of a text with commas between them; `none` is none of them. Raises ConfigError for commas alone."""
    try:
        return _parts_of(written, "policies")
    except ValueError as error:
        raise ConfigError(f"stop = {shown(written)}: {error}") from None


def sizes_in(written: str) -> tuple[int, ...]:
    """The waves in such a text. Raises ConfigError for what are no numbers."""
    try:
        return tuple(map(int, _parts_of(written, "numbers")))
    except ValueError:
        raise ConfigError(f"waves = {shown(written)}: should be numbers with commas between them") from None


def _parts_of(written: str, what: str) -> tuple[str, ...]:
    return () if written.strip() == "none" else parts_of(written, what)


def grid(
    *,
    stop: Sequence[tuple[str, ...]] = (),
    select: Sequence[str] = (),
    t: Sequence[int] = (),
    waves: Sequence[tuple[int, ...]] = (),
    n: Sequence[int] = (),
    method: Sequence[str] = (),
) -> list[Variant]:
    """Every combination of what is given; nothing given: none."""
    axes = {"method": method, "n": n, "t": t, "waves": waves, "stop": stop, "select": select}
    given = {key: values for key, values in axes.items() if values}
    if not given:
        return []
    found = [Variant(**dict(zip(given, values, strict=True))) for values in product(*given.values())]
    return list(dict.fromkeys(found))
