"""What a command line owes its users: a version, completion, defaults in the help, folders that clash with nobody's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import command_line
import pytest
import typer

from engine.api import ModelInfo
from rsa import load_config
from rsa.command import terminal
from rsa.command.cli import app
from rsa.command.job import SolveJob
from rsa.command.options import with_flags
from rsa.compose import model_settings
from rsa.errors import RunFolderError
from rsa.settings import resources
from rsa.settings.sizes import parse_size
from rsa.settings.suitability import suited

pytestmark = pytest.mark.usefixtures("with_a_problem")


def rsa(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error with its line breaks and boxes taken out."""
    done = command_line.rsa(*words, env=env)
    return done.code, done.out, done.words


def test_the_version() -> None:
    assert rsa("--version") == (0, f"markovian-rsa {metadata.version('markovian-rsa')}\n", "")


# ---- help and completion


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    waiting: list[tuple[str, Any]] = [("rsa", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        inner = getattr(command, "commands", {})
        waiting += [(f"{name} {each}", command) for each, command in inner.items()]
        if not inner:
            yield name, command


NOTHING_UNLESS_GIVEN = {"image", "resume", "rescore", "help"}


def test_every_flag_with_a_value_says_what_holds_without_it() -> None:
    silent = {
        f"{name} --{option.name}"
        for name, command in commands()
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag and not option.required
        if option.name not in NOTHING_UNLESS_GIVEN
        and option.default is None
        and not isinstance(option.show_default, str)
    }
    assert silent == {"rsa doctor --model"}, "it goes with --smoke, which asks for it"


def said_defaults() -> dict[str, str]:
    """What the help of `rsa solve` says of the settings of a run."""
    solve = dict(commands())["rsa solve"]
    return {option.name: str(option.show_default) for option in solve.params}


def test_the_help_tells_the_defaults_that_hold() -> None:
    said = said_defaults()
    plain, nano = load_config(), load_config(defaults=model_settings("nano"))
    for name in ("n", "c", "t", "beta", "tau", "answer_budget"):
        general, _, of_nano = said[name].partition("; nano: ")
        assert parse_size(general.partition(",")[0]) == getattr(plain, name), name
        assert parse_size(of_nano or general.partition(",")[0]) == getattr(nano, name), name
    for name in ("seed", "select", "carry"):
        assert said[name] == str(getattr(plain, name)), name
    assert said["task"].startswith(plain.task)
    assert said["force_answer"] == "force-answer"
    assert plain.force_answer
    assert said["confidence"] == "summary, where the engine can"
    assert suited(plain, ModelInfo(name="m", logprobs=True)).confidence == "summary"
    assert (plain.strict, plain.stop, plain.limits.total_tokens) == (False, (), None)


def test_the_help_names_all_prompts() -> None:
    (task,) = [option for option in dict(commands())["rsa solve"].params if option.name == "task"]
    assert task.help == f"Prompts: {', '.join(resources.names('prompts'))}, or a TOML file."


def test_the_help_of_the_whole_has_four_options() -> None:
    _, out, _ = rsa("--help", env={"COLUMNS": "200", "TERM": "dumb"})
    assert set(re.findall(r"--[a-z-]+", out)) == {"--version", "--install-completion", "--show-completion", "--help"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rsa so", {"solve"}),
        ("rsa models i", {"info"}),
        ("rsa solve --answ", {"--answer-budget"}),
        ("rsa solve --profile paper-1", {"paper-16k"}),
        ("rsa solve --model zaya1-", {"zaya1-8b", "zaya1-vl-8b"}),
        ("rsa solve --task v", {"vision", "vqa"}),
        ("rsa solve --carry a", {"answer_or_reasoning"}),
        ("rsa solve --confidence s", {"summary"}),
        ("rsa eval aime2", {"aime24", "aime25", "aime26"}),
        ("rsa eval sums --method m", {"markovian"}),
    ],
)
def test_completion(typed: str, offered: set[str]) -> None:
    asked = {
        "_RSA_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    _, out, _ = rsa(env=asked)
    assert set(out.split()) == offered


# ---- problems that are no files


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("Make 24 from 3, 7, 5 and 2", "echo 'Make 24 from 3, 7, 5 and 2' | rsa solve -"),
        ("What's 2 + 2?\nSay it.", "echo 'What'\"'\"'s 2 + 2? Say it.' | rsa solve -"),
        ("Use " + "1 " * 5000, f"echo 'Use {'1 ' * 97}1…' | rsa solve -"),
    ],
    ids=["one line", "two lines", "longer than a name can be"],
)
def test_a_problem_in_place_of_its_file_gets_the_command_that_takes_it(given: str, hint: str) -> None:
    code, out, err = rsa("solve", given)
    assert (code, out) == (2, "")
    assert err.startswith(("error: cannot read the problem in ", "error: cannot use "))
    assert err.endswith(f"; if that is the problem itself: {hint}")


def test_a_file_that_is_not_there_gets_no_such_hint() -> None:
    assert rsa("solve", "problm.txt")[2] == "error: cannot read the problem in problm.txt: No such file or directory"
    Path("my problem").mkdir()
    assert rsa("solve", "my problem")[2] == "error: cannot read the problem in my problem: Is a directory"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
