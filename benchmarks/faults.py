"""An evaluation on two servers that keep failing: nothing may crash, come twice, or fail without a name.

    python benchmarks/faults.py [--faults 20000] [--rate 0.4] [--out FOLDER]

Two stub servers, each a process, spoil many of their answers in fifteen ways, until so many faults were injected. Then
the run folders are read: every candidate is there once; there are as many failures in the records of candidates as
there were requests beyond one for each; and the faults that replace an answer stand there one by one, in words by which
their kind is known. (Those within a stream may come after the client has all that it wants.) The last line is JSON; the
exit code is 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import anyio
import httpx2
from stub_server.faults import KINDS
from stub_server.running import started

from engine.openai.opening import open_openai
from evals import Benchmark, Question, evaluate
from rsa.events import CandidateFinished
from rsa.results import Candidate
from rsa.runlog import read_events

SETTINGS: dict[str, Any] = {"n": 16, "c": 2, "t": 1, "beta": 200, "tau": 16, "answer_budget": 24}
"""No reasoning of the stub is so long as beta: a request is all that a candidate needs, where nothing fails."""
PART = 40
"""Questions of one evaluation; there are as many evaluations as it takes."""
TIMEOUT_S = 2.0
UNCONNECTED = "no connection"
KNOWN_BY = {
    "silence or stall": r"said nothing for",
    "reset": r"without sending a response",
    "429": r"answered 429",
    "500": r"answered 500",
    "503": r"answered 503",
    "html": r"no JSON: <html>",
    "empty": r"no JSON: $",
    "cut": r"broke \(peer closed connection",
    "malformed": r"no JSON: \{",
    "error": r"broke off \(500",
    UNCONNECTED: r"cannot connect|does not answer within",
}
"""How the record of a candidate names what it met; last what no server hears of, where a busy machine connects late.
The other kinds do no harm: the client stops at its budgets, and needs no other end."""
REPLACING = ("reset", "429", "500", "503", "html", "empty")
"""Faults instead of an answer: each is met."""


def problems(first: int) -> Benchmark:
    """A few questions that no other part asks."""
    asked = [
        Question(id=f"problem-{number}", problem=f"What is {number} modulo 10?", gold=number % 10)
        for number in range(first, first + PART)
    ]
    return Benchmark(name="modulo", metric="integer", questions=lambda: iter(asked))


def seen(*urls: str) -> tuple[Counter[str], int]:
    """What the servers have spoiled, by kind, and how many completions they were asked for."""
    counts, asked = Counter[str](), 0
    for url in urls:
        told = httpx2.get(f"{url.removesuffix('v1')}stub", verify=False).json()
        counts.update(told["injected"])
        asked += told["asked"]
    return counts, asked


def candidates(out: Path) -> Iterator[tuple[Path, list[Candidate]]]:
    """Of each run folder, all that its log holds."""
    for log in sorted(out.rglob("events.jsonl")):
        yield log.parent, [event.candidate for event in read_events(log.parent) if isinstance(event, CandidateFinished)]


def check(out: Path, counts: Counter[str], requests: int) -> dict[str, Any]:
    """What the run folders say, and what is amiss."""
    ends, twice, missing, unnamed = Counter[str](), 0, 0, 0
    errors: list[str] = []
    for _, found in candidates(out):
        keys = Counter((each.round, each.index) for each in found)
        twice += sum(count - 1 for count in keys.values())
        missing += SETTINGS["n"] * len({each.round for each in found}) - len(keys)
        for each in found:
            ends[each.status] += 1
            met = each.completion.interruptions if each.completion else each.interruptions
            errors += [interruption.error for interruption in met]
            unnamed += each.status == "failed" and not each.error
    named = {kind: sum(bool(re.search(pattern, error)) for error in errors) for kind, pattern in KNOWN_BY.items()}
    return {
        "injected": counts.total(),
        "candidates": dict(ends),
        "requests": requests,
        "failures recorded": len(errors),
        "failures not recorded": requests - ends.total() - (len(errors) - named[UNCONNECTED]),
        "twice": twice,
        "missing": missing,
        "without a word": unnamed + len(errors) - sum(named.values()),
        "not named": {kind: counts[kind] - named[kind] for kind in REPLACING if named[kind] != counts[kind]},
        "injected by kind": dict(counts),
        "recorded by kind": named,
    }


async def run(faults: int, rate: float, out: Path) -> tuple[Counter[str], int]:
    """Evaluate until so many faults were injected; what they were, and the requests of all candidates."""
    words = ("--spare", 30, "--rate", rate, "--kinds", *KINDS)  # an engine opens on servers that are well
    with started(*words, "--seed", 1) as url, started(*words, "--seed", 2) as other:
        options: dict[str, Any] = {
            "base_url": [url, other],
            "backoff_s": 0.01,
            "timeout_s": TIMEOUT_S,
            "max_retries": 12,
        }
        engine = await anyio.to_thread.run_sync(partial(open_openai, "tiny", **options))
        (counts, to_open), first = seen(url, other), 0
        while counts.total() < faults:
            await evaluate(problems(first), engine, out=out / str(first), **SETTINGS)
            first += PART
            counts, asked = seen(url, other)
            print(f"{counts.total():,} faults", file=sys.stderr, flush=True)
        await engine.aclose()
        return counts, asked - to_open


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=0.4)
    parser.add_argument("--out", type=Path, help="where the results folder is kept (default: nowhere)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "out"
        began = time.perf_counter()
        counts, requests = anyio.run(run, options.faults, options.rate, out)
        told = check(out, counts, requests)
    told |= {"wall_s": time.perf_counter() - began, "load": os.getloadavg()[0]}
    print(json.dumps({"benchmark": "faults", **told, "machine": platform.machine(), "system": platform.system()}))
    amiss = ("failures not recorded", "twice", "missing", "without a word", "not named")
    raise SystemExit(1 if any(told[name] for name in amiss) else 0)


if __name__ == "__main__":
    main()
