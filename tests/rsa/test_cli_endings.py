"""How a command ends: when it is told to, and when nobody can be told anything because streams are full or shut."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import Done, run, started

from rsa import read_result

ROOT = Path(__file__).resolve().parents[2]
MODEL = f"scripted:{ROOT / 'tests' / 'evals' / 'answers_by_seed.py'}"
SIZES = ["--model", MODEL, "--n", "3", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "16"]
SOLVE = ["solve", "problem.txt", *SIZES, "--out", "a run"]
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("problem.txt").write_text("Is this number 3?")  # which the child never answers if it is told to hold


def command(words: list[str], shell: str = '"$@"') -> list[str]:
    """The `rsa` command on a scripted engine, started by a line of shell."""
    return ["/bin/sh", "-c", shell, "sh", sys.executable, "-m", "rsa", *words]


def environment(**more: str) -> Mapping[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RSA_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def rsa(words: list[str], shell: str = '"$@"', **options: Any) -> Done:
    return run(command(words, shell), env=environment(), **options)


# ---- signals


@pytest.fixture(autouse=True)
def _signals_are_not_ignored() -> Iterator[None]:
    """As they are where the tests themselves run under `nohup`: a child is born with what its parent ignores."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def signalled(*numbers: int, shell: str) -> tuple[int, list[str]]:
    """Exit code, and what was said, of a run that would never end but for these signals."""
    with started(command(SOLVE, shell), env=environment(RSA_TEST_HOLD="1")) as child:
        assert child.stderr is not None
        assert any(line.startswith("round 0:") for line in child.stderr)
        for number in numbers:
            child.send_signal(number)
        said = child.stderr.readlines()
        child.wait()
    return child.returncode, said


GO_ON = "interrupted; go on with: rsa solve --resume 'a run'\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_run_that_is_told_to_end_says_how_to_go_on(number: int, code: int) -> None:
    assert signalled(number, shell='exec "$@"') == (code, [GO_ON])
    assert rsa(["solve", "--resume", "a run", "-q"]).returncode == 0


def test_what_the_process_was_told_to_ignore_it_ignores() -> None:
    """`nohup rsa solve ... &` in a script: neither the terminal's end nor its Ctrl-C is meant for it."""
    ignoring = 'trap "" HUP INT; exec "$@"'
    assert signalled(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, shell=ignoring) == (143, [GO_ON])


def test_told_twice_at_once_it_still_ends_in_order() -> None:
    """GNU `timeout` tells the process and its group: the second time broke off the cleaning up, with a traceback."""
    assert signalled(signal.SIGHUP, signal.SIGTERM, shell='exec "$@"') == (129, [GO_ON])


LATE = """
import os, signal, sys
from rsa.command import signals

class Late:
    def __del__(self, kill=os.kill, own=os.getpid()):
        kill(own, 15)  # SIGTERM

signals.end_in_order()
late = Late()
try:
    os.kill(os.getpid(), signal.SIGHUP)
except KeyboardInterrupt:
    sys.exit(signals.exit_code())
"""


def test_told_again_as_the_interpreter_goes_it_keeps_its_exit_code() -> None:
    """Python puts back by then what a signal does by itself: the second one killed it."""
    done = run([sys.executable, "-c", LATE])
    assert (done.returncode, done.stderr) == (129, "")


def test_ctrl_c_while_it_starts_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = run([sys.executable, "-m", "rsa", "solve"], env={**environment(), "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# ---- streams


def answer() -> str:
    return str(read_result("a run").answer)


@ON_LINUX
@pytest.mark.parametrize(
    ("shell", "why"), [('"$@" >/dev/full', "No space left on device"), ('"$@" >&-', "it is closed")]
)
def test_an_answer_that_cannot_be_written_is_kept_and_said_in_a_line(shell: str, why: str) -> None:
    done = rsa(SOLVE, shell)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-2:] == ["run folder: a run", f"error: cannot write to standard output: {why}"]
    assert answer() in "012"


@ON_LINUX
@pytest.mark.parametrize(
    "words", ["models list", "--help", "--version", "score --metric integer scores.jsonl", "solve --help"]
)
def test_every_command_says_it_in_a_line(words: str) -> None:
    Path("scores.jsonl").write_text('{"id": 1, "gold": 3, "candidate": "\\\\boxed{3}"}\n')
    done = rsa(shlex.split(words), '"$@" >/dev/full')
    assert (done.returncode, done.stderr) == (4, "error: cannot write to standard output: No space left on device\n")


@ON_LINUX
@pytest.mark.parametrize(
    "shell", ['"$@" 2>/dev/full', '"$@" 2>&-', '"$@" 0<&- 2>&-', '"$@" 2>&1 >answer | true; cat answer']
)
def test_a_display_that_cannot_be_written_does_not_end_the_work(shell: str) -> None:
    done = rsa(SOLVE, shell)
    assert (done.returncode, done.stdout) == (0, f"{answer()}\n")
    assert all(line.startswith("{") for line in Path("a run/events.jsonl").read_text().splitlines())


def test_characters_that_a_stream_has_not_are_spelled_out() -> None:
    """A line of scores ended in a UnicodeEncodeError, in an ExceptionGroup, where the terminal has no UTF-8."""
    line = {"id": "é 日 \U0001f600", "gold": 3, "candidate": "\\boxed{3}"}
    Path("scores.jsonl").write_text(json.dumps(line))
    words = [sys.executable, "-m", "rsa", "score", "--metric", "integer", "scores.jsonl"]
    done = run(words, env=environment(PYTHONIOENCODING="latin-1"), encoding="latin-1")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, line["id"])


def test_a_reader_that_has_enough_is_left_alone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = rsa(["models", "list"], 'exec "$@"', stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
