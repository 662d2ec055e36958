"""Kinds of engines, and how others add theirs.

An engine is called KIND:NAME. What stands before the colon says who opens it, what stands after it is that one's
business: `mlx:nano`, `openai:zaya1-8b`, `scripted:play.py`. A package of one's own adds a kind by an entry point:

    [project.entry-points."rsa.engines"]
    toy = "toy_engine:open_toy"

`open_toy("x")` is called for `toy:x`. It returns an `engine.api.Engine` and blocks until that is ready; an error for
people is an `engine.errors.EngineError`. `ModelInfo.details["source"]` should be `toy:x`, so that a run can be resumed
without naming the model again. Nothing is imported before an engine of the kind is opened.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from engine.api import Engine
from engine.errors import EngineError, ModelError, RequestError

GROUP = "rsa.engines"
"""The entry-point group of kinds; an entry's object takes a name (and options, if it has any) and gives an engine."""
_OURS = (
    EntryPoint("mlx", "engine.loader:load_engine", GROUP),
    EntryPoint("openai", "engine.openai.opening:open_openai", GROUP),
    EntryPoint("scripted", "engine.scripted:open_scripted", GROUP),
)
_SPEC = re.compile(r"([A-Za-z][\w-]*):(.+)", re.DOTALL)


def split(spec: str) -> tuple[str, str] | None:
    """Kind and name of KIND:NAME; None if it is not written so."""
    found = _SPEC.fullmatch(spec)
    return (found[1], found[2]) if found else None


def kinds() -> list[str]:
    """The kinds that can be opened here, ours first; none is imported."""
    others = sorted({point.name for point in entry_points(group=GROUP)})
    return list(dict.fromkeys([point.name for point in _OURS] + others))


def check_kind(kind: str) -> None:
    """Raises RequestError for a kind that nobody brings, naming the nearest."""
    if kind not in [point.name for point in _OURS] and kind not in kinds():  # all packages take a while to look through
        near = difflib.get_close_matches(kind, kinds(), n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        raise RequestError(f"no kind of engine is called {kind!r}{meant} There are {', '.join(kinds())}")


def open_engine(kind: str, name: str, /, **options: Any) -> Engine:
    """Open an engine of a kind; blocks until it is ready.

    Raises RequestError for an unknown kind, a kind that two packages bring, and an option that the kind does not take;
    ModelError, naming the package, for one that cannot be imported or breaks as it opens; and what the kind raises for
    people (EngineError).
    """
    check_kind(kind)
    point = _entry_point(kind)
    opener = _loaded(point)
    _check_arguments(kind, opener, name, options)
    try:
        engine = opener(name, **options)
    except EngineError:
        raise
    except Exception as error:
        if point.dist is None:
            raise  # a bug of ours keeps its traceback
        raise ModelError(f"{kind}:{name} cannot be opened ({_named(error)}): {_ask(point)}") from error
    if not isinstance(engine, Engine):
        raise ModelError(f"{point.value} gave {kind}:{name} no engine but {type(engine).__name__}: {_ask(point)}")
    return engine


def _entry_point(kind: str) -> EntryPoint:
    """Ours, or else the only one of that name."""
    for point in _OURS:
        if point.name == kind:
            return point
    points = {point.value: point for point in entry_points(group=GROUP, name=kind)}
    if len(points) > 1:
        packages = " and ".join(sorted(_package(point) for point in points.values()))
        raise RequestError(f"the kind of engine {kind!r} is brought by {packages}: remove one of them")
    (point,) = points.values()
    return point


def _loaded(point: EntryPoint) -> Callable[..., Any]:
    try:
        opener: Callable[..., Any] = point.load()
    except Exception as error:  # another's module may run into anything
        if point.dist is None:
            raise
        raise ModelError(
            f"the kind of engine {point.name!r} cannot be imported from {point.value} ({_named(error)}): {_ask(point)}"
        ) from error
    if not callable(opener):
        raise ModelError(f"{point.value} opens no engine, it is {type(opener).__name__}: {_ask(point)}")
    return opener


def _check_arguments(kind: str, opener: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(opener)
    except ValueError:  # it is written in C, and says nothing of itself
        return
    try:
        signature.bind(name, **options)
    except TypeError as error:
        known = signature.parameters
        unknown = [f"`{option}`" for option in options if option not in known]
        if unknown:
            meant = " (`base_url` is for openai:MODEL)" if "`base_url`" in unknown else ""
            raise RequestError(
                f"engines of the kind {kind!r} take no {', '.join(unknown)}: leave it out{meant}"
            ) from None
        raise RequestError(f"engines of the kind {kind!r} cannot be opened so: {error}") from None


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "this one"


def _ask(point: EntryPoint) -> str:
    return f"install the package {_package(point)} again, or ask its makers"


def _named(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
