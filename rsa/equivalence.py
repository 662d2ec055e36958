"""Which answers mean the same: for votes and consensus.

In this order: equal after tidying; exact values of plain arithmetic (`rsa.arithmetic`); static limits, beyond
which only equal strings count; math-verify in a process of its own that is killed when it hangs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from rsa.answers import AnswerRule
from rsa.arithmetic import exact_value, join_digit_groups

TIMEOUT_S = 5.0
"""One comparison; sound ones take milliseconds, the slowest of 135 measured cases 0.5 s."""
START_TIMEOUT_S = 60.0
"""Until the worker has imported math-verify; seconds on a busy machine."""
MAX_LINE_BYTES = 65_536
_BREAKDOWNS = (
    *(OSError, ValueError, KeyError),
    *(anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.ClosedResourceError),
)
"""What a worker that dies or talks nonsense looks like from here."""
MAX_HANGS = 3
"""Per run. Answers that make the worker hang come in groups; after this many only equal strings count."""

MAX_LENGTH = 2048
MAX_NESTING = 32
MAX_DIGIT_RUN = 256
MAX_EXPONENT = 100_000
MAX_FACTORIAL = 10_000
_TOO_HARD = re.compile(r"\\(?:int|oint|iint|sum|prod|lim)(?![a-zA-Z])|\^\s*\{[^{}]*\^|\^\s*\w+\s*\^|!\s*[)}\]]*\s*!")
_EXPONENT = re.compile(r"\^\s*\{?\s*[+-]?\s*(\d+)")
_FACTORIAL = re.compile(r"(\d+)\s*\}?\)?\s*!")
_WRAPPER = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})(?![\w.])")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![a-zA-Z])|\\ |~")


def tidy(answer: str) -> str:
    """An answer without what does not change its meaning: `$`, `\\text`, spacing, digit groups, a last period."""
    text = join_digit_groups(answer.strip())
    text = _WRAPPER.sub(r"\1", text)
    text = _LAYOUT.sub(" ", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.strip().strip("$").strip()
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    if text.count("\\pm") == 1:
        text = ", ".join(text.replace("\\pm", sign) for sign in "+-")
    return re.sub(r"\s+", " ", text).rstrip(".").strip()


def too_hard(text: str) -> bool:
    """Whether a comparison of this could take very long; decided from its looks alone."""
    if re.search(rf"\d{{{MAX_DIGIT_RUN + 1}}}", text) or _TOO_HARD.search(text):
        return True
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    return (
        deepest > MAX_NESTING
        or any(int(digits) > MAX_EXPONENT for digits in _EXPONENT.findall(text))
        or any(int(digits) > MAX_FACTORIAL for digits in _FACTORIAL.findall(text))
    )


def _shape(text: str) -> str:
    """What kind of thing an answer is: the outer brackets around a list, and signs that change its value."""
    brackets = text[0] + text[-1] if len(text) > 1 and "," in text else ""
    if "," in text and not text.startswith(("(", "[", "{", "\\{", "\\langle")):
        brackets = "{}"  # a list without brackets is the set of its members
    if text.startswith("\\{") and text.endswith("\\}"):
        brackets = "{}"
    pair = brackets if brackets in ("()", "[]", "(]", "[)", "{}") else ""
    return pair + ("%" if "%" in text else "") + ("." if _is_decimal(text) else "")


def _is_decimal(text: str) -> bool:
    """A plain decimal fraction: exact value known, so only an equal exact value can equal it."""
    return re.fullmatch(r"[+-]?\s*\d*\.\d+", text) is not None


def quick_verdict(left: str, right: str, rule: AnswerRule = "boxed") -> bool | None:
    """Whether two answers are the same, as far as that is certain at once; None: only math-verify can tell.

    Answers that are not mathematical (choice, code, text) are the same only if their texts are.
    """
    if rule != "boxed":
        return " ".join(left.split()) == " ".join(right.split())
    if max(len(left), len(right)) > MAX_LENGTH:
        return left.strip() == right.strip()
    one, other = tidy(left), tidy(right)
    if one.replace(" ", "") == other.replace(" ", ""):
        return True
    values = exact_value(one), exact_value(other)
    if None not in values:
        return values[0] == values[1]
    impossible = too_hard(one) or too_hard(other) or _shape(one) != _shape(other)
    return False if impossible else None


class AnswerMatcher:
    """Groups equivalent answers. Use within `async with`: leaving it ends the worker process, if one runs.

    `problems` says, once each, what it could not do: math-verify missing, or a comparison that hung.
    """

    def __init__(
        self, rule: AnswerRule = "boxed", *, timeout_s: float = TIMEOUT_S, command: Sequence[str] | None = None
    ) -> None:
        self.rule = rule
        self.problems: list[str] = []
        self._timeout_s = timeout_s
        self._command = command or [sys.executable, "-P", "-m", "rsa.math_worker"]
        self._worker: Process | None = None
        self._replies: BufferedByteReceiveStream | None = None
        self._usable = True
        self._hangs = 0
        self._lock = anyio.Lock()
        self._known: dict[tuple[str, str], bool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._kill()

    async def same(self, left: str, right: str) -> bool:
        """Whether two answers mean the same. Never raises for an answer, however odd; in doubt False."""
        verdict = quick_verdict(left, right, self.rule)
        if verdict is not None:
            return verdict
        key = (left, right)
        async with self._lock:
            if key not in self._known:
                self._known[key] = await self._ask({"left": tidy(left), "right": tidy(right)})
            return self._known[key]

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Indices of equivalent answers, None left out; larger groups first, ties to the earliest member."""
        groups: list[list[int]] = []
        for index, answer in enumerate(answers):
            if answer is None:
                continue
            for group in groups:
                if await self.same(str(answers[group[0]]), answer):
                    group.append(index)
                    break
            else:
                groups.append([index])
        return sorted((tuple(group) for group in groups), key=lambda group: (-len(group), group[0]))

    async def _ask(self, request: dict[str, str]) -> bool:
        if not self._usable:
            return False
        try:
            replies = await self._start()
            if replies is None:
                return False
            with anyio.fail_after(self._timeout_s):
                assert self._worker is not None
                assert self._worker.stdin is not None
                await self._worker.stdin.send(json.dumps(request).encode() + b"\n")
                return bool((await self._read(replies))["same"])
        except TimeoutError:
            self._hangs += 1
            self._note("an answer took too long to compare; it counts as different from others")
            await self._kill()
        except _BREAKDOWNS as error:
            self._hangs += 1
            self._note(f"the process that compares answers broke down ({type(error).__name__})")
            await self._kill()
        except BaseException:
            # Cancelled in the middle of a question: its reply must not be taken for the next one's.
            await self._kill()
            raise
        self._usable = self._hangs < MAX_HANGS
        return False

    async def _start(self) -> BufferedByteReceiveStream | None:
        if self._replies is not None:
            return self._replies
        self._worker = await anyio.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
        assert self._worker.stdout is not None
        self._replies = BufferedByteReceiveStream(self._worker.stdout)
        with anyio.fail_after(START_TIMEOUT_S):
            hello = await self._read(self._replies)
        if not hello["ready"]:
            self._note(f"math-verify cannot be used ({hello['why']}): only equal texts and numbers agree")
            self._usable = False
            await self._kill()
        return self._replies

    @staticmethod
    async def _read(replies: BufferedByteReceiveStream) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(await replies.receive_until(b"\n", MAX_LINE_BYTES))
        return reply

    async def _kill(self) -> None:
        worker, self._worker, self._replies = self._worker, None, None
        if worker is None:
            return
        with anyio.CancelScope(shield=True):
            if worker.returncode is None:
                worker.kill()
            await worker.aclose()

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _environment() -> dict[str, str]:
    """Ours, with the folder of this package first: the worker finds `rsa` also from a checkout, and finds no
    other package of that name."""
    here = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}
