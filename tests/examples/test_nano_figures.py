"""The figures of nano's README: the commands are what the README claims, and the tables say what the results say."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from processes import run, started

from engine.api import ModelInfo, Usage
from evals.data.benchmarks import load_benchmark
from evals.results import DataInfo, EvalResults, ProblemStats, RoundStats
from evals.stats import estimate
from examples.nano import figures
from rsa.folders import write_record
from rsa.settings.config import RSAConfig

CHAIN = figures.TASKS[1]
UNSEEN = Path(figures.__file__).with_name("unseen")


def results(values: list[float], *, tokens: float, rounds: int = 1) -> EvalResults:
    """Of a method whose candidates are right as often as `values` say, problem by problem; the same in every round."""
    problems = {f"p{place}": value for place, value in enumerate(values)}
    mean = estimate(problems)
    stats = [
        RoundStats(
            round=number, mean=mean, vote=mean, best_of={1: mean, 16: mean}, statuses={"scored": 32}, asked=32,
            present=32, reasoning_tokens=100, answer_tokens=9, tokens=tokens * (number + 1) / rounds, longest_prompt=70,
        )
        for number in range(rounds)
    ]  # fmt: skip
    return EvalResults(
        benchmark="chain", method="rsa", metric="chain", headline="candidates", mean=mean, answer=mean,
        rounds=tuple(stats), statuses={"scored": 32}, usage=Usage(prompt_tokens=4000),
        problems=tuple(
            ProblemStats(id=key, value=value, answer=value, means=(value,) * rounds, votes=(value,) * rounds,
                         final_mean=value, final_vote=value, tokens=tokens)
            for key, value in problems.items()
        ),
        epochs=1, seed=0, data=DataInfo(kind="generated", name="chain", selected=len(values)), config=RSAConfig(n=16),
        model=ModelInfo(name="nano"), protocol="p", prompt_sha256="0" * 64,
    )  # fmt: skip


def measurements(task: figures.Task) -> list[figures.Measurement]:
    return [*figures.table_rows(task, 4), *figures.points(task, 4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Finished measurements of chain: a single rollout is right in one problem of four, Markovian RSA in all."""
    for folder in {m.folder for m in measurements(CHAIN)} | {"chain-vote"}:
        good = folder in ("chain-rsa", "chain-unseen")
        found = results([1, 1, 1, 1] if good else [1, 0, 0, 0], tokens=6000 if good else 2000, rounds=9 if good else 1)
        (tmp_path / folder).mkdir()
        write_record(tmp_path / folder / "results.json", found)
    return tmp_path


def test_each_measurement_has_a_folder_and_a_benchmark_of_its_own() -> None:
    for task in figures.TASKS:
        planned = measurements(task)
        assert len({m.folder for m in planned}) == len(planned)
        load_benchmark(task.name)
        assert load_benchmark(UNSEEN / f"{task.name}.toml").metric == task.name
    assert figures.LABELS.keys() == {m.label for m in figures.table_rows(CHAIN, 1)} | {"vote"}


def test_what_is_typed() -> None:
    rsa = next(m for m in figures.table_rows(CHAIN, 500) if m.label == "rsa")
    assert shlex.join(rsa.command(Path("runs"))) == (
        "rsa eval chain --model nano --method rsa --limit 500 --n 16 --beta 128 --tau 64 --answer-budget 64 "
        "--t 8 --c 4 --out runs/chain-rsa"
    )


def test_what_was_begun_goes_on_and_what_is_finished_is_left(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "chain-c2" / "results.json").unlink()
    (out / "chain-c2" / "eval.json").write_text("{}")
    figures.run(measurements(CHAIN), out, jobs=2, dry=True, extra=["--in-flight", "3"])
    assert capsys.readouterr().out == f"rsa eval --resume {out / 'chain-c2'} --in-flight 3\n"


def test_figures_of_fewer_problems_are_not_taken_for_those_of_more(out: Path) -> None:
    with pytest.raises(RuntimeError, match=r"chain-single has 4 problems, not 500: use another --out"):
        figures.run(figures.table_rows(CHAIN, 500), out, jobs=1, dry=True)


def test_the_vote_gets_as_many_tokens(out: Path) -> None:
    assert figures.equal_vote(CHAIN, 4, out).settings == {"n": 48}  # three times the tokens of 16 rollouts


def test_the_most_expensive_begin_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures.run(figures.table_rows(CHAIN, 4), tmp_path, jobs=1, dry=True)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "chain-long" in first
    assert "--method single" in last


def test_tables(out: Path) -> None:
    table = figures.table(CHAIN, out).splitlines()
    assert table[2].startswith("| single rollouts of 128 tokens, 16 of them | 25.0 ± 79.6 |")
    assert table[7] == "| **Markovian RSA**, C = 4, T = 8 | 100.0 | 100.0 | 100.0 | 6,000 | 1,000 | 70 |"
    assert len(figures.by_round(CHAIN, out).splitlines()) == 2 + 9
    gains = figures.gains(CHAIN, out).splitlines()
    assert gains[2] == "| single rollouts of 128 tokens, 16 of them | +75.0 ± 79.6 | +75.0 ± 79.6 |"
    assert gains[3].startswith("| that majority vote | +75.0")


@pytest.mark.thorough
def test_plots_show_tokens_too_and_take_the_usual_setting_from_the_table(out: Path, tmp_path: Path) -> None:
    shown = figures.series(CHAIN, out)
    assert [point.value for point in shown["tau"]] == [32, 64, 128]
    usual, other = shown["tau"][1], shown["tau"][0]
    assert (usual.mean.value, other.mean.value) == (1, 0.25)
    assert usual.tokens == 6000 * 5 / 9  # of the rounds up to that of the plots
    figures.plot(CHAIN, out, tmp_path / "chain.svg")
    assert "1,000 tokens" in (tmp_path / "chain.svg").read_text()


def test_no_tail_is_longer_than_its_reasoning() -> None:
    countdown = figures.TASKS[0]
    assert {m.settings.get("tau") for m in figures.points(countdown, 1)} == {None, 32}


COMMAND = [sys.executable, "-m", "examples.nano.figures"]
ROOT = Path(figures.__file__).parents[2]


def test_interrupted_it_begins_nothing_more(tmp_path: Path) -> None:
    """As Ctrl-C does: the whole group of processes is told."""
    with started([*COMMAND, "--only", "countdown", "--limit", "9", "--out", tmp_path], cwd=ROOT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        rest, said = process.communicate()
    assert first.startswith("rsa eval countdown ")
    assert (rest, process.returncode) == ("", 130)
    assert said.splitlines()[-1] == "interrupted; start this again to go on"


@pytest.mark.parametrize(("words", "said"), [
    (("--jobs", "0"), "argument --jobs: 0 should be a number from 1 on"),
    (("--limit", "many"), "argument --limit: many should be a number from 1 on"),
    (("--only", "chess"), "argument --only: invalid choice: 'chess'"),
])  # fmt: skip
def test_what_cannot_be_asked_for(words: tuple[str, str], said: str) -> None:
    done = run([*COMMAND, *words, "--dry-run"], cwd=ROOT)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
