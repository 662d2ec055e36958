"""What a test uses, found in its code: so tests that cost much are known as such without anybody listing them."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import processes
import pytest

MODELS = ("tests/engine/mlx/", "tests/engine/families/", "tests/engine/vision/")
"""The folders whose tests all run a model on MLX."""
MODEL_FIXTURES = frozenset({"make_llama"})
"""The fixtures that make a model with weights."""


def is_thorough(item: pytest.Function) -> bool:
    """Whether a test starts processes or runs a model, itself or through its fixtures and helpers."""
    if any(folder in item.path.as_posix() for folder in MODELS) or MODEL_FIXTURES & {*item.fixturenames}:
        return True
    fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
    return any(starts_a_process(function) for function in (item.function, *fixtures))


def starts_a_process(function: Any) -> bool:
    """Whether a function calls one of `processes`, or a function of its own module that does."""
    waiting, seen = [function], set()
    while waiting:
        function = waiting.pop()
        function = (getattr(function, "hypothesis", None) and function.hypothesis.inner_test) or function
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        used = [function.__globals__.get(name) for name in _names(function.__code__)]
        if any(getattr(value, "__module__", None) == processes.__name__ or value is processes for value in used):
            return True
        waiting += [value for value in used if getattr(value, "__module__", None) == function.__module__]
    return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
