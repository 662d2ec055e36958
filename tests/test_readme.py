"""What people are shown cannot rot: programs, in docstrings too, run and are right; commands and flags exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import programs
import pytest
from processes import run
from typer.testing import CliRunner

from evals import EvalResults
from rsa import MarkovianRSA, RunResult
from rsa.command.cli import app
from rsa.run import Run

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = sorted({c for text in TEXT.values() for c in re.findall(r"^\$ (.*?)(?:\s+#.*)?$", text, flags=re.MULTILINE)})
OF_A_SERVER = ("serving.md",)
"""The pages whose programs need a server: tests/rsa/serve runs them."""
PROGRAMS = {
    program: page.name for page in PAGES if page.name not in OF_A_SERVER for program in programs.of_markdown(page)
}
"""Each once, with a page that shows it."""
TEXTS = ("countdown.txt", "chain.txt")


@dataclass(frozen=True)
class Solved:
    """A problem that was solved, and how it ended."""

    problem: str
    result: RunResult


@pytest.fixture
def solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Solved]:
    """All that is solved during the test, in a folder that holds nothing but the checkout's examples."""
    found: list[Solved] = []
    solve = Run.solve

    async def noted(begun: Run) -> RunResult:
        result = await solve(begun)
        found.append(Solved(begun.problem.text, result))
        return result

    monkeypatch.setattr(Run, "solve", noted)
    monkeypatch.setenv("RSA_MODEL", "nano")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=lambda folder, names: {*names} - {*TEXTS})
    monkeypatch.chdir(tmp_path)
    return found


def modules() -> list[str]:
    """Those whose docstrings hold programs."""
    paths = [path for top in ("rsa", "engine", "evals") for path in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name, path in zip(names, paths, strict=True) if [*programs.of_docstrings(path)]]


def test_docstrings_with_programs_are_found() -> None:
    assert {"rsa", "rsa.controller", "evals", "engine.scripted"} <= set(modules())


@pytest.mark.thorough
def test_pages_hold_programs() -> None:
    assert all(programs.of_markdown(ROOT / page) for page in ("README.md", "docs/library.md", "docs/measuring.md"))


@pytest.mark.parametrize(("program", "page"), PROGRAMS.items(), ids=PROGRAMS.values())
def test_programs_of_the_pages_run_and_are_right(
    program: str, page: str, solved: list[Solved], capsys: pytest.CaptureFixture[str]
) -> None:
    programs.run(program, {})
    printed = capsys.readouterr().out
    assert printed.strip(), page
    if "ScriptedEngine" not in program and "evaluate" not in program:
        assert_right(program, solved)
        assert "mark='verified'" in printed


@pytest.mark.thorough
@pytest.mark.parametrize("name", modules())
def test_programs_in_docstrings_run_and_are_right(name: str, solved: list[Solved]) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    for program in programs.of_docstrings(Path(module.__file__)):
        names = programs.run(program, vars(module))
        assert_right(program, solved)
        if isinstance(names.get("results"), EvalResults):
            assert names["results"].mean.value == 1.0
        if name == "engine.scripted":
            assert MarkovianRSA(names["engine"], n=2, t=0).solve_sync("What is 2 + 2?").answer == "4"


def assert_right(program: str, solved: list[Solved]) -> None:
    """Each problem that stands in the program got the answer that its checker verifies."""
    shown = [each for each in solved if each.problem in program]
    assert shown or "solve" not in program
    for each in shown:
        assert each.result.check is not None
        assert each.result.check.mark == "verified", (each.problem, each.result.answer)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if "rsa solve" in c and ("--model" not in c or "--model nano" in c)]
)
def test_problems_of_the_pages_are_solved(command: str, solved: list[Solved]) -> None:
    """With the budgets that they name, and fewer candidates."""
    said, _, line = command.rpartition(" | ")
    words = shlex.split(line)[1:]
    smaller = ["--n", "4", "--t", "1"]  # the last of two values counts
    done = CliRunner().invoke(app, [*words, *smaller], input=" ".join(shlex.split(said)[1:]))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip()
    assert re.search(r"^answer \S+ \(verified\) from round \d", done.stderr, re.MULTILINE)
    if "--beta 40k --tau 4k" in command:  # the users' own
        assert "lowered: beta 40960 ->" in done.stderr
        assert "tau 4096 ->" in done.stderr


def test_the_problems_that_are_named_are_there() -> None:
    named = [word for c in COMMANDS if "rsa solve" in c for word in c.split() if word.startswith("examples/")]
    assert named
    assert all((ROOT / word).is_file() for word in named)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert named
    assert set(named) <= set(targets)


def test_the_table_of_flags_is_complete() -> None:
    page = TEXT["command-line.md"]
    table = page[page.index("| flag | meaning |") : page.index("## Run folders")]
    written = set(re.findall(r"--[a-z][a-z-]*", table))
    offered = _help("solve") - {"--help", "--no-force-answer"}
    assert written == offered


def test_every_command_exists_with_its_flags() -> None:
    """Those of `$ rsa ...` on any page."""
    for command in [c for c in COMMANDS if c.startswith("rsa ")]:
        words = [word for word in command.split("|")[-1].split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
        path = words[:2] if words[0] == "models" or words[:2] == ["eval", "export"] else words[:1]
        offered = _help(*path)
        for flag in re.findall(r"--[a-z][a-z-]*", command):
            assert flag in offered, command


def test_the_benchmarks_are_named() -> None:
    from evals import benchmark_names

    page = TEXT["measuring.md"]
    paragraph = page[page.index("\nBenchmarks: ") :].split("\n\n")[0]
    assert all(re.search(rf"\b{name}\b", paragraph) for name in benchmark_names())


@cache
def _help(*path: str) -> set[str]:
    done = run(
        [sys.executable, "-m", "rsa", *path, "--help"],
        check=True,
        env={"COLUMNS": "300", "PATH": "", "TERM": "dumb"},
    )
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT[page.name]):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_counted_facts_are_true() -> None:
    """Figures in words go stale in silence: these are counted."""
    from evals import benchmark_names
    from rsa.policies.registry import _OURS
    from rsa.settings.methods import Method

    words = dict(
        zip(
            ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"],
            range(10, 18),
            strict=True,
        )
    )
    (others,) = re.findall(r"`rsa eval aime25` and (\w+) other benchmarks", TEXT["README.md"])
    assert words[others] == len(benchmark_names()) - 1
    policies, _, named = TEXT["method.md"].partition("## Other methods, by name")
    listed = re.findall(r"^- `([a-z-]+)`: ", named, flags=re.MULTILINE)
    assert sorted(listed) == sorted(get_args(Method))
    described = re.findall(r"^- `([a-z-]+)`: ", policies, flags=re.MULTILINE)
    assert sorted(described) == sorted([*_OURS["select"], *_OURS["parents"]])
    methods = TEXT["measuring.md"].partition("## Methods")[2].partition("##")[0]
    assert set(get_args(Method)) <= set(re.findall(r"`([a-z-]+)`", methods))
    profiles = {path.stem for path in (ROOT / "configs" / "profiles").glob("*.toml")}
    assert profiles <= set(re.findall(r"`([\w-]+)`", TEXT["command-line.md"]))
