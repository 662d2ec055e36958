"""A process that compares mathematical expressions with math-verify, so that it can be killed when it hangs.

`python -m rsa.math_worker` writes `{"ready": true}`, then answers each line on standard input with one line
`{"same": true | false}`, in order, until its input ends. A line is `{"left": [...], "right": [...], "ordered": ...}`:
the members of two tuples, or of two sets; one answer is a tuple of one. If math-verify is not installed it writes
`{"ready": false, "why": ...}` and ends. It imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from functools import lru_cache
from typing import Any

EXACT_DIGITS = 15
"""Digits to which decimals must agree to count as equal: an approximation is not the exact value."""
DIGITS = 30
"""Digits of two values that are computed to see that they differ: a relative difference of 1e-20 is then no rounding
error."""
POINT = (7393, 10007)
"""A value of the first symbol, as a fraction: not one where different expressions often meet."""
MAX_PARSED = 1024
"""Parses remembered: a gold answer is compared with one candidate after another, and parsing takes longest."""
ORPHAN_S = 60
"""Seconds on one comparison after which nobody waits for it any more: who asked would have killed this process."""


@lru_cache(MAX_PARSED)
def parsed(text: str) -> list[Any]:
    """What math-verify reads in a text: a sympy object and its source, or nothing."""
    from math_verify import parse

    # Its own timeouts are switched off: they need signals, and do not stop a big power anyway.
    found: list[Any] = parse(f"${text}$", parsing_timeout=None)
    return found


def compare_members(left: list[str], right: list[str], ordered: bool) -> bool:
    """Whether two tuples, or two sets, have the same members. May hang, as `compare`."""
    if ordered:
        return len(left) == len(right) and all(map(compare, left, right))
    return all(any(compare(one, other) for other in right) for one in left) and all(
        any(compare(one, other) for one in left) for other in right
    )


def compare(left: str, right: str) -> bool:
    """Whether math-verify takes two answers for the same. May hang: run it in a process that can be killed."""
    from math_verify import verify

    if left == right:
        return True
    one, other = parsed(left), parsed(right)
    if not one or not other or differ(one[0], other[0]):
        return False
    options: dict[str, Any] = {"float_rounding": EXACT_DIGITS, "numeric_precision": DIGITS, "timeout_seconds": None}
    return bool(verify(one, other, **options) or verify(other, one, **options))


def differ(one: Any, other: Any) -> bool:
    """Whether two parsed answers are expressions, or intervals of them, that are certainly not the same.

    Expressions are computed, at one point if they have symbols: those that differ there differ. That takes a tenth of
    the time, or a millionth, in which simplifying shows that a difference is not zero.
    """
    from sympy import Expr, Interval, Rational

    if isinstance(one, Interval) and isinstance(other, Interval):
        return differ(one.start, other.start) or differ(one.end, other.end)
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return False
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    point = {symbol: Rational(*POINT) + place for place, symbol in enumerate(symbols)}
    values = one.evalf(DIGITS, subs=point), other.evalf(DIGITS, subs=point)
    if not all(value.is_number and value.is_finite for value in values):
        return False
    # What is exactly zero may come out as a tiny number: the floor leaves it to those who simplify.
    return bool(abs(values[0] - values[1]) > 1e-20 * max(abs(values[0]), abs(values[1]), 1e-30))


def main() -> None:
    """Serve comparisons until standard input ends."""
    # Ctrl-C and a closed terminal reach every process of the group: who asks decides when this one ends.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Libraries may print: keep the real standard output for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)

    def reply(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        compare("\\sqrt{2}", "\\frac{x}{2}")  # pays for the imports before the clock of the first comparison runs
    except ImportError as error:
        reply({"ready": False, "why": str(error)})
        return
    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        # Without a handler the alarm ends the process, even in the middle of a big power.
        signal.alarm(ORPHAN_S)
        try:
            same = compare_members(request["left"], request["right"], request["ordered"])
        except Exception:
            # An expression that math-verify cannot handle equals nothing; the next one is asked all the same.
            same = False
        signal.alarm(0)
        reply({"same": same})


if __name__ == "__main__":
    main()
