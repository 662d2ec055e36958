"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import os
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from processes import Done, run

ROOT = Path(__file__).resolve().parents[1]
NAMED = f"markovian_rsa-{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
WEIGHTS = ROOT / "engine" / "weights" / "nano" / "model.safetensors"
EXTRA = "" if sys.platform == "darwin" else "[cpu]"


def command(*words: object, cwd: Path) -> Done:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RSA_", "PYTHON", "VIRTUAL_ENV"))}
    done = run(words, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it for everyone: in an environment of its own, with what pyproject.toml asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    command(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.iterdir()
    return built


@pytest.mark.timeout(300)
def test_what_the_wheel_holds(wheel: Path) -> None:
    assert wheel.name == f"{NAMED}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"{NAMED}.dist-info/METADATA").decode()
        entry_points = archive.read(f"{NAMED}.dist-info/entry_points.txt").decode()
    configs = {f"rsa/_configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.toml")}
    nano = {str(path.relative_to(ROOT)) for path in (ROOT / "engine" / "weights").rglob("*") if path.is_file()}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "evals" / "report" / "templates").iterdir()}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "rsa" / "serve" / "page").iterdir()}
    modules = {str(path.relative_to(ROOT)) for top in ("rsa", "engine", "evals") for path in (ROOT / top).rglob("*.py")}
    assert configs | nano | templates | page | modules | {"rsa/py.typed", "engine/py.typed"} <= names
    assert "engine/weights/nano/config.json" in nano
    assert {name.partition("/")[0] for name in names} <= {"rsa", "engine", "evals", f"{NAMED}.dist-info"}
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]
    assert "License-Expression: Apache-2.0" in metadata
    assert {"Provides-Extra: cpu", "Provides-Extra: cuda"} <= set(metadata.splitlines())
    assert {"rsa = rsa.__main__:main", "puzzles = evals.tasks.puzzles:check"} <= set(entry_points.splitlines())


def test_installed_elsewhere_it_works(wheel: Path, tmp_path: Path) -> None:
    """Beside the packages that are here: `test_the_wheel_names_all_it_needs` installs them, too."""
    python = environment(tmp_path / "venv")
    command(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    (beside,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (beside / "ours.pth").write_text(sysconfig.get_path("purelib"))
    works(python, tmp_path)


@pytest.mark.slow
def test_the_wheel_names_all_it_needs(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    named = f"markovian-rsa{EXTRA} @ {wheel.as_uri()}"
    command(sys.executable, "-m", "pip", "--python", python, "install", "-q", named, cwd=tmp_path)
    command(sys.executable, "-m", "pip", "--python", python, "check", cwd=tmp_path)
    works(python, tmp_path)


def environment(folder: Path) -> Path:
    """The Python of a new environment without packages."""
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def works(python: Path, folder: Path) -> None:
    """The command and its library are those that were installed, and do what they should, away from the checkout."""
    rsa, work = python.with_name("rsa"), folder / "work"
    work.mkdir()
    where = command(python, "-c", "import rsa, engine; print(rsa.__file__, engine.__file__)", cwd=work).stdout
    assert str(ROOT) not in where
    assert "solve" in command(rsa, "--help", cwd=work).stdout
    assert "nano" in command(rsa, "models", "list", cwd=work).stdout
    if WEIGHTS.is_file():
        (work / "problem.txt").write_text("What is 17 + 25?")
        sizes = ["--n", "2", "--c", "2", "--t", "1", "--beta", "64", "--tau", "32", "--answer-budget", "16"]
        flags = ["--task", "general", "--temperature", "0", *sizes, "--out", "run"]
        done = command(rsa, "solve", "problem.txt", *flags, cwd=work)
        assert done.stdout.strip()
        assert (work / "run" / "result.json").is_file()
        command(rsa, "doctor", cwd=work)