@pytest.mark.parametrize("words", ["solve /dev/zero", "solve problem.txt --image /dev/zero"])
def test_a_file_without_end_is_not_read_to_its_end(words: str) -> None:
    assert re.fullmatch(r"error: cannot read .*: it is larger than \d+ MB", rsa(*words.split())[2])


# ---- folders


@pytest.mark.parametrize("flags", [["solve", "--out"], ["solve", "--resume"], ["eval", "--rescore"], ["eval", "--out"]])
def test_an_empty_folder_name_is_refused(flags: list[str]) -> None:
    code, _, err = rsa(*flags, "")
    assert code == 2
    assert f"Invalid value for '{flags[1]}': it is empty: name a folder" in err
    assert list(Path().iterdir()) == [Path("problem.txt")]


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("dangling", "dangling is a link to nowhere, which is not there"),
        ("dangling/run", "dangling is a link to nowhere, which is not there"),
        ("problem.txt", "problem.txt is a file"),
    ],
)
def test_a_folder_that_cannot_be_made_says_why(folder: str, why: str, plain_model: Path) -> None:
    Path("dangling").symlink_to("nowhere")
    sizes = ["--n", "1", "--c", "1", "--t", "0", "--beta", "8", "--tau", "8", "--answer-budget", "8"]
    code, _, err = rsa("solve", "problem.txt", "--model", str(plain_model), *sizes, "--out", folder)
    assert (code, err) == (2, f"error: cannot use run folder {folder}: {why}")


NOBODY = "~no-such-user/x"
PLACES = [
    f"solve {NOBODY}",
    f"solve problem.txt --out {NOBODY}",
    f"solve problem.txt --model {NOBODY}",
    f"solve problem.txt --model scripted:{NOBODY}.py",
    f"solve problem.txt --image {NOBODY}",
    f"solve problem.txt --profile {NOBODY}.toml",
    f"solve problem.txt --task {NOBODY}.toml",
    f"solve --resume {NOBODY}",
    f"serve --runs {NOBODY}",
    f"serve --api-key-file {NOBODY}",
    f"convert {NOBODY} out",
    f"convert nano {NOBODY}",
    f"models info {NOBODY}",
    f"models pull owner/name --to {NOBODY}",
    f"eval {NOBODY}.toml",
    f"eval aime25 --data {NOBODY}.jsonl",
    f"eval sums --out {NOBODY}",
    f"eval --resume {NOBODY}",
    f"eval --rescore {NOBODY}",
    f"eval export {NOBODY}",
    f"tune scripted:x --data {NOBODY}.jsonl",
    f"tune nano --benchmark sums --out {NOBODY}",
    f"tune --resume {NOBODY}",
    f"compare {NOBODY} problem.txt",
    f"merge {NOBODY} problem.txt",
    f"report {NOBODY}",
    f"replay {NOBODY}",
    f"score --metric math {NOBODY}",
]


@pytest.mark.parametrize("words", PLACES)
def test_the_home_of_nobody_is_no_path_anywhere(words: str) -> None:
    """Each of these ended in pathlib's RuntimeError, or took ~ for the name of a folder."""
    code, out, err = rsa(*words.split())
    assert (code in (2, 4), out) == (True, "")
    assert "there is no user 'no-such-user'" in err


def test_a_home_is_spelled_out_wherever_a_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["solve", "--resume", "~/run"], ["eval", "--resume", "~/run"], ["report", "~/run"]):
        assert f"{tmp_path}/run" in rsa(*words)[2].replace(" ", "")


class OneSecond(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> OneSecond:
        return cls(2026, 11, 24, 16, 39, 5, tzinfo=tz)


def test_runs_that_start_in_one_second_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "datetime", OneSecond)
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: stack.enter_context(terminal.new_folder("aime")), range(24)))
        names = ["aime-20261124-163905", *(f"aime-20261124-163905-{number}" for number in range(2, 25))]
        assert sorted(claims) == sorted(Path("runs", name) for name in names)
        assert all(folder.is_dir() for folder in claims)
        (claims[3] / "run.json").touch()
    assert list(Path("runs").iterdir()) == [claims[3]], "what was not used is gone"


def test_what_never_starts_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SolveJob, "run", interrupt)
    assert rsa("solve", "problem.txt") == (130, "", "interrupted before the run began")
    assert rsa("solve", "problem.txt", "--n", "0")[0] == 2
    assert rsa("eval", "sums", "--n", "0")[0] == 2
    assert list(Path().iterdir()) == [Path("problem.txt")]


def test_a_place_where_no_folder_can_be_made() -> None:
    Path("runs").symlink_to("nowhere")
    with pytest.raises(RunFolderError, match="cannot make a folder in runs: File exists"), terminal.new_folder():
        pass


@pytest.mark.parametrize("flag", ["temperature", "top-p", "min-p", "deadline"])
def test_what_is_no_number_is_called_that(flag: str) -> None:
    code, _, err = rsa("solve", "problem.txt", f"--{flag}", "nan")
    assert code == 2
    assert err.endswith("= nan: should be a finite number")


def test_settings_in_messages_of_the_library_become_flags() -> None:
    message = "the `data` of `papers` do not fit: lower `answer_budget` or `deadline`, or give `limit`"
    assert with_flags(message, ["limit"]) == (
        "the `data` of `papers` do not fit: lower --answer-budget or --deadline, or give --limit"
    )
