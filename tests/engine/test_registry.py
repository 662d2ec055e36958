"""Kinds of engines: ours, and those that other packages bring by an entry point."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended, rsa
from processes import run, run_python

from engine import registry
from engine.errors import ModelError, RequestError
from rsa import read_run

TOY = Path(__file__).resolve().parents[1] / "data" / "toy_package" / "toy_engine.py"
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--n", "3", "--c", "2", "--t", "1", "--beta", "40", "--tau", "16", "--answer-budget", "16"]


def install(folder: Path, *, package: str = "toy-engines", **entries: str) -> Path:
    """What pip leaves of a package with these entry points."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{kind} = {value}\n" for kind, value in entries.items()]
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{''.join(lines)}")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`installed(kind="module:function")` puts a package there, together with the toy's module."""
    packages = tmp_path / "packages"

    def put(**entries: str) -> None:
        install(packages, **entries)
        shutil.copy(TOY, packages)
        monkeypatch.syspath_prepend(packages)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSA_MODEL", raising=False)
    Path("problem.txt").write_text("What is 3 + 4?")
    return put


def solve(*words: str) -> Ended:
    return rsa("solve", *words)


# ---- a package of its own


def test_a_toy_engine_solves_with_no_change_here(tmp_path: Path) -> None:
    """Its package is installed, and nothing else is done."""
    packages = install(tmp_path / "packages", toy="toy_engine:open_toy")
    shutil.copy(TOY, packages)
    words = [sys.executable, "-m", "rsa", "solve", "-", "--model", "toy:x", *SMALL, "--out", tmp_path / "run"]
    env = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}"}
    done = run(words, text="What is 3 + 4?", env=env)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    assert "solving with x: n=3" in done.stderr


def test_its_run_is_resumed_without_naming_it_again(installed: Callable[..., None]) -> None:
    installed(toy="toy_engine:open_toy")
    code, answer, said = solve("problem.txt", "--model", "toy:x", *SMALL, "--out", "run")
    assert (code, answer) == (0, "7\n"), said
    assert read_run("run")[0].model.details["source"] == "toy:x"
    log = Path("run/events.jsonl").read_text().splitlines(keepends=True)
    Path("run/events.jsonl").write_text("".join(log[:3]))
    Path("run/result.json").unlink(missing_ok=True)
    assert solve("--resume", "run")[:2] == (0, "7\n")


def test_a_setting_that_it_cannot_do_is_named(installed: Callable[..., None]) -> None:
    installed(toy="toy_engine:open_toy")
    Path("chart.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, _, said = solve("problem.txt", "--model", "toy:x", "--image", "chart.png")
    assert code == 2
    assert "the problem has images, but x reads text only: use a model that sees, or leave them out" in said


@pytest.mark.parametrize(
    ("entries", "spec", "code", "says"),
    [
        (
            {"toy": "toy_engine:open_toy"},
            "tyo:x",
            2,
            "no kind of engine is called 'tyo'; did you mean 'toy'? There are",
        ),
        ({}, "q:x", 2, "no kind of engine is called 'q'. There are mlx, openai, scripted\n"),
        (
            {"toy": "toy_motor:open"},
            "toy:x",
            4,
            "'toy' cannot be imported from toy_motor:open (ModuleNotFoundError: No",
        ),
        ({"toy": "toy_engine:opne"}, "toy:x", 4, "'toy' cannot be imported from toy_engine:opne (AttributeError: "),
        ({"toy": "toy_engine:ByteTokenizer"}, "toy:x", 2, "engines of the kind 'toy' cannot be opened so: "),
        ({"toy": "builtins:int"}, "toy:x", 4, "toy:x cannot be opened (ValueError: invalid literal for int()"),
        ({"toy": "toy_engine:THINK_CLOSE"}, "toy:x", 4, "toy_engine:THINK_CLOSE opens no engine, it is int: "),
        ({"toy": "builtins:str"}, "toy:x", 4, "builtins:str gave toy:x no engine but str: "),
    ],
)
def test_mistakes_are_told_in_a_line(
    installed: Callable[..., None], entries: dict[str, str], spec: str, code: int, says: str
) -> None:
    installed(**entries)
    done = solve("problem.txt", "--model", spec, *SMALL)
    assert done[0] == code
    (line,) = done[2].splitlines(keepends=True)
    assert line.startswith("error: ")
    assert says in line
    assert code == 2 or "the package toy-engines" in line
    assert not Path("runs").exists()


def test_two_packages_of_one_kind_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, package="toy-engines", toy="toy_engine:open_toy")
    install(tmp_path, package="other-toys", toy="other:open_toy")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="'toy' is brought by other-toys and toy-engines: remove one"):
        registry.open_engine("toy", "x")


