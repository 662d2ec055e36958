"""Records that people write in files: every fault is a `BenchmarkError` in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from evals.errors import BenchmarkError
from rsa.errors import did_you_mean


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""One or several strings; in a file also a string alone."""


def _as_numbers(value: Any) -> Any:
    """`"15-56"` is every number from 15 to 56."""
    spread: list[Any] = []
    for part in _as_tuple(value):
        ends = re.fullmatch(r"(\d{1,4})-(\d{1,4})", part) if isinstance(part, str) else None
        spread += range(int(ends[1]), int(ends[2]) + 1) if ends else [part]
    return tuple(spread)


Numbers = Annotated[tuple[int, ...], BeforeValidator(_as_numbers)]
"""One or several whole numbers; in a file also a number alone, or a range as text: "15-56"."""


class Declared(BaseModel):
    """A frozen record without undeclared fields. Raises BenchmarkError if it cannot be made; validators do so too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise BenchmarkError(f"unknown key {key!r}{did_you_mean(str(key), cls.model_fields)}")
        try:
            return handler(data)
        except ValidationError as error:
            raise BenchmarkError("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{where} is missing"
    message = detail["msg"].replace("Input should", "should")
    return f"{where}: {message}" if where else message
