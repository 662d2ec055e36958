"""Workers that are processes of this machine: real ones, with real pipes, really killed."""

from __future__ import annotations

import json
import os
import re
import runpy
import select
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import anyio
import pytest
from processes import started
from typer.testing import CliRunner

from evals import display
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.job import evaluate
from evals.results import CandidateRecord
from evals.workers.devices import Devices
from evals.workers.processes import ProcessChannel, Processes
from rsa import ConfigError
from rsa.command.cli import app
from rsa.digests import unseal
from rsa.policies import registry

MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "32"]
PROBLEMS = 6
pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a data set, the scripted engine, and no GPU to be seen; what is temporary goes to `temporary`."""
    monkeypatch.chdir(tmp_path)
    Path("temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("RSA_MODEL", MODEL)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(display, "QUIET_S", 3600.0)
    rows = [{"problem": f"what is number {i}?", "answer": i % 3, "problem_idx": i + 1} for i in range(PROBLEMS)]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluated(out: str, *words: str) -> Any:
    words = ("eval", "aime25", "--data", "data.jsonl", *SIZES, "--out", out, "--no-report", *words)
    return CliRunner().invoke(app, list(words))


def written(folder: str) -> list[bytes]:
    return [Path(folder, name).read_bytes() for name in ("results.json", "candidates.jsonl")]


def test_a_killed_worker_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one takes its problems up at the round where they stood: no candidate of round 0 is asked for again."""
    assert evaluated("whole").exit_code == 0
    monkeypatch.setenv("RSA_TEST_HOLD_ONE", "holder")
    monkeypatch.setenv("RSA_TEST_ASKED", "asked")
    killer = threading.Thread(target=kill_in_round_1)
    killer.start()
    done = evaluated("out", "--devices", "2", "--in-flight", "2")
    killer.join()
    assert done.exit_code == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].endswith("2 at once in each of 2 workers")
    (lost,) = [line for line in lines if line.startswith("lost ")]
    said = r"lost worker [12] \(this machine\): the process \d+ was killed by signal 9; its problems go to the other"
    assert re.fullmatch(said, lost)
    assert written("out") == written("whole")
    assert list(Path("temporary").iterdir()) == [], "even of the one that was killed"
    rows = [CandidateRecord.model_validate_json(unseal(line).content) for line in written("out")[1].splitlines()]
    asked = Counter(map(int, Path("asked").read_text().split()))
    third = [row for row in rows if row.problem_id == "aime25-I-04"]
    assert {asked[row.seed] for row in third if row.round == 0} == {1}
    assert 2 in {asked[row.seed] for row in third if row.round == 1}, "it had been in the midst of that"


def kill_in_round_1() -> None:
    """Kill the process that never answers, as soon as round 0 of what it was asked is in the results folder."""
    while not any('"round_finished"' in log.read_text() for log in Path().glob("out/runs/aime25-I-04-*/events.jsonl")):
        time.sleep(0.02)
    while not (Path("holder").is_file() and Path("holder").read_text()):
        time.sleep(0.02)
    os.kill(int(Path("holder").read_text()), signal.SIGKILL)


def test_a_budget_of_all_problems_is_shared_out_alike() -> None:
    shared = ["--total-tokens", "1400", "--t", "2", "--stop", "consensus:1"]
    assert evaluated("whole", *shared).exit_code == 0
    done = evaluated("out", "--devices", "2", "--in-flight", "2", *shared)
    assert done.exit_code == 0, done.stderr
    assert written("out") == written("whole")
    assert json.loads(unseal(written("out")[0]).content)["budget"]["ended"]["set_tokens"] > 0


def test_when_all_workers_are_killed_it_goes_on_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluated("whole").exit_code == 0
    Path("letters").write_text("xx")
    monkeypatch.setenv("RSA_TEST_KILL", "letters")
    done = evaluated("out", "--devices", "2", "--in-flight", "1")
    assert (done.exit_code, done.stdout) == (4, "")
    error, hint = done.stderr.splitlines()[-2:]
    assert re.fullmatch(r"error: the process \d+ was killed by signal 9", error)
    assert hint == "what was done until then is kept; go on with: rsa eval --resume out"
    again = CliRunner().invoke(app, ["eval", "--resume", "out", "--no-report"])
    assert again.exit_code == 0, again.stderr
    assert written("out") == written("whole")


def test_a_model_that_no_worker_can_open_is_an_error_as_ever() -> None:
    plain = evaluated("out", "--model", "scripted:nowhere.py")
    done = evaluated("out", "--model", "scripted:nowhere.py", "--devices", "2")
    assert (done.exit_code, done.stderr) == (plain.exit_code, plain.stderr)
    assert "there is no file" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the ends of other processes' children cannot be waited for")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_workers_end_with_their_driver(number: int, code: int) -> None:
    words = [sys.executable, "-m", "rsa", "eval", "aime25", "--data", "data.jsonl", *SIZES, "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RSA_TEST_HOLD": "1"}
    with ExitStack() as stack:
        child = stack.enter_context(started([*words, "--devices", "2"], env=environment))
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith(f"  {PROBLEMS - 1} of "):  # the one that is left never ends
                break
        workers = [os.pidfd_open(pid) for pid in children(child.pid)]
        stack.callback(lambda: [os.close(worker) for worker in workers])
        assert len(workers) == 2
        child.send_signal(number)
        said = child.stderr.read()
        assert child.wait() == code
        if number == signal.SIGINT:
            assert said == "interrupted; go on with: rsa eval --resume out\n"
        for worker in workers:
            assert select.select([worker], [], [], 60)[0], "it still runs"


