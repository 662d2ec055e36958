"""The README cannot rot: its programs run, its commands exist, its flags are the command's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_run(program: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    done = run([sys.executable, script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert named
    assert set(named) <= set(targets)


def test_the_users_own_command_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "problem.txt").write_text((ROOT / "examples" / "countdown.txt").read_text())
    (command,) = [c for c in COMMANDS if c == "rsa solve --n 16 --beta 40k --tau 4k problem.txt"]
    done = run([sys.executable, "-m", *command.split()], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "lowered: beta 40960 ->" in done.stderr
    assert "tau 4096 ->" in done.stderr


def test_the_table_of_flags_is_complete() -> None:
    table = README[README.index("| flag | meaning |") : README.index("**Nothing computed is lost.**")]
    written = set(re.findall(r"--[a-z][a-z-]*", table))
    offered = _help("solve") - {"--help", "--no-force-answer"}
    assert written == offered


def test_every_command_exists_with_its_flags() -> None:
    """Of `$ rsa ...` anywhere in the README."""
    for command in [c for c in COMMANDS if c.startswith("rsa ")]:
        words = [word for word in command.split("|")[-1].split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
        path = words[:2] if words[0] == "models" else words[:1]
        offered = _help(*path)
        for flag in re.findall(r"--[a-z][a-z-]*", command):
            assert flag in offered, command


def test_the_benchmarks_are_named() -> None:
    from evals import benchmark_names

    paragraph = README[README.index("\nBenchmarks: ") :].split("\n\n")[0]
    assert all(re.search(rf"\b{name}\b", paragraph) for name in benchmark_names())


def _help(*path: str) -> set[str]:
    done = run(
        [sys.executable, "-m", "rsa", *path, "--help"],
        check=True,
        env={"COLUMNS": "300", "PATH": "", "TERM": "dumb"},
    )
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
