"""Names that Zyphra's proxy of Markovian RSA gives to settings of a run, so that its clients need another URL only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsa.requests import SELECTION_SAMPLING
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
FINAL = {
    "rsa_final_n": 1,
    "final_aggregation_prompts": 1,
    **dict.fromkeys(("final_temperature", "rsa_final_temperature"), SELECTION_SAMPLING["temperature"]),
    **dict.fromkeys(("final_top_p", "rsa_final_top_p"), SELECTION_SAMPLING["top_p"]),
    **dict.fromkeys(("final_top_k", "rsa_final_top_k"), SELECTION_SAMPLING["top_k"]),
}
"""Names of what its last aggregation is like, and the values of ours, which `select` = aggregate means."""
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
NAMES = (*SETTINGS, *CARRIES, *FINAL, *UNSUPPORTED, *WITHOUT_EFFECT)


def settings_of(fields: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The setting and its value that each of these fields means, of those that mean one. Raises ApiError for what is
    not done here."""
    found: dict[str, tuple[str, Any]] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in UNSUPPORTED and value is not False:
            raise ApiError(400, f"{name}: candidates are not summarized here, their tails are cut", param=name)
        if name in SETTINGS:
            found[name] = (SETTINGS[name], value)
        elif name in CARRIES and value == CARRIES[name][0]:
            found[name] = ("carry", CARRIES[name][1])
        elif name in FINAL:
            if value != FINAL[name]:
                raise ApiError(400, f"{name} = {value}: only {FINAL[name]} is done here", param=name)
            found[name] = ("select", "aggregate")
    return found
