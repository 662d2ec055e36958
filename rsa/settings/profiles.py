"""Profiles: named settings in TOML files, keys as in `RSAConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.documents import read_toml
from rsa.errors import ConfigError, check_argument, is_options
from rsa.settings import resources
from rsa.settings.config import ASKED, Limits, RSAConfig
from rsa.settings.sizes import parse_size
from rsa.words import shown


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return resources.names("profiles")


def load_config(
    profile: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> RSAConfig:
    """The settings of a profile (a name or the path of a TOML file) with single values changed.

    profile    None: the defaults of `RSAConfig`.
    overrides  win over the profile. `limits` is merged key by key.
    defaults   a model's own settings (`[rsa]` in configs/models): they count where no profile is asked for.

    What the profile and `overrides` name is asked for; `defaults` are not. Without a profile, C and tau that nobody
    asked for give way to a smaller N or beta that somebody did.

    Raises ConfigError for an unknown profile or setting, and for values that clash.
    """
    for name, layer in (("overrides", overrides), ("defaults", defaults)):
        check_argument(layer, is_options(layer), name, "settings by name")
    chosen = {} if profile is None else read_toml(resources.find("profiles", profile), ConfigError)
    asked = {*chosen, *(overrides or {})}
    merged: dict[str, Any] = {}
    for layer in (chosen, (defaults or {}) if profile is None else {}, overrides or {}):
        _refuse_asked(layer)
        limits = {**_limits(merged), **_limits(layer)}
        merged = {**merged, **layer, **({"limits": limits} if limits else {})}
    if profile is None:
        merged |= _lowered_defaults(merged, overrides or {})
    try:
        return RSAConfig(**merged).asking(asked)
    except ConfigError as error:
        where = f" (with profile {profile!r})" if profile is not None else ""
        raise ConfigError(f"{error}{where}") from None


def _lowered_defaults(settings: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of c and tau that are lowered because a smaller n or beta was asked for."""
    pairs = (("c", "n"), ("tau", "beta"))
    return {
        small: asked[large]
        for small, large in pairs
        if large in asked
        and small not in asked
        and _smaller(asked[large], settings.get(small, RSAConfig.model_fields[small].default))
    }


def _refuse_asked(layer: Mapping[str, Any]) -> None:
    if ASKED in layer:
        raise ConfigError(f"unknown setting {ASKED!r}: it is written into records, and is not for people to give")


def _smaller(value: object, other: object) -> bool:
    try:
        return 0 < parse_size(value) < parse_size(other)
    except ValueError:
        return False  # `RSAConfig` says what is wrong with it


def _limits(layer: Mapping[str, Any]) -> dict[str, Any]:
    limits = layer.get("limits")
    if isinstance(limits, Limits):
        return limits.model_dump(exclude_unset=True)
    if limits is not None and not isinstance(limits, Mapping):
        raise ConfigError(f"limits = {shown(limits)}: should be a table, such as {{total_tokens = 4000}}")
    return dict(limits or {})
