"""Measures nano with `rsa eval` and `rsa compare`, and writes the tables and plots of its README.

    python -m examples.nano.figures --out runs/nano [--limit 500] [--points 100] [--jobs 1] [--only chain] [--dry-run]

Every figure is one `rsa eval`, whose command is printed and whose folder stays; what is there already is not run again,
and what was interrupted goes on. `--jobs` runs several at once, the most expensive first; with NANO_GPUS=4 in the
environment they take turns on four GPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import queue
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evals import EvalResults, compare, read_results
from evals.stats import Estimate
from rsa.errors import RSAError

N, C, TAU, ANSWER_BUDGET = 16, 4, 64, 64


@dataclass(frozen=True)
class Task:
    """A benchmark and how it is put: `beta` tokens of reasoning, `t` rounds of aggregation; `sweep_t` in the plots."""

    name: str
    beta: int
    t: int
    sweep_t: int


TASKS = (Task("countdown", 64, 2, 2), Task("chain", 128, 8, 4), Task("sums", 128, 4, 4))
SWEEPS: dict[str, tuple[int, ...]] = {
    "c": (1, 2, 3, 4, 8),
    "n": (4, 8, 16, 32),
    "tau": (32, 64, 128),
    "beta": (48, 64, 96, 128, 192),
}
"""The values of each setting in the plots; those that the table has too are taken from there."""


@dataclass(frozen=True)
class Measurement:
    """One `rsa eval`."""

    task: Task
    label: str
    method: str
    limit: int
    settings: dict[str, int] = field(default_factory=dict)
    benchmark: str = ""

    @property
    def folder(self) -> str:
        return f"{self.task.name}-{self.label}"

    @property
    def all_settings(self) -> dict[str, int]:
        settings = {"n": N, "beta": self.task.beta, "tau": TAU, "answer-budget": ANSWER_BUDGET, **self.settings}
        return {**settings, "tau": min(settings["tau"], settings["beta"])}

    @property
    def cost(self) -> int:
        """The most tokens of reasoning."""
        settings = self.all_settings
        return self.limit * settings["n"] * settings["beta"] * (settings.get("t", 0) + 1)

    def command(self, out: Path) -> list[str]:
        """As typed in a shell, in the project's folder; to go on, if it was begun."""
        if (out / self.folder / "eval.json").exists():
            return ["rsa", "eval", "--resume", str(out / self.folder)]
        flags = [word for name, value in self.all_settings.items() for word in (f"--{name}", str(value))]
        words = ["rsa", "eval", self.benchmark or self.task.name, "--model", "nano", "--method", self.method]
        return [*words, "--limit", str(self.limit), *flags, "--out", str(out / self.folder)]


def table_rows(task: Task, limit: int) -> Iterator[Measurement]:
    """The lines of the task's table, but for `equal_vote`."""
    yield Measurement(task, "single", "single", limit)
    yield Measurement(task, "long", "single", limit, {"beta": (task.t + 1) * task.beta})
    yield Measurement(task, "markovian", "markovian", limit, {"t": task.t})
    yield Measurement(task, "full", "full-rsa", limit, {"t": task.t, "c": C})
    yield Measurement(task, "rsa", "rsa", limit, {"t": task.t, "c": C})
    unseen = f"examples/nano/unseen/{task.name}.toml"
    yield Measurement(task, "unseen", "rsa", limit, {"t": task.t, "c": C}, unseen)


def equal_vote(task: Task, limit: int, out: Path) -> Measurement:
    """A vote over as many rollouts as cost what Markovian RSA costs, or a little more."""
    rsa, single = (read_results(out / f"{task.name}-{label}").rounds[-1].tokens for label in ("rsa", "single"))
    return Measurement(task, "vote", "vote", limit, {"n": math.ceil(N * rsa / single)})


def points(task: Task, limit: int) -> Iterator[Measurement]:
    """The points of the plots that the table does not have, one setting changed at a time."""
    usual = {"c": C, "n": N, "tau": TAU, "beta": task.beta}
    for name, value in _swept(task):
        if value != usual[name]:
            yield Measurement(task, f"{name}{value}", "rsa", limit, {"t": task.sweep_t, "c": C, name: value})


def _swept(task: Task) -> Iterator[tuple[str, int]]:
    """Settings and their values in the plots; a tail is no longer than what it is the tail of."""
    for name, values in SWEEPS.items():
        yield from ((name, value) for value in values if name != "tau" or value <= task.beta)


# ---------------------------------------------------------------- running


