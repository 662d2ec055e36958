"""What tests start, they end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from processes import run, run_python, started

PARENT = """
import subprocess, sys
program = "import sys; print('started', flush=True); sys.stdin.read()"
subprocess.run([sys.executable, "-c", program], stdin=subprocess.PIPE, close_fds=False)
"""


def test_a_test_that_breaks_off_leaves_neither_its_process_nor_what_that_started() -> None:
    ours, theirs = os.pipe()
    with suppress(TimeoutError), started([sys.executable, "-c", PARENT], pass_fds=[theirs]) as parent:
        os.close(theirs)
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        raise TimeoutError
    assert parent.returncode == -signal.SIGKILL
    assert os.read(ours, 1) == b"", "the other end is closed: nobody lives who had it"
    os.close(ours)


def test_a_process_that_ended_is_left_in_peace() -> None:
    done = run([sys.executable, "-c", "print(input() + '!'); raise SystemExit(3)"], text="hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello!\n", "")


def test_interrupts_reach_processes_of_tests_that_run_in_the_background() -> None:
    """A shell without job control starts background jobs with SIGINT ignored, and what they start inherits that."""
    assert run_python("import signal; print(signal.getsignal(signal.SIGINT).__name__)").stdout == (
        "default_int_handler\n"
    )
    ignoring = "import signal, sys, subprocess; signal.signal(signal.SIGINT, signal.SIG_IGN); subprocess.run({!r})"
    tests = [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test_a_process_that_ended_is_left_in_peace.__name__}"]
    assert "1 passed" in run_python(ignoring.format(tests)).stdout