def test_nobody_takes_the_place_of_ours(installed: Callable[..., None]) -> None:
    installed(scripted="toy_engine:open_toy", toy="toy_engine:open_toy")
    assert registry.kinds() == ["mlx", "openai", "scripted", "toy"]
    with pytest.raises(ModelError, match="there is no file"):
        registry.open_engine("scripted", "nowhere.py")


def test_listing_kinds_imports_no_engine() -> None:
    program = "import sys; from engine import registry; print(registry.kinds()); print(*sys.modules)"
    kinds, modules = run_python(program).stdout.splitlines()
    assert kinds == "['mlx', 'openai', 'scripted']"
    assert not {"engine.loader", "engine.scripted", "mlx", "anyio"} & set(modules.split())


# ---- names


@pytest.mark.parametrize(
    ("spec", "split"),
    [
        ("openai:zaya1-8b", ("openai", "zaya1-8b")),
        ("scripted:/a/play.py:answers", ("scripted", "/a/play.py:answers")),
        ("nano", None),
        ("owner/name", None),
        ("./odd:folder", None),
        ("mlx:", None),
        (":x", None),
    ],
)
def test_kind_and_name(spec: str, split: tuple[str, str] | None) -> None:
    assert registry.split(spec) == split


def test_ours_can_be_named_by_their_kind(installed: Callable[..., None]) -> None:
    code, _, said = solve("problem.txt", "--model", "mlx:nan", *SMALL)
    assert (code, "no model is called 'nan'; did you mean 'nano'?" in said) == (2, True)


# ---- scripts


def play(text: str, *, name: str = "play.py") -> None:
    Path(name).write_text(text)


def test_a_script_answers(installed: Callable[..., None]) -> None:
    play('def script(request): return r"<think>easy</think>\\boxed{7}"')
    assert solve("problem.txt", "--model", "scripted:play.py", *SMALL)[:2] == (0, "7\n")
    play('from engine.scripted import Script\nother = Script("hm", r"\\boxed{8}")')
    assert solve("problem.txt", "--model", "scripted:play.py:other", *SMALL)[:2] == (0, "8\n")


def test_another_script_is_another_model(installed: Callable[..., None]) -> None:
    play('script = r"<think>easy</think>\\boxed{7}"')
    first = registry.open_engine("scripted", "play.py").model
    assert first.details["source"] == f"scripted:{Path('play.py').resolve()}:script"
    assert registry.open_engine("scripted", "play.py").model == first
    play('script = r"<think>easy</think>\\boxed{8}"')
    assert registry.open_engine("scripted", "play.py").model.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py", "there is no file "),
        ("play.py", "play.py has no 'script'; did you mean 'scripts'?"),
        ("play.py:scripts", "'scripts' in play.py is int: give a function of a request, a script or a ScriptedEngine"),
        ("broken.py", "the script broken.py cannot be run (ZeroDivisionError: division by zero)"),
        ("no_such_module", "the script no_such_module cannot be run (ModuleNotFoundError: No module"),
    ],
)
def test_what_is_no_script(installed: Callable[..., None], name: str, says: str) -> None:
    play("scripts = 3")
    play("1 / 0", name="broken.py")
    with pytest.raises(ModelError) as caught:
        registry.open_engine("scripted", name)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
