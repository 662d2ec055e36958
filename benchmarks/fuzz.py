"""Inputs that nobody should give, at every door but the server's (serve_fuzz.py): any of them may be refused.

    python benchmarks/fuzz.py [--door NAME ...] [--cases 100000] [--seed 1] [--show 40] [--door NAME --case JSON]

The doors, and what is right at each, are in tests/helpers/fuzzing. They share the cases by how long one takes; each is
entered in a process of its own, so that one that crashes Python is found as well. Without --cases, rounds of other
seeds go on until ^C. Of each fault the shortest case is shown, with the command that repeats it; then a table; the last
line is JSON. The exit code is 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))
os.environ |= {"HF_HUB_OFFLINE": "1", "RSA_MODEL": "nano"}  # nothing of the network is needed or wanted

from fuzzing.core import AmissError, Door, fuzz, judged, opened  # noqa: E402
from fuzzing.doors.known import DOORS  # noqa: E402

MOST_BYTES = 8 << 30
"""Memory of a door's process: what reads without end must not take that of others."""
ROUND = 20_000
"""Cases of a round where there is no end to them."""
COLUMNS = ("door", "cases", "distinct", "right", "refused", "faults", "seconds")


def enter_one(door: type[Door], cases: int, seed: int, trying: Path) -> None:
    """Try the cases of a door; each fault and the tally go to standard output as JSON. `trying` holds the case that is
    being tried."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))

    def tell(error: AmissError) -> None:
        print(json.dumps({"sign": error.sign, "what": error.what, "case": error.case}), flush=True)

    with opened(door) as entered:
        tally = fuzz(
            entered, cases=cases, seed=seed, told=tell, before=lambda case: void(trying.write_text(json.dumps(case)))
        )
    print(json.dumps({"row": tally.row()}), flush=True)


def void(_: object) -> None:
    """Nothing, of something."""


def entered(door: type[Door], cases: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The faults of a door and its tally, from a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        trying, said = Path(name) / "case.json", Path(name) / "said"  # decoders written in C remark on what they read
        words = ["--door", door.name, "--cases", str(cases), "--seed", str(seed), "--trying", str(trying)]
        began = time.monotonic()
        with said.open("wb") as errors:
            command = [sys.executable, __file__, *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        faults = [each for each in told if "sign" in each]
        rows = [each["row"] for each in told if "row" in each]
        if rows:
            return faults, rows[0]
        case = json.loads(trying.read_text()) if trying.exists() else {}
        last = said.read_text(errors="replace")[-1500:]
        faults.append({"sign": "died", "what": f"Python ended with {done.returncode}: {last}", "case": case})
        row = {"door": door.name, "cases": 0, "distinct": 0, "outcomes": {}, "faults": {"died": 1}}
        return faults, {**row, "seconds": round(time.monotonic() - began, 1)}


def shares(doors: list[type[Door]], cases: int) -> dict[type[Door], int]:
    """How many cases each door gets."""
    whole = sum(door.share for door in doors)
    return {door: max(cases * door.share // whole, 1) for door in doors}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [COLUMNS]
    for row in rows:
        right = sum(number for word, number in row["outcomes"].items() if word != "refused")
        cells = {**row, "right": right, "refused": row["outcomes"].get("refused", 0)}
        cells["faults"] = ", ".join(f"{what} {number}" for what, number in row["faults"].items()) or "0"
        lines.append(tuple(str(cells[column]) for column in COLUMNS))
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def added(rows: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Add the tally of a further round."""
    there = next((row for row in rows if row["door"] == more["door"]), None)
    if there is None:
        rows.append(more)
        return
    for key in ("outcomes", "faults"):
        there[key] = dict(Counter(there[key]) + Counter(more[key]))
    for key in ("cases", "distinct", "seconds"):
        there[key] += more[key]


def repeat(door: type[Door], case: dict[str, Any]) -> int:
    """Try one case again, with its traceback."""
    with opened(door) as entered:
        try:
            print(judged(entered, case))
        except AmissError as error:
            if error.__cause__ is not None:
                raise
            print(error)
            return 1
    return 0


def main() -> int:
    known = {door.name: door for door in DOORS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", action="append", choices=known, help="this one alone; may be repeated")
    parser.add_argument("--cases", type=int, help="over all doors")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=40, help="faults that are printed")
    parser.add_argument("--case", type=json.loads, help="of the one door that is named: try it again")
    parser.add_argument("--trying", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    doors = [known[name] for name in asked.door or known]
    if asked.case is not None:
        return repeat(doors[0], asked.case)
    if asked.trying is not None:
        enter_one(doors[0], asked.cases, asked.seed, asked.trying)
        return 0
    rows: list[dict[str, Any]] = []
    signs: set[tuple[str, str]] = set()
    try:
        for seed in count(asked.seed) if asked.cases is None else (asked.seed,):
            for door, cases in shares(doors, asked.cases or ROUND).items():
                faults, row = entered(door, cases, seed)
                added(rows, row)
                for fault in faults:
                    if (door.name, fault["sign"]) not in signs and len(signs) < asked.show:
                        again = f"--door {door.name} --case {shlex.quote(json.dumps(fault['case']))}"
                        print(
                            f"{door.name}: {fault['sign']}\n  {fault['what']}\n  benchmarks/fuzz.py {again}", flush=True
                        )
                    signs.add((door.name, fault["sign"]))
                print(f"# {door.name}: {row['cases']} cases of seed {seed} in {row['seconds']} s", flush=True)
    except KeyboardInterrupt:
        print("# ended by ^C", flush=True)
    print(table(rows))
    total = {key: sum(row[key] for row in rows) for key in ("cases", "distinct")}
    well = not signs and bool(rows)
    host = {"python": platform.python_version(), "cpus": os.cpu_count(), "seed": asked.seed}
    doors_told = {row["door"]: {key: value for key, value in row.items() if key != "door"} for row in rows}
    print(json.dumps({**host, "well": well, **total, "faults": len(signs), "doors": doors_told}))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