def run(measurements: Iterable[Measurement], out: Path, jobs: int, dry: bool, extra: Sequence[str] = ()) -> None:
    """Run what is not finished, `jobs` at once, with `extra` words in each command that change no result.

    Raises RuntimeError if one fails, after the others, or if one was finished with another number of problems.
    """
    waiting: queue.SimpleQueue[Measurement] = queue.SimpleQueue()
    for measurement in sorted(_unfinished(measurements, out), key=lambda m: m.cost, reverse=True):
        waiting.put(measurement)
    failed: list[str] = []

    def work(job: int) -> None:
        while True:
            try:
                measurement = waiting.get_nowait()
            except queue.Empty:
                return
            command = [*measurement.command(out), *extra]
            if not _succeeds(command, job, dry):
                failed.append(measurement.folder)

    threads = [threading.Thread(target=work, args=(job,)) for job in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # what runs was interrupted with us, and can go on; nothing more may begin
        _empty(waiting)
        raise
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}; start this again to go on")


def _empty(waiting: queue.SimpleQueue[Measurement]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()


def _unfinished(measurements: Iterable[Measurement], out: Path) -> Iterator[Measurement]:
    for measurement in measurements:
        folder = out / measurement.folder
        if not (folder / "results.json").exists():
            yield measurement
        elif (found := read_results(folder).data.selected) != measurement.limit:
            raise RuntimeError(f"{folder} has {found} problems, not {measurement.limit}: use another --out")


def _succeeds(command: list[str], job: int, dry: bool) -> bool:
    """Say a command and, unless `dry`, run it."""
    if dry:
        print(shlex.join(command), flush=True)
        return True
    devices = int(os.environ.get("NANO_GPUS", "0"))
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": str(job % devices)} if devices else {})}
    words = [sys.executable, "-m", *command, "--no-report", "--quiet"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as process:
        print(shlex.join(command), flush=True)  # not before it can be interrupted with us
    return process.returncode == 0


# ---------------------------------------------------------------- tables


def percent(found: Estimate) -> str:
    """`37.4 ± 2.1`: a mean and its margin of 95%, which there is none of where all problems score alike."""
    if found.value is None:
        return "-"
    margin = f" ± {100 * found.margin:.1f}" if found.margin else ""
    return f"{100 * found.value:.1f}{margin}"


def table(task: Task, out: Path) -> str:
    """The task's table in Markdown; tokens are those of a problem."""
    found = {label: read_results(out / f"{task.name}-{label}") for label in LABELS}
    lines = [
        "| method | mean of candidates | majority vote | pass@N | tokens generated | and read | longest prompt |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, words in LABELS.items():
        results = found[label]
        lines.append(_line(_words(words, task, results.config.n), results))
    return "\n".join(lines)


LABELS = {
    "single": "single rollouts of {beta} tokens, 16 of them",
    "vote": "the same, {n} of them: Markovian RSA generates as many tokens",
    "long": "single rollouts of (T + 1) β = {long} tokens, 16 of them",
    "markovian": "Markovian, C = 1, T = {t}",
    "full": "whole traces carried, T = {t}",
    "rsa": "**Markovian RSA**, C = 4, T = {t}",
    "unseen": "the same, wordings never trained on",
}
RIVALS = tuple(label for label in LABELS if label not in ("rsa", "unseen"))
"""The lines that Markovian RSA is compared with, on the same problems."""


def _words(template: str, task: Task, n: int) -> str:
    return template.format(t=task.t, beta=task.beta, long=(task.t + 1) * task.beta, n=n)


def _line(words: str, results: EvalResults) -> str:
    last = results.rounds[-1]
    best = percent(last.best_of[results.config.n])
    read = results.usage.prompt_tokens / (results.data.selected * results.epochs)
    prompt = max(each.longest_prompt for each in results.rounds)
    figures = f"{percent(last.mean)} | {percent(last.vote)} | {best} | {last.tokens:,.0f} | {read:,.0f} | {prompt:,}"
    return f"| {words} | {figures} |"


def by_round(task: Task, out: Path) -> str:
    """Markovian RSA round by round."""
    rounds = read_results(out / f"{task.name}-rsa").rounds
    lines = ["| round | mean | vote | longest prompt | tokens so far |", "|---|---|---|---|---|"]
    for r in rounds:
        lines.append(f"| {r.round} | {percent(r.mean)} | {percent(r.vote)} | {r.longest_prompt} | {r.tokens:,.0f} |")
    return "\n".join(lines)


def gains(task: Task, out: Path) -> str:
    """Paired differences of Markovian RSA from the others: of what the table is about, and of the votes."""
    lines = ["| Markovian RSA against | its candidates' mean | its vote against theirs |", "|---|---|---|"]
    for label in RIVALS:
        words = _words("that majority vote" if label == "vote" else LABELS[label], task, N)
        found = compare(out / f"{task.name}-{label}", out / f"{task.name}-rsa")
        lines.append(f"| {words} | {signed(found.headline.difference)} | {signed(found.vote.difference)} |")
    return "\n".join(lines)


def signed(found: Estimate) -> str:
    """`+54.9 ± 2.5`: a difference in points."""
    return percent(found) if found.value is None or found.value < 0 else f"+{percent(found)}"


# ---------------------------------------------------------------- plots


@dataclass(frozen=True)
class Point:
    """Of a plot: a setting's value, the mean of the last round's candidates, and all tokens a problem."""

    value: int
    mean: Estimate
    tokens: float


def series(task: Task, out: Path) -> dict[str, list[Point]]:
    """The points of the plots, by setting."""
    rounds = read_results(out / f"{task.name}-rsa").rounds
    found = {"t": [Point(r.round, r.mean, r.tokens) for r in rounds]}
    measured = {m.folder for m in points(task, 1)}
    for name, value in _swept(task):
        folder = f"{task.name}-{name}{value}"
        last = read_results(out / folder).rounds[-1] if folder in measured else rounds[task.sweep_t]
        found.setdefault(name, []).append(Point(value, last.mean, last.tokens))
    return found


def plot(task: Task, out: Path, file: Path) -> None:
    """Accuracy with 95% intervals, and tokens, against T, C, N, tau and beta, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "nano", "font.size": 9})
    from matplotlib.figure import Figure

    shown = series(task, out)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex="col", sharey="row", height_ratios=[2, 1])
    for (above, below), (name, found) in zip(axes.T, shown.items(), strict=True):
        known = [p for p in found if p.mean.value is not None]
        means = [100 * (p.mean.value or 0) for p in known]
        margins = [100 * (p.mean.margin or 0) for p in known]
        reach = [[min(mean, margin), min(100 - mean, margin)] for mean, margin in zip(means, margins, strict=True)]
        above.errorbar(
            [p.value for p in known], means, yerr=list(zip(*reach, strict=True)), marker="o", markersize=3, capsize=2
        )
        below.plot([p.value for p in found], [p.tokens / 1000 for p in found], marker="o", markersize=3, color="grey")
        below.set_xlabel({"tau": "τ", "beta": "β"}.get(name, name.upper()))
        below.set_xticks([p.value for p in found])
        above.set_ylim(0, 105)
        for each in (above, below):
            each.grid(alpha=0.3)
    axes[1][0].set_ylim(0, 1.08 * max(p.tokens / 1000 for found in shown.values() for p in found))
    axes[0][0].set_ylabel("right, %")
    axes[1][0].set_ylabel("1,000 tokens")
    figure.suptitle(f"{task.name}: mean of the last round's candidates, and tokens a problem", fontsize=10)
    figure.savefig(file, metadata={"Date": None})


def _commands_that_follow(task: Task, limit: int, out: Path) -> Iterator[str]:
    """What is run once `table_rows` are there: ROLLOUTS follow from their tokens, see `equal_vote`."""
    vote = shlex.join(Measurement(task, "vote", "vote", limit, {"n": 0}).command(out))
    yield vote.replace("--n 0", "--n ROLLOUTS")
    for label in RIVALS:
        yield shlex.join(["rsa", "compare", str(out / f"{task.name}-{label}"), str(out / f"{task.name}-rsa")])


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} should be a number from 1 on")
    return int(text)


def main() -> None:
    """Run, then print the tables and write the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument("--limit", type=_count, default=500, help="problems of a line in the tables")
    parser.add_argument("--points", type=_count, default=100, help="problems of a point in the plots")
    parser.add_argument("--jobs", type=_count, default=1, help="evaluations at once")
    parser.add_argument("--in-flight", type=_count, help="problems at once in each job")
    parser.add_argument("--only", choices=[task.name for task in TASKS])
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    args = parser.parse_args()
    tasks = [task for task in TASKS if args.only in (None, task.name)]
    extra = ["--in-flight", str(args.in_flight)] if args.in_flight else []
    measurements = [m for task in tasks for m in (*table_rows(task, args.limit), *points(task, args.points))]
    run(measurements, args.out, args.jobs, args.dry_run, extra)
    if args.dry_run:
        for task in tasks:
            print(*_commands_that_follow(task, args.limit, args.out), sep="\n")
        return
    run([equal_vote(task, args.limit, args.out) for task in tasks], args.out, args.jobs, dry=False, extra=extra)
    for task in tasks:
        print(f"\n### {task.name}\n\n{table(task, args.out)}\n\n{by_round(task, args.out)}\n\n{gains(task, args.out)}")
        plot(task, args.out, args.out / f"{task.name}.svg")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; start this again to go on", file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, RSAError) as error:
        sys.exit(f"error: {error}")
