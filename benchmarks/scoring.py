"""Answers scored a second by the math metric, as `rsa score` does it.

    python benchmarks/scoring.py [--pairs 10000]

The pairs are made from a seed: integers, fractions, surds, multiples of pi, tuples, intervals, sets and polynomials; in
half of them the candidate wrote the gold answer in another way, in the others something else. All of them are
different, so that nothing is remembered from one pair to the next but what a run of real answers would share: gold
answers that come back, eight candidates each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import anyio
from common import report

from evals.score_file import FileScores, score_file

CANDIDATES = 8
Answers = tuple[str, str, str]
"""A gold answer, the same in other words, and something else."""


def integer(rng: Random) -> Answers:
    n = rng.randrange(1000)
    return (
        str(n),
        rng.choice([f"{n:03}", f"{n}.0", f"{n - 7}+7", f"m+n={n}", rf"{n}^\circ"]),
        str(n + rng.randint(1, 99)),
    )


def fraction(rng: Random) -> Answers:
    a, b, k = rng.randint(1, 99), rng.randint(2, 99), rng.randint(2, 9)
    return (
        rf"\frac{{{a}}}{{{b}}}",
        rng.choice([rf"\dfrac{{{k * a}}}{{{k * b}}}", f"{a}/{b}"]),
        rf"\frac{{{a + 1}}}{{{b}}}",
    )


def surd(rng: Random) -> Answers:
    a, b, c = rng.randint(1, 50), rng.randint(2, 20), rng.choice([2, 3, 5, 6, 7, 10, 11, 13])
    return rf"{a}+{b}\sqrt{{{c}}}", rf"\sqrt{{{b * b * c}}}+{a}", rf"{a}+{b + 1}\sqrt{{{c}}}"


def rationalised(rng: Random) -> Answers:
    a, c = rng.randint(1, 90), rng.choice([2, 3, 5, 7, 11, 13, 17, 19, 23])
    return rf"\frac{{{a}\sqrt{{{c}}}}}{{{c}}}", rf"\frac{{{a}}}{{\sqrt{{{c}}}}}", rf"\frac{{{a}}}{{\sqrt{{{c + 1}}}}}"


def angle(rng: Random) -> Answers:
    a, b = rng.randint(1, 40), rng.randint(2, 40)
    return rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}}\pi", rf"\frac{{{a}\pi}}{{{b + 1}}}"


def pair(rng: Random) -> Answers:
    a, b, c = rng.randint(-20, 20), rng.randint(1, 20), rng.choice([2, 3, 5, 7])
    return rf"({a}, {b}\sqrt{{{c}}})", rf"({a}, \sqrt{{{b * b * c}}})", rf"({b}\sqrt{{{c}}}, {a})"


def interval(rng: Random) -> Answers:
    a, b = rng.randint(-50, 0), rng.randint(1, 50)
    return f"[{a}, {b})", rf"\left[{a}, \frac{{{2 * b}}}{{2}}\right)", f"({a}, {b}]"


def roots(rng: Random) -> Answers:
    a, b, c = rng.randint(-20, 20), rng.choice([2, 3, 5, 7, 11, 13]), rng.randint(2, 9)
    plus, minus = rf"\frac{{{a}+\sqrt{{{b}}}}}{{{c}}}", rf"\frac{{{a}-\sqrt{{{b}}}}}{{{c}}}"
    return f"{plus}, {minus}", rf"\left\{{{minus}, {plus}\right\}}", plus


def polynomial(rng: Random) -> Answers:
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    return f"x^2-{a * a}", f"(x-{a})(x+{a})", f"x^2-{a * a + b}"


KINDS: tuple[tuple[Callable[[Random], Answers], int], ...] = (
    (integer, 40), (fraction, 16), (surd, 12), (rationalised, 6), (angle, 8), (pair, 6), (interval, 6), (roots, 3),
    (polynomial, 3),
)  # fmt: skip
"""The kinds of golds with their shares in percent: about those of a contest set and its sister sets."""


def made(count: int, seed: int) -> list[dict[str, str]]:
    """Lines for `rsa score`; ids end in the value expected."""
    rng = Random(seed)
    makers, shares = zip(*KINDS, strict=True)
    lines: list[dict[str, str]] = []
    while len(lines) < count:
        gold, same, other = rng.choices(makers, shares)[0](rng)
        for _ in range(min(CANDIDATES, count - len(lines))):
            right = rng.random() < 0.5
            answer = rng.choice([same, gold]) if right else other
            text = f"<think>{'Let me see. ' * 40}</think>So the answer is $\\boxed{{{answer}}}$."
            lines.append({"id": f"{len(lines)}-{int(right)}", "gold": gold, "candidate": text})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    written: list[str] = []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "answers.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in made(args.pairs, args.seed)))
        started = time.perf_counter()
        summary: FileScores = anyio.run(score_file, file, "math", written.append)
        seconds = time.perf_counter() - started
    results = [json.loads(line) for line in written]
    wrong = [line["id"] for line in results if line["value"] != float(line["id"][-1])]
    row = {
        "pairs": summary.n,
        "seconds": seconds,
        "pairs/s": summary.n / seconds,
        "too_hard": summary.statuses.get("too_hard", 0),
        "unexpected": len(wrong),
    }
    report("scoring", [row])


if __name__ == "__main__":
    main()
