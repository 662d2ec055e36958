"""Fields whose value is of one of several kinds, told apart before they are read: so a fault names its place in what
the client sent (`input[0].content[1].image_url`), not every kind that it might have been.

Such a field is a union whose members are marked, `Annotated[Text, kind("text")] | Annotated[Image, kind("image")]`, in
an `Annotated` with `by_type("a part", "text", "image")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import Discriminator, Tag

MARK = "~"
"""How the name of a kind begins where pydantic says where a fault is; `rsa.serve.errors.path_of` leaves it out."""


def kind(name: str) -> Tag:
    """Marks a member of a union."""
    return Tag(MARK + name)


def by_type(what: str, *names: str, default: str | None = None) -> Discriminator:
    """Chooses the kind by the field `type`; without one, `default`. `what` is said of values that are of none."""

    def chosen(value: Any) -> str | None:
        name = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", None)
        return MARK + name if isinstance(name, str) and name in names else None

    return _discriminator(chosen, f"should be {what}, whose type is {_or(names)}")


def by_shape(says: str, kinds: dict[str, type | tuple[type, ...]]) -> Discriminator:
    """Chooses the kind by the class of a value, for example `{"text": str, "items": list}`."""

    def chosen(value: Any) -> str | None:
        return next((MARK + name for name, classes in kinds.items() if isinstance(value, classes)), None)

    return _discriminator(chosen, says)


def _discriminator(chosen: Callable[[Any], str | None], says: str) -> Discriminator:
    return Discriminator(chosen, custom_error_type="kind", custom_error_message=says.replace("{", "{{"))


def _or(names: Iterable[str]) -> str:
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} or {last}" if first else last
