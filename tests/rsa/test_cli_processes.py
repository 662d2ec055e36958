"""The `rsa` command as a process of its own: signals, exit codes, what it imports, what a broken machine is told."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from processes import Done, run, started

from rsa import RunResult, read_events, read_result
from rsa.events import CandidateFinished

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "engine" / "weights" / "nano"
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="on a Mac it is another story")


def environment(**more: str) -> dict[str, str]:
    """This one's, without what would change a run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RSA_", "HF_", "PYTHON"))}
    return {**kept, "HF_HUB_OFFLINE": "1", **more}


def rsa(*words: object, cwd: Path, **more: str) -> Done:
    return run([sys.executable, "-m", "rsa", *words], cwd=cwd, env=environment(**more))


def test_a_run_in_a_process(plain_model: Path, tmp_path: Path) -> None:
    (tmp_path / "problem.txt").write_text("Say something.")
    sizes = ["--n", "2", "--c", "1", "--t", "1", "--beta", "30", "--tau", "8", "--answer-budget", "8"]
    done = rsa("solve", "problem.txt", "--model", plain_model, "--task", "general", *sizes, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = RunResult.model_validate_json(done.stdout)
    (folder,) = (tmp_path / "runs").iterdir()
    assert result == read_result(folder)
    assert done.stderr.endswith(f"run folder: runs/{folder.name}\n")


# ---- interrupted and killed


LONG = ["--n", "4", "--c", "2", "--t", "2", "--beta", "200", "--tau", "64", "--answer-budget", "16", "--seed", "3"]


def outcome(folder: Path) -> list[Any]:
    """All that a run drew and decided, without its times."""
    result = read_result(folder)
    drawn = [
        (c.round, c.index, c.parents, c.seed, c.status, c.answer, c.tail, c.completion and c.completion.token_ids)
        for each in result.rounds
        for c in each.candidates
    ]
    return [result.answer, result.text, result.votes, result.answered_from_round, drawn]


@pytest.fixture
def model(request: pytest.FixtureRequest, thinking_model: Path) -> str:
    if request.param == "nano" and not (NANO / "model.safetensors").is_file():
        pytest.skip("nano's weights are not there")
    return "nano" if request.param == "nano" else str(thinking_model)


@pytest.fixture
def unbroken(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody broke off."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "problem.txt").write_text("What is 17 + 25?")
    done = rsa("solve", "problem.txt", "--model", model, *LONG, "--out", "run", cwd=folder)
    assert done.returncode in (0, 3), done.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("model", "sent"),
    [("tiny", signal.SIGINT), ("nano", signal.SIGKILL)],
    ids=["tiny-interrupted", "nano-killed"],
    indirect=["model"],
)
def test_broken_off_and_resumed_it_ends_the_same(model: str, unbroken: Path, tmp_path: Path, sent: int) -> None:
    (tmp_path / "problem.txt").write_text("What is 17 + 25?")
    said, rest = _break_off(
        ["solve", "problem.txt", "--model", model, *LONG, "--out", "a run"], cwd=tmp_path, sent=sent
    )
    run = tmp_path / "a run"
    if sent == signal.SIGINT:
        assert rest[-1] == "interrupted; go on with: rsa solve --resume 'a run'\n"
        assert "Traceback" not in "".join(rest)
    assert not (run / "result.json").exists()
    # What was said to be done is in the log, and the log is whole.
    logged = [event.candidate for event in read_events(run) if isinstance(event, CandidateFinished)]
    assert 0 < len(logged) < 4 * 3
    announced = sum(" candidate " in line for line in said)
    assert len(logged) >= announced

    done = rsa("solve", "--resume", "a run", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    assert done.stderr.startswith("resuming with ")
    assert outcome(run) == outcome(unbroken)
    events = [event.candidate for event in read_events(run) if isinstance(event, CandidateFinished)]
    assert events[: len(logged)] == logged, "what was done was not done again"
    assert len(events) == 4 * 3


def _break_off(words: Sequence[str], *, cwd: Path, sent: int) -> tuple[list[str], list[str]]:
    """Start a run and send it a signal once it has told of its first candidate; what it said before and after."""
    with started([sys.executable, "-m", "rsa", *words], cwd=cwd, env=environment()) as child:
        assert child.stderr is not None
        assert child.stdout is not None
        said: list[str] = []
        for line in child.stderr:
            said.append(line)
            if line.startswith("  round 0 candidate"):
                break
        child.send_signal(sent)
        rest = child.stderr.readlines()
        out = child.stdout.read()
        child.wait()
    assert child.returncode == (130 if sent == signal.SIGINT else -sent), "".join(said + rest)
    assert out == ""
    return said, rest


# ---- what is imported

HEAVY = ("mlx", "mlx_lm", "transformers", "datasets", "sympy", "torch", "math_verify", "huggingface_hub", "PIL")
OF_SERVERS = ("starlette", "uvicorn", "sse_starlette", "mcp", "prometheus_client", "httpx2", "httpcore2")


def imported_by(program: str, tmp_path: Path) -> set[str]:
    """Top-level names of the modules that are loaded after a program."""
    done = run(
        [sys.executable, "-c", f"import sys, json\n{program}\nprint(json.dumps(list(sys.modules)), file=sys.stderr)"],
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_importing_rsa_imports_next_to_nothing(tmp_path: Path) -> None:
    loaded = imported_by("import rsa", tmp_path)
    assert not loaded & {*HEAVY, "numpy", "pydantic", "anyio", "rich", "typer", "engine"}


@pytest.mark.parametrize(
    "words", [["--help"], ["solve", "--help"], ["models", "list"], ["serve", "--help"]], ids=" ".join
)
def test_help_is_quick(words: list[str], tmp_path: Path) -> None:
    start = "from rsa.command.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    program = f"sys.argv = ['rsa', *{words!r}]\n{start}"
    assert not imported_by(program, tmp_path) & {*HEAVY, *OF_SERVERS, "numpy"}


# ---- machines with something wrong


def test_a_model_that_cannot_be_loaded_ends_the_process_in_order(thinking_model: Path, tmp_path: Path) -> None:
    for file in thinking_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    (tmp_path / "problem.txt").write_text("Say something.")
    for _ in range(2):  # it aborted one time in four
        done = rsa("solve", "problem.txt", "--model", ".", cwd=tmp_path)
        assert done.returncode == 4, done.stderr
        assert "is not a safetensors file" in done.stderr


def findings(text: str) -> dict[str, tuple[str, str]]:
    """What doctor says: of each thing its mark (ok, ! or !!), and the rest of its line."""
    lines = [line.split(maxsplit=2) for line in text.replace("import name", "import-name").splitlines()]
    return {what: (mark, rest) for mark, what, rest in lines}


def test_a_problem_that_is_far_too_long_is_one_line(tmp_path: Path) -> None:
    """The tokenizer's library used to warn above it, on standard error."""
    (tmp_path / "huge.txt").write_text("a" * 20_000)
    done = rsa("solve", "huge.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the problem does not fit: its prompt has 20")
    assert done.stderr.count("\n") == 1


def test_doctor_on_this_machine(tmp_path: Path) -> None:
    done = rsa("doctor", cwd=tmp_path)
    found = findings(done.stdout)
    assert done.returncode == (4 if "!!" in {mark for mark, _ in found.values()} else 0)
    assert found["python"][0] == "ok"
    assert found["markovian-rsa"] == ("ok", metadata.version("markovian-rsa"))
    assert found["import-name"] == ("ok", f"`import rsa` is {ROOT / 'rsa'}")
    assert found["configs"] == ("ok", str(ROOT / "configs"))
    assert (found["nano"][0] == "ok") == (NANO / "model.safetensors").is_file()


@ON_LINUX
def test_doctor_warns_of_a_slow_blas_and_no_more(tmp_path: Path) -> None:
    done = rsa("doctor", cwd=tmp_path, RSA_BLAS="none")
    mark, text = findings(done.stdout)["blas"]
    assert (done.returncode, mark) == (0, "!"), done.stdout
    assert text == "reference BLAS (slow: unset RSA_BLAS in the environment)"


def test_doctor_finds_another_package_of_our_name(tmp_path: Path) -> None:
    clash = tmp_path / "rsa-4.9.dist-info"
    clash.mkdir()
    (clash / "METADATA").write_text("Metadata-Version: 2.1\nName: rsa\nVersion: 4.9\n")
    done = rsa("doctor", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    mark, text = findings(done.stdout)["import-name"]
    assert (done.returncode, mark) == (4, "!!")
    assert "PyPI's `rsa` 4.9 is installed in the same environment" in text
    assert "an environment of its own" in text


BROKEN_MLX = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core":
            raise ImportError("libmlx.so: cannot open shared object file: No such file or directory")

sys.meta_path.insert(0, Broken())
"""


@pytest.fixture
def broken_mlx(tmp_path: Path) -> dict[str, str]:
    """An environment in which MLX's library cannot be loaded."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN_MLX)
    return {"PYTHONPATH": str(tmp_path)}


def test_without_a_backend_the_extra_is_named(tmp_path: Path, plain_model: Path, broken_mlx: dict[str, str]) -> None:
    (tmp_path / "problem.txt").write_text("Say something.")
    done = rsa("solve", "problem.txt", "--model", plain_model, "--out", "run", cwd=tmp_path, **broken_mlx)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be loaded (libmlx.so: cannot open shared object file: No such file or directory)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    if sys.platform.startswith("linux"):
        assert '`pip install "markovian-rsa[cpu]"`, or `"markovian-rsa[cuda]"`' in done.stderr
    doctor = rsa("doctor", cwd=tmp_path, **broken_mlx)
    assert doctor.returncode == 4
    assert "!!  mlx backend    MLX" in doctor.stdout
