"""`rsa solve` in this process: what goes where, exit codes, and what a mistake is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import rsa

from engine import backend
from engine.mlx import engine as mlx_engine
from rsa import RSAConfig, RunResult, read_events, read_result, read_run
from rsa.command.cli import app
from rsa.command.options import ServerFlags
from rsa.events import BudgetsLowered
from rsa.settings.config import Limits

PNG = b"\x89PNG\r\n\x1a\n"


pytestmark = pytest.mark.usefixtures("with_a_problem")


# ---- what goes where


def test_the_answer_alone_on_standard_output(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer, "--out", "run")
    result = read_result("run")
    assert done.code == 0
    assert result.answer
    assert done.out == result.answer + "\n"
    lines = done.err.splitlines()
    assert lines[0].startswith("solving with ")
    assert any(line.startswith("answer ") for line in lines)
    assert any(line.startswith("reasoning of round ") for line in lines)
    assert lines[-1] == "run folder: run"


def test_json_is_the_result(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer, "--out", "run", "--json")
    assert done.code == 0
    assert RunResult.model_validate_json(done.out) == read_result("run")
    assert json.loads(done.out)["config"]["n"] == 3


def test_quiet_says_nothing_but_errors(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out
    failed = rsa("solve", "nowhere.txt", *writer, "-q")
    assert (failed.code, failed.out) == (2, "")
    assert failed.err == "error: cannot read the problem in nowhere.txt: No such file or directory\n"


def test_the_problem_from_a_file_or_standard_input(writer: list[object]) -> None:
    text = "Say ünicode.\n"
    Path("ünicode.txt").write_text(text, encoding="utf-8")
    Path("marked.txt").write_text(text, encoding="utf-8-sig")
    done = [
        rsa("solve", "ünicode.txt", *writer, "--out", "1"),
        rsa("solve", "marked.txt", *writer, "--out", "2"),
        rsa("solve", "-", *writer, "--out", "3", stdin=text),
        rsa("solve", *writer, "--out", "4", stdin=text),
    ]
    assert {each.code for each in done} == {0}
    assert len({each.out for each in done}) == 1, "the same problem has the same draws"
    assert {read_run(str(folder))[1].text for folder in (1, 2, 3, 4)} == {"Say ünicode."}


def test_no_answer_has_a_code_of_its_own(thinker: list[object]) -> None:
    done = rsa("solve", "problem.txt", *thinker, "--out", "run")
    assert (done.code, done.out) == (3, "")
    assert re.search(r"^no answer: \d of 3 final candidates ", done.err, re.MULTILINE)
    kept = read_result("run")
    assert len(kept.rounds) == 2
    as_json = rsa("solve", "--resume", "run", "--json")
    assert as_json.code == 3
    assert RunResult.model_validate_json(as_json.out) == kept


def test_limits_end_a_run_with_what_there_is(thinker: list[object]) -> None:
    done = rsa("solve", "problem.txt", *thinker, "--total-tokens", "100", "--out", "run")
    assert done.code == 3
    assert "limit total_tokens" in done.err
    assert re.search(r"^no answer, stopped by total_tokens: \d of 3 final candidates ", done.err, re.MULTILINE)
    assert read_result("run").limits_hit == ("total_tokens",)


def test_runs_get_folders_of_their_own(writer: list[object]) -> None:
    said = [rsa("solve", "problem.txt", *writer).err.splitlines()[-1] for _ in range(3)]
    folders = sorted(Path("runs").iterdir())
    assert len(folders) == 3
    assert sorted(said) == [f"run folder: {folder}" for folder in sorted(folders, key=lambda f: f"run folder: {f}")]


def test_flags_win_over_a_profile_file(writer: list[object]) -> None:
    Path("mine.toml").write_text('n = 2\nc = 1\nt = 0\nbeta = "2k"\ntau = 8\nseed = 5\n[limits]\ntotal_tokens = "4k"\n')
    model = writer[:4]
    flags = ["--beta", "30", "--answer-budget", "8", "--deadline", "99", "--no-force-answer"]
    done = rsa("solve", "problem.txt", *model, "--profile", "mine.toml", *flags, "--out", "run")
    assert done.code == 0, done.err
    config = read_run("run")[0].config
    assert (config.n, config.c, config.t, config.beta, config.tau, config.seed) == (2, 1, 0, 30, 8, 5)
    assert config.force_answer is False
    assert config.limits == Limits(total_tokens=4096, deadline_s=99)


def test_every_flag_is_a_setting_too() -> None:
    command: Any = typer.main.get_command(app)
    flags = {parameter.name for parameter in command.commands["solve"].params}
    others = {"file", "image", "model", "method", "profile", "out", "resume", "trust", "json_", "quiet"}
    others |= set(ServerFlags.__annotations__)
    # Problems of the command line have no tools, whose calls `uncompared` is about.
    settings = {name for name in RSAConfig.model_fields if name not in ("limits", "answers", "uncompared")}
    assert flags - others == settings | {"total_tokens", "prompt_tokens", "deadline"}
    assert set(Limits.model_fields) == {"total_tokens", "prompt_tokens", "deadline_s"}


def test_the_model_may_come_from_the_environment(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer[2:], "--out", "run", env={"RSA_MODEL": str(writer[1])})
    assert done.code == 0


def test_model_names_are_listed() -> None:
    done = rsa("models", "list")
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()} >= {"nano", "zaya1-8b", "zaya1-vl-8b"}


# ---- mistakes: exit code 2, one line that names what is wrong, nothing on standard output, nothing left behind


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "nanno"], ["no model is called 'nanno'", "did you mean 'nano'"]),
        (["--model", "problem.txt"], ["no model is called 'problem.txt'", "nano, zaya1-8b, zaya1-vl-8b"]),
        (["--profile", "lihgt"], ["no profile is called 'lihgt'", "did you mean 'light'"]),
        (["--profile", "nowhere.toml"], ["no profile file at nowhere.toml"]),
        (["--profile", "unknown.toml"], ["unknown setting 'bta'", "did you mean 'beta'", "unknown.toml"]),
        (["--profile", "broken.toml"], ["broken.toml cannot be read: no valid TOML", "line 1"]),
        (["--task", "mth"], ["'mth'", "did you mean 'math'"]),
        (["--select", "vot"], ["select = 'vot'", "did you mean 'vote'?"]),
        (["--carry", "ful"], ["carry = 'ful'", "'full'"]),
        (
            ["--confidence", "none", "--select", "weighted"],
            ["select = weighted goes by confidence, but confidence = none"],
        ),
        (["--confidence", "sumary"], ["confidence = 'sumary'", "'summary'"]),
        (
            ["--model", "scripted:mute.py", "--confidence", "tokens"],
            ["confidence = tokens cannot be had: scripted does"],
        ),
        (["--tau", "8k", "--beta", "4k"], ["tau = 8192", "beta = 4096"]),
        (["--n", "2", "--c", "4"], ["c = 4", "n = 2"]),
        (["--n", "0"], ["n = 0", "greater than or equal to 1"]),
        (["--c", "0"], ["c = 0", "greater than or equal to 1"]),
        (["--t", "-1"], ["t = -1", "greater than or equal to 0"]),
        (["--beta", "4q"], ["beta", "'4q' is no size", "4096, 4k or 40K"]),
        (["--tau", ""], ["tau", "'' is no size"]),
        (["--beta", "-1"], ["beta", "'-1' is no size"]),
        (["--beta", "0", "--tau", "0"], ["beta = 0", "tau = 0"]),
        (["--answer-budget", "1.3"], ["--answer-budget", "'1.3' is not a whole number of tokens"]),
        (["--total-tokens", "4q"], ["--total-tokens", "'4q' is no size"]),
        (["--deadline", "-1"], ["--deadline = -1.0", "greater than 0"]),
        (["--deadline", "nan"], ["--deadline = nan"]),
        (["--temperature", "-1"], ["temperature = -1.0"]),
        (["--top-p", "0"], ["--top-p = 0.0"]),
        (["--min-p", "2"], ["--min-p = 2.0"]),
        (["--seed", "-1"], ["seed = -1"]),
        (["--stop", "consensus:2"], ["stop = 'consensus:2'", "2 is no share"]),
        (["--n", "many"], ["--n", "valid integer"]),
        (["--modl", "nano"], ["No such option: --modl", "--model"]),
        (["second.txt"], ["unexpected extra argument", "second.txt"]),
        (["--image", "nowhere.png"], ["cannot read image nowhere.png", "No such file"]),
        (["--image", "problem.txt"], ["image problem.txt is empty or no PNG"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_mistakes(flags: list[str], words: list[str]) -> None:
    Path("unknown.toml").write_text("bta = 3\n")
    Path("broken.toml").write_text("n = = 3\n")
    Path("mute.py").write_text(
        "from engine.scripted import ScriptedEngine\nscript = ScriptedEngine('', logprobs=False)\n"
    )
    before = set(Path().iterdir())
    done = rsa("solve", "problem.txt", *flags)
    assert (done.code, done.out) == (2, "")
    assert all(word in done.words for word in words), done.err
    assert done.err.startswith(("error: ", "Usage: "))
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "cannot read the problem in absent.txt: No such file or directory"),
        ("folder", None, "cannot read the problem in folder: Is a directory"),
        ("empty.txt", b"", "the problem in empty.txt is empty"),
        ("blank.txt", b" \n\t\n", "the problem in blank.txt is empty"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "the problem in latin.txt is not UTF-8 text (byte 3)"),
        ("-", b"", "the problem on standard input is empty"),
        ("-", b"\xff\xfe", "the problem on standard input is not UTF-8 text (byte 0)"),
    ],
)
def test_problems_that_cannot_be_read(name: str, content: bytes | None, words: str) -> None:
    Path("folder").mkdir()
    if content is not None and name != "-":
        Path(name).write_bytes(content)
    done = rsa("solve", name, "--out", "run", stdin=content if name == "-" else None)
    assert (done.code, done.out, done.err) == (2, "", f"error: {words}\n")
    assert not Path("run").exists()


def test_an_unknown_command_gets_the_nearest() -> None:
    done = rsa("solv", "problem.txt")
    assert done.code == 2
    assert "Did you mean 'solve'" in done.words


# ---- the context


def test_budgets_over_the_context_are_lowered_with_the_numbers(writer: list[object]) -> None:
    flags = [*writer, "--beta", "40k", "--tau", "2k", "--answer-budget", "1k", "--total-tokens", "300", "--out", "run"]
    done = rsa("solve", "problem.txt", *flags)
    (warning,) = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    (event,) = [event for event in read_events("run") if isinstance(event, BudgetsLowered)]
    result = read_result("run")
    assert "the model's context of 4096 tokens" in warning
    used = result.budgets
    assert f"lowered: beta 40960 -> {used.beta}, tau 2048 -> {used.tau}, answer_budget 1024 -> 512" in warning
    assert warning == f"warning: {event.message}"
    assert used.asked == {"beta": 40960, "tau": 2048, "answer_budget": 1024}
    assert (used.lowered, result.warnings) == (event.message, (event.message,))
    assert used.beta + 2 * used.tau + 512 < 4096


def test_strict_makes_it_an_error(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer, "--beta", "40k", "--strict", "--out", "run")
    assert (done.code, done.out) == (2, "")
    assert "beta 40960 ->" in done.err
    assert "(strict: not lowered)" in done.err


@pytest.mark.parametrize("more", [[], ["--strict"]])
def test_a_prompt_that_alone_does_not_fit(writer: list[object], more: list[str]) -> None:
    Path("long.txt").write_text("x" * 5000)
    done = rsa("solve", "long.txt", *writer, *more)
    assert (done.code, done.out) == (2, "")
    assert "the problem does not fit: its prompt has 5" in done.err
    assert "4096" in done.err
    assert "shorten the problem" in done.err


def test_a_prompt_over_the_limit_asked_for(writer: list[object]) -> None:
    done = rsa("solve", "problem.txt", *writer, "--prompt-tokens", "20")
    assert done.code == 2
    assert "limits.prompt_tokens allows 20" in done.err


# ---- models that cannot be used: exit code 4


def save(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors of a model."""
    mx = backend.load_mlx()
    weights = str(folder / "model.safetensors")
    mx.save_safetensors(weights, change(mx.load(weights)))


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def extra_tensors() -> dict[str, Any]:
    return {f"model.extra.{number}.weight": backend.load_mlx().zeros((2, 2)) for number in range(7)}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no-weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no-config": lambda folder: (folder / "config.json").unlink(),
    "bad-config": lambda folder: cut(folder / "config.json", 7),
    "no-tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "bad-tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "cut-off": lambda folder: cut(folder / "model.safetensors", -1000),
    "cut-off-early": lambda folder: cut(folder / "model.safetensors", 40),
    "missing": lambda folder: save(folder, lambda x: {key: value for key, value in x.items() if "mlp" not in key}),
    "extra": lambda folder: save(folder, lambda x: x | extra_tensors()),
    "another-shape": lambda folder: save(folder, lambda x: {k: v[:3] if "up_proj" in k else v for k, v in x.items()}),
    "another-kind": lambda folder: (folder / "config.json").write_text('{"model_type": "fancy"}'),
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-weights", ["no-weights has no weights"]),
        ("no-config", ["no-config is no model folder", "config.json"]),
        ("bad-config", ["bad-config/config.json cannot be read", "line 1"]),
        ("no-tokenizer", ["no-tokenizer has no tokenizer", "tokenizer.json"]),
        ("bad-tokenizer", ["the tokenizer in models/bad-tokenizer cannot be loaded"]),
        ("cut-off", ["model.safetensors is cut off", "Download it again"]),
        ("cut-off-early", ["model.safetensors is not a safetensors file, or was cut off"]),
        (
            "missing",
            [
                "6 tensors missing: model.layers.0.mlp.down_proj.weight, model.layers.0.mlp.gate_proj.weight, "
                "model.layers.0.mlp.up_proj.weight, model.layers.1.mlp.down_proj.weight, "
                "model.layers.1.mlp.gate_proj.weight and 1 more"
            ],
        ),
        ("extra", ["7 tensors not part of this model: model.extra.0.weight", "model.extra.4.weight and 2 more"]),
        ("another-shape", ["expected shape (128, 64) but received shape (3, 64)", "up_proj.weight"]),
        ("another-kind", ["Model type fancy not supported"]),
    ],
)
def test_models_that_cannot_be_used(plain_model: Path, name: str, words: list[str]) -> None:
    folder = Path(shutil.copytree(plain_model, Path("models") / name))
    DAMAGES[name](folder)
    done = rsa("solve", "problem.txt", "--model", folder, "--out", "run")
    assert (done.code, done.out) == (4, "")
    assert all(word in done.err for word in words), done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, "one line"
    assert not Path("run").exists()


def test_a_folder_that_is_not_there() -> None:
    done = rsa("solve", "problem.txt", "--model", "./nowhere")
    assert (done.code, done.err) == (4, "error: there is no model folder nowhere\n")


def test_images_for_a_model_that_reads_text_only(writer: list[object]) -> None:
    Path("image.png").write_bytes(PNG)
    done = rsa("solve", "problem.txt", *writer, "--image", "image.png")
    assert (done.code, done.out) == (2, "")
    assert "reads text only" in done.err
    assert not Path("runs").exists(), "what cannot be run leaves no folder behind"


def test_out_of_memory_says_what_to_lower(writer: list[object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlx_engine, "free_memory_bytes", lambda: 50_000)
        done = rsa("solve", "problem.txt", *writer, "--out", "a run")
    assert (done.code, done.out) == (4, "")
    assert "all 3 candidates of round 0 failed: OutOfMemoryError: one completion of" in done.err
    assert "lower --beta, --tau or --answer-budget" in done.err
    assert done.err.endswith("what was done until then is kept; go on with: rsa solve --resume 'a run'\n")
    assert rsa("solve", "--resume", "a run").code == 0, "with more memory it goes on"
