"""Names that Zyphra's proxy of Markovian RSA gives to settings of a run, so that its clients need another URL only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsa.serve.errors import ApiError

SETTINGS = {
    "rsa_n": "n",
    "rsa_k": "c",
    "rsa_t": "t",
    "tail_window_len": "tau",
    "rsa_tail_window_len": "tau",
    "short_resp_len": "beta",
    "rsa_short_resp_len": "beta",
}
"""Names of numbers."""
CARRIES = {
    "rsa_tail_window": (False, "full"),
    "rsa_use_tail_window": (False, "full"),
    "use_pacore": (True, "answer_or_reasoning"),
    "rsa_use_pacore": (True, "answer_or_reasoning"),
}
"""Names of switches, the value that changes something, and the `carry` that it means."""
UNSUPPORTED = ("rsa_summarize", "summarize")
"""Switches of what is not done here: a tail is what a candidate wrote."""
WITHOUT_EFFECT = (
    "rsa_max_concurrency",
    "rsa_debug",
    "return_rsa_metadata",
    "rsa_return_metadata",
    "return_aggregation_prompt",
    "rsa_return_aggregation_prompt",
    "summary_prompt",
    "rsa_summary_prompt",
)
"""What changes no answer here: the metadata always come, and the engine has a limit of its own."""
NAMES = (*SETTINGS, *CARRIES, *UNSUPPORTED, *WITHOUT_EFFECT)


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that these fields mean. Raises ApiError for what is not done here, and where two disagree."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in UNSUPPORTED and value is not False:
            raise ApiError(400, f"{name}: candidates are not summarized here, their tails are cut", param=name)
        if name in SETTINGS:
            _put(found, SETTINGS[name], value, name)
        elif name in CARRIES and value == CARRIES[name][0]:
            _put(found, "carry", CARRIES[name][1], name)
    return found


def _put(found: dict[str, Any], setting: str, value: Any, name: str) -> None:
    if found.setdefault(setting, value) != value:
        raise ApiError(400, f"{name} = {value} contradicts {setting} = {found[setting]}: leave one out", param=name)