def children(parent: int) -> Sequence[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


# ---- programs


def test_a_program_on_any_event_loop_may_use_workers(anyio_backend: str) -> None:
    program = partial(
        evaluate, "aime25", MODEL, "vote", out=anyio_backend, data="data.jsonl", n=2, executor=Processes(Devices("1"))
    )
    anyio.run(program, backend=anyio_backend)
    rows = written(anyio_backend)[1].splitlines()
    assert len(rows) == PROBLEMS * 2


def test_metrics_that_cannot_be_sent_are_refused_in_words() -> None:
    exactly = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))["Exactly"]  # of no module

    class Local(exactly):  # type: ignore[valid-type, misc]
        pass

    for metric in (Local(), exactly()):
        benchmark = Benchmark(name="mine", metric=metric, questions=[Question(id="a", problem="b", gold="c")])
        program = partial(evaluate, benchmark, MODEL, out="out", executor=Processes(Devices("1")))
        with pytest.raises(ConfigError, match="the metric of mine cannot be sent to other processes"):
            anyio.run(program)
    assert not Path("out").exists()


def test_a_metric_of_the_program_itself_is_refused_in_words() -> None:
    """It can be sent, but in another process the main module is another one."""
    Path("program.py").write_text(
        "import anyio\nfrom evals import Benchmark, Question, evaluate\n"
        "from evals.workers.devices import Devices\nfrom evals.workers.processes import Processes\n"
        "class Mine:\n"
        "    async def __aenter__(self): return self\n    async def __aexit__(self, *exc): return None\n"
        "    def check(self, gold, fields): pass\n"
        "    async def score(self, answer, gold, fields): pass\n    async def group(self, answers): return []\n"
        "benchmark = Benchmark(name='mine', metric=Mine(), questions=[Question(id='a', problem='b', gold='c')])\n"
        "async def main():\n"
        f"    await evaluate(benchmark, {MODEL!r}, out='out', executor=Processes(Devices('1')))\n"
        "anyio.run(main)\n"
    )
    with started([sys.executable, "program.py"], env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        _, said = child.communicate()
    assert "ConfigError: the metric cannot be read in another process" in said


# ---- policies of other packages

POLICY = """
from rsa.policies.stopping import Stop, StopPolicy

class Patient(StopPolicy):
    every_round = True

    def __init__(self, rounds=1.0):
        self.rounds = rounds

    def after(self, rounds):
        return Stop("end", {"rounds": float(len(rounds))}) if len(rounds) >= self.rounds else None
"""


def test_a_policy_of_another_package_decides_in_workers_as_it_does_here(monkeypatch: pytest.MonkeyPatch) -> None:
    brought = Path("brought", "patient-1.dist-info")
    brought.mkdir(parents=True)
    Path("brought", "patient_policy.py").write_text(POLICY)
    (brought / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1\n")
    (brought / "entry_points.txt").write_text("[rsa.stop]\npatient = patient_policy:Patient\n")
    monkeypatch.syspath_prepend(str(brought.parent.resolve()))
    assert evaluated("whole", "--stop", "patient:1").exit_code == 0
    done = evaluated("out", "--stop", "patient:1", "--devices", "2")
    assert done.exit_code == 0, done.stderr
    assert written("out") == written("whole")
    assert json.loads(unseal(written("out")[0]).content)["rounds"][-1]["round"] == 0


def test_a_policy_that_workers_do_not_have_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("absent", "rsa.policies.stopping:Answered", "rsa.stop")
    monkeypatch.setattr(registry, "entry_points", lambda group, name=None: [point] if group == "rsa.stop" else [])
    done = evaluated("out", "--stop", "absent", "--devices", "2")
    registry._policy.cache_clear()
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: stop = 'absent': no policy is called so")
    assert line.endswith("it is here, but not where a worker runs: install its package there, too")
    assert not Path("out").exists()


# ---- the last words of a process


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise SystemExit('no room on the device')", r"ended with exit code 1: no room on the device"),
        ("print('to nobody')", r"ended with exit code 0"),
        ("import os; os.abort()", r"was killed by signal 6"),
        # What is temporary is where it is here: MLX keeps compiled kernels there.
        ("import os; raise SystemExit(os.environ['TMPDIR'])", r"ended with exit code 1: .*temporary"),
    ],
)
def test_what_became_of_a_process_is_said(
    program: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever stands in the place of Python, here a program that is no worker at all."""
    from engine.errors import EngineClosedError
    from evals.workers.messages import Job
    from rsa.settings.config import RSAConfig

    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{program}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    benchmark = Benchmark(name="mine", metric="math", questions=[])

    async def main() -> None:
        channel = ProcessChannel("worker 1", {}, "")
        try:
            await channel.open(Job(MODEL, {}, benchmark, RSAConfig()))
            await channel.receive()
        finally:
            await channel.aclose()

    with pytest.raises(EngineClosedError, match=rf"the process \d+ {says}$"):
        anyio.run(main)
