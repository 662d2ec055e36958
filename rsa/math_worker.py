"""A process that compares mathematical expressions with math-verify, so that it can be killed when it hangs.

`python -m rsa.math_worker` writes `{"ready": true}`, then answers each line `{"left": ..., "right": ...}` on
standard input with one line `{"same": true | false}`, in order, until its input ends. If math-verify is not
installed it writes `{"ready": false, "why": ...}` and ends. It imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

EXACT_DIGITS = 15
"""Decimals count as equal only if they agree this far: an approximation is not the exact value."""


def compare(left: str, right: str) -> bool:
    """Whether math-verify takes two answers for the same. May hang: run it in a process that can be killed."""
    from math_verify import parse, verify

    # Its own timeouts are switched off: they need signals, and do not stop a big power anyway.
    parsed = [parse(f"${text}$", parsing_timeout=None) for text in (left, right)]
    if not all(parsed):
        return False
    options: dict[str, Any] = {"float_rounding": EXACT_DIGITS, "numeric_precision": 30, "timeout_seconds": None}
    return bool(verify(parsed[0], parsed[1], **options) or verify(parsed[1], parsed[0], **options))


def main() -> None:
    """Serve comparisons until standard input ends."""
    # Libraries may print: keep the real standard output for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)

    def reply(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        compare("1", "2")  # pays for the imports before the clock of the first comparison runs
    except ImportError as error:
        reply({"ready": False, "why": str(error)})
        return
    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            same = compare(request["left"], request["right"])
        except Exception:
            # An expression that math-verify cannot handle equals nothing; the next one is asked all the same.
            same = False
        reply({"same": same})


if __name__ == "__main__":
    main()
