"""`rsa solve` and `rsa eval`, killed at random moments and gone on with: they must end as if nobody had killed them.

    python benchmarks/kills.py [--kills 50] [--most 4] [--seed 1] [--out FOLDER]

Each command runs once unbroken. Then it is started in a new folder, killed with SIGKILL, gone on with and killed again,
up to `--most` times, and at last left to end; until so many kills have met a living process. The moments are drawn from
a seed: four of five from where the process has logged something to where the whole would be done, one while it starts.
After each kill every whole line of every log must still stand where it stood before. At the end the answer, and the
result without its clocks, must be those of the unbroken run, of an evaluation results.json and candidates.jsonl to the
byte; and no candidate may stand in a log twice. The last line is JSON; the exit code is 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsa.events import CandidateFinished
from rsa.runlog import EVENTS, read_events, read_result

RSA = (sys.executable, "-m", "rsa")
SIZES = ("--n", "4", "--c", "2", "--t", "2", "--beta", "96", "--tau", "32", "--model", "nano", "--quiet")
PROBLEM = "Start at 4, add 19, multiply by 4, subtract 20, all modulo 97."
NEW: dict[str, tuple[str, ...]] = {
    "solve": ("solve", "problem.txt", *SIZES),
    "eval": ("eval", "countdown", "--limit", "4", "--no-report", *SIZES),
}
CLOCKS = {"at_s", "started_s", "finished_s", "wall_s", "started_at"}
WRITTEN = ("results.json", "candidates.jsonl")
LONGEST_S, POLL_S = 300.0, 0.01


@dataclass
class Tally:
    """What has happened to one command. `amiss`: in words, what should not have."""

    runs: int = 0
    kills: int = 0
    at_work: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    amiss: list[str] = field(default_factory=list)


def timeless(value: Any) -> Any:
    """A JSON value without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in CLOCKS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(command: str, folder: Path) -> Any:
    """What must not depend on how often it was killed."""
    if command == "eval":
        return [(folder / name).read_bytes() for name in WRITTEN]
    return timeless(read_result(folder).model_dump(mode="json"))


def logs(folder: Path) -> dict[Path, bytes]:
    """The whole lines of each log, of candidates that have ended."""
    found = {}
    for path in folder.rglob(EVENTS):
        data = path.read_bytes()
        found[path] = data[: data.rfind(b"\n") + 1]
    return found


def twice(folder: Path) -> list[str]:
    """Candidates that stand in a log more than once."""
    found = []
    for path in folder.rglob(EVENTS):
        ended = [event for event in read_events(path.parent) if isinstance(event, CandidateFinished)]
        counts = Counter((event.kind, event.candidate.round, event.candidate.index) for event in ended)
        found += [f"{path}: {key}" for key, count in counts.items() if count > 1]
    return found


def words(command: str, folder: Path) -> list[str]:
    """The command that begins in a folder, or goes on with what it holds."""
    begun = (folder / {"solve": "run.json", "eval": "eval.json"}[command]).exists()
    if begun:
        return [*RSA, command, "--resume", str(folder), "--quiet", *(["--no-report"] if command == "eval" else [])]
    shutil.rmtree(folder, ignore_errors=True)
    return [*RSA, *NEW[command], "--out", str(folder)]


@dataclass(frozen=True)
class Moment:
    """When to kill a process: so many seconds after it started, or after it logged something."""

    after_s: float
    at_work: bool


@dataclass
class Moments:
    """Moments from a generator. `start_s`: what a process takes to start; `work_s`: what all of the work takes."""

    draw: random.Random
    start_s: float
    work_s: float

    def next(self) -> Moment:
        at_work = self.draw.random() < 0.8
        return Moment(self.draw.uniform(0.0, self.work_s if at_work else self.start_s), at_work)


def run(command: str, folder: Path, moment: Moment | None) -> tuple[int, str, str]:
    """Exit code (-9: killed) and both outputs."""
    begun, before = words(command, folder), logs(folder)
    process = subprocess.Popen(begun, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while moment is not None and moment.at_work and process.poll() is None and logs(folder) == before:
        time.sleep(POLL_S)
    try:
        out, err = process.communicate(timeout=LONGEST_S if moment is None else moment.after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return process.returncode, out, err


def one_run(command: str, folder: Path, moments: Moments, kills: int, tally: Tally) -> str:
    """A run with at most so many kills; what it printed last."""
    tally.runs += 1
    killed = 0
    while True:
        before, moment = logs(folder), moments.next() if killed < kills else None
        code, out, err = run(command, folder, moment)
        after = logs(folder)
        for path, lines in before.items():
            if not after.get(path, b"").startswith(lines):
                tally.amiss.append(f"{path}: lines that stood there are gone")
        if code != -9 or moment is None:
            break
        killed, tally.kills = killed + 1, tally.kills + 1
        ended = sum(lines.count(b'"type":"candidate_finished"') for lines in after.values())
        tally.at_work["before anything was written" if not after else f"after {ended} candidates"] += 1
        tally.kept += ended
    if code != 0:
        tally.amiss.append(f"{folder}: exit code {code}: {err.strip()}")
    tally.amiss += twice(folder)
    return out


def measure(command: str, out: Path, *, kills: int, most: int, seed: int) -> Tally:
    """Kill a command so often, in runs of their own."""
    tally, whole = Tally(), out / f"{command}-whole"
    began = time.time()
    code, said, err = run(command, whole, None)
    if code != 0:
        raise SystemExit(f"the unbroken run failed: {err}")
    first = min(path.stat().st_mtime for path in whole.rglob("run.json"))
    moments = Moments(random.Random(f"{seed} {command}"), first - began, time.time() - first)
    expected = outcome(command, whole)
    while tally.kills < kills:
        folder = out / f"{command}-{tally.runs}"
        printed = one_run(command, folder, moments, min(most, kills - tally.kills), tally)
        if printed != said:
            tally.amiss.append(f"{folder}: printed {printed!r}, not {said!r}")
        if outcome(command, folder) != expected:
            tally.amiss.append(f"{folder}: it ended otherwise than the unbroken run")
        print(f"{command}: {tally.kills} kills in {tally.runs} runs", file=sys.stderr, flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--most", type=int, default=4, help="of one run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = (args.out or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "problem.txt").write_text(PROBLEM)
    how = {"kills": args.kills, "most": args.most, "seed": args.seed}
    tallies = {command: measure(command, out, **how) for command in NEW}
    amiss = [fault for tally in tallies.values() for fault in tally.amiss]
    facts = {
        command: {"runs": tally.runs, "kills": tally.kills, "candidates kept": tally.kept, "met": dict(tally.at_work)}
        for command, tally in tallies.items()
    }
    print(json.dumps({"benchmark": "kills", **facts, "amiss": amiss, "machine": platform.machine()}))
    sys.exit(bool(amiss))


if __name__ == "__main__":
    main()
