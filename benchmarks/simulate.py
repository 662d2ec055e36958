"""Stories of the controller: what may happen happens in any order, and every invariant is checked.

    python benchmarks/simulate.py [--runs 100000] [--seed 0] [--backend asyncio|trio]
    python benchmarks/simulate.py --story 0,3,0,5

A story is a list of small numbers (tests/helpers/simulation): settings, texts and faults of a model, which candidate
writes, fails or hangs, how much time passes on a clock of its own, when a reader leaves, the engine dies, the process
ends, and where its log is cut off before the next process goes on. Story `i` of seed `s` is the same on every machine.
One that breaks an invariant is told by as few and as small numbers as still do; `--story` tells it again.
The last line is JSON; the exit code is 1 if an invariant was broken.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from simulation.choices import Choices
from simulation.searching import complaint, in_words, judged

MOST_TOLD = 5
"""Broken stories that are told; more are counted."""


def tell(numbers: list[int], backend: str) -> bool:
    """Print a story; whether all is well."""
    story, broken = judged(Choices(numbers), backend)
    print("\n".join(in_words(story) if story is not None else []))
    print(broken or "all is well")
    return broken is None


def search(runs: int, seed: int, backend: str) -> bool:
    """Play so many stories, fewer if Ctrl-C comes; whether all is well."""
    ends, broken, began, spent = Counter[str](), Counter[str](), time.perf_counter(), time.process_time()
    stories = 0
    with suppress(KeyboardInterrupt):
        for number in range(runs):
            choices = Choices(seed=f"{seed} {number}")
            story, found = judged(choices, backend)
            if found is not None:
                broken[found.rule] += 1
                if broken.total() <= MOST_TOLD:
                    print(complaint(found, choices.made, backend), flush=True)
            if story is not None:
                ends.update(process.ended for telling in story.tellings for process in telling.processes)
            stories = number + 1
            if stories % 5000 == 0:
                print(f"{stories:,} stories, {broken.total()} broken", file=sys.stderr, flush=True)
    facts = {
        "benchmark": "simulate", "backend": backend, "seed": seed, "stories": stories, "processes": dict(ends),
        "broken": dict(broken), "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - spent,
        "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip
    print(json.dumps(facts))
    return not broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--story", help="the numbers of one story, with commas between them")
    args = parser.parse_args()
    if args.story is not None:
        well = tell([int(number) for number in args.story.split(",") if number], args.backend)
    else:
        well = search(args.runs, args.seed, args.backend)
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
