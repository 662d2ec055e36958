"""Typed look-ups in the configuration of a model, which anybody may have written."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from engine.errors import ModelError

T = TypeVar("T", int, float, bool)


class ConfigReader:
    """Reads `config.json`, or a table in it, under all names that a key has had. null counts as missing.

    Every look-up raises ModelError, naming the key, for a value that is not of its kind, or names that disagree.
    """

    def __init__(self, config: dict[str, Any], prefix: str = "", *, model: str = "this model") -> None:
        """prefix: what stands before a key's name in messages; model: what they call it."""
        self.config, self.model = config, model
        self.prefix, self.where = prefix, f"config.json: {prefix}"

    def fixed(self, key: str, allowed: tuple[Any, ...]) -> None:
        if key in self.config and self.config[key] not in allowed:
            raise ModelError(
                f"{self.where}{key} is {self.config[key]!r}; only {allowed[0]!r} is implemented for {self.model}"
            )

    def integer(self, *names: str, default: int | None = None) -> int:
        """The positive whole number under any of the names; ModelError if there is none or they differ."""
        value = self.optional_integer(*names)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}{' or '.join(names)} is missing")
        return value

    def optional_integer(self, *names: str) -> int | None:
        for name, value in self._present(names).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"{self.where}{name} is {value!r}, not a positive whole number")
        return self._agreed(names, None)

    def number(self, *names: str, default: float | None = None) -> float:
        for name, value in self._present(names).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ModelError(f"{self.where}{name} is {value!r}, not a positive number")
        value = self._agreed(names, default)
        if value is None:
            raise ModelError(f"{self.where}{' or '.join(names)} is missing")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}{name} is {value!r}, not true or false")
        return value

    def indices(self, name: str, *, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.config.get(name)
        if value is None:
            return default
        whole = isinstance(value, list) and all(
            isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value
        )
        if not whole:
            raise ModelError(f"{self.where}{name} is {value!r}, not a list of block numbers")
        return tuple(value)

    def _present(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.config[name] for name in names if self.config.get(name) is not None}

    def _agreed(self, names: tuple[str, ...], default: T | None) -> T | None:
        found = self._present(names)
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{self.prefix}{name} = {value!r}" for name, value in found.items())
            raise ModelError(f"config.json: these must agree and do not: {listed}")
        return next(iter(found.values()), default)
