"""A problem is a conversation: kept in every prompt, in budgets, in the run folder; what is none is refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest, ImagePart, Message
from engine.scripted import ByteTokenizer, Script, ScriptedEngine
from rsa import (
    ConfigError,
    MarkovianRSA,
    Problem,
    ProblemError,
    ResumeMismatchError,
    RSAConfig,
    RunFolderError,
    RunResult,
    Turn,
    read_run,
)
from rsa.budgets import plan
from rsa.prompts import load_prompts
from rsa.settings.suitability import suited

SMALL: dict[str, Any] = {"n": 3, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"
TALK = Problem(
    "And of 18?",
    images=[PNG],
    system="Answer in one line.",
    earlier=[Turn("user", "Which numbers divide 12?", [JPEG]), Turn("assistant", "1, 2, 3, 4, 6 and 12.")],
)


def script(request: GenerationRequest) -> Script:
    return Script(f"in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}")


def engine() -> ScriptedEngine:
    return ScriptedEngine(script)


# ---- what it is


def test_the_conversation_stands_before_every_prompt_of_every_round() -> None:
    asked = engine()
    result = MarkovianRSA(asked, **SMALL, select="aggregate").solve_sync(TALK)
    assert len(asked.requests) == 3 * 3 + 1
    for request in asked.requests:
        *before, last = request.messages
        assert tuple(before) == TALK.earlier
        assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
        assert TALK.text in last.text != TALK.text
        assert last.images == (ImagePart(data=PNG),)
    assert result.config.task == "vision"
    first, second = ({c.prompt_sha256 for c in played.candidates} for played in result.rounds[:2])
    assert len(first) == 1
    assert first.isdisjoint(second)


def test_a_text_is_a_conversation_of_one_turn_with_the_id_it_always_had() -> None:
    plain = Problem("why?")
    assert plain.messages == (Message(role="user", text="why?"),)
    assert plain.id == hashlib.sha256(b"why?").hexdigest()[:16]
    pictured = Problem("why?", images=[PNG, JPEG])
    digests = b"".join(hashlib.sha256(data).digest() for data in (PNG, JPEG))
    assert pictured.id == hashlib.sha256(b"why?" + digests).hexdigest()[:16]
    assert Problem("why?", problem_id="aime-3").id == "aime-3"


def test_the_id_changes_with_all_of_the_conversation() -> None:
    def problem(text: str = "b", system: str | None = "s", said: str = "a", role: Any = "user") -> Problem:
        return Problem(text, system=system, earlier=[Turn(role, said)])

    def pictured(*images: bytes) -> Problem:
        return Problem("b", system="s", earlier=[Turn("user", "a", images)])

    changed = [
        *(problem(), problem(text="c"), problem(system=None), problem(system="t"), problem(said="c")),
        *(problem(role="assistant"), Problem("b"), Problem("b", system="s"), pictured(PNG), pictured(PNG, JPEG)),
        *(pictured(JPEG, PNG), Problem("b", system="s", earlier=[Turn("user", "a")], images=[PNG])),
    ]
    assert len({each.id for each in changed}) == len(changed)
    assert problem() == problem()
    assert pictured(PNG) == pictured(PNG)


def test_a_whole_conversation_is_the_problem_it_ends_with() -> None:
    assert Problem.conversation(TALK.messages) == TALK
    turns = [Turn("system", "Be brief."), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c", [PNG])]
    assert Problem.conversation(turns) == Problem("c", system="Be brief.", earlier=turns[1:3], images=[PNG])
    assert Problem.conversation(turns, problem_id="x").id == "x"


def test_images_are_bytes_or_paths_or_parts_in_any_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    given = [Problem("x", images=[each], earlier=[Turn("user", "y", [each])]) for each in (PNG, path, TALK.images[1])]
    assert given[0] == given[1] == given[2]
    assert given[0].images == (ImagePart(data=PNG),) * 2


# ---- budgets and folders


def test_the_conversation_counts_in_the_budgets() -> None:
    config, prompts = RSAConfig(**SMALL), load_prompts("math")
    short, long = Problem("why?"), Problem("why?", system="s" * 100, earlier=[Turn("assistant", "é" * 50)])
    budgets = [plan(engine(), config, problem, prompts) for problem in (short, long)]
    added = ByteTokenizer().prompt_tokens(long.messages) - ByteTokenizer().prompt_tokens(short.messages)
    assert added >= 200
    assert budgets[1].initial_prompt - budgets[0].initial_prompt == added
    assert budgets[1].prompt_bound - budgets[0].prompt_bound == added
    with pytest.raises(ProblemError, match="shorten the problem"):
        MarkovianRSA(ScriptedEngine(script, context_tokens=500), **SMALL).solve_sync(
            Problem("why?", earlier=[Turn("user", "x" * 500)])
        )


def answers(result: RunResult) -> list[str | None]:
    return [candidate.answer for played in result.rounds for candidate in played.candidates]


def test_a_conversation_is_resumed_from_its_folder(tmp_path: Path) -> None:
    whole = MarkovianRSA(engine(), **SMALL, answers="every").solve_sync(TALK, out=tmp_path / "run")
    record, problem = read_run(tmp_path / "run")
    assert problem == TALK
    assert record.problem == "And of 18?"
    assert {path.name for path in (tmp_path / "run" / "images").iterdir()} == {image.sha256 for image in TALK.images}
    (tmp_path / "run" / "result.json").unlink()
    log = tmp_path / "run" / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:8]))
    again = engine()
    resumed = MarkovianRSA(again, **SMALL, answers="every").solve_sync(problem, out=tmp_path / "run", resume=True)
    assert 0 < len(again.requests) < 9
    assert answers(resumed) == answers(whole)


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        (Problem("And of 18?", images=[PNG], earlier=TALK.earlier[1:]), {"earlier turns", "images", "problem_id"}),
        (Problem("And of 24?", images=[PNG], earlier=TALK.earlier), {"problem", "problem_id"}),
        (Problem("And of 18?", images=[JPEG], earlier=TALK.earlier), {"images", "problem_id"}),
        (Problem("And of 18?", images=[PNG], earlier=TALK.earlier, problem_id="x"), {"problem_id"}),
    ],
)
def test_another_conversation_is_another_run(tmp_path: Path, other: Problem, keys: set[str]) -> None:
    rsa = MarkovianRSA(engine(), **{**SMALL, "t": 0})
    rsa.solve_sync(TALK, out=tmp_path / "run")
    with pytest.raises(ResumeMismatchError) as caught:
        rsa.solve_sync(other, out=tmp_path / "run", resume=True)
    assert set(caught.value.keys) == keys


@pytest.mark.parametrize(("number", "words"), [(3, "by an older version (format 3)"), (99, "by a newer version")])
def test_a_folder_of_another_version_is_refused_in_a_line(tmp_path: Path, number: int, words: str) -> None:
    rsa = MarkovianRSA(engine(), **{**SMALL, "t": 0})
    rsa.solve_sync("why?", out=tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": number, "problem": "a field of another version"}))
    for use in (lambda: read_run(tmp_path / "run"), lambda: rsa.solve_sync("why?", out=tmp_path / "run", resume=True)):
        with pytest.raises(RunFolderError, match=re.escape(words)) as caught:
            use()
        assert "\n" not in str(caught.value)


# ---- what is refused


untyped: Any = Problem
untyped_turn: Any = Turn


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: untyped(" \n"), "the problem is empty"),
        (lambda: untyped("\ud800"), "the problem is not valid Unicode: save it as UTF-8"),
        (lambda: untyped(None), "the problem is None: should be a text or a Problem"),
        (lambda: untyped(5), "the problem is 5: should be a text"),
        (lambda: untyped(b"why?"), "the problem is b'why?': should be a text"),
        (lambda: untyped("x", problem_id=5), "problem_id is 5: should be a text"),
        (lambda: untyped("x", problem_id=""), "problem_id is '': should be a text that is not empty"),
        (lambda: untyped("x", problem_id="\ud800"), "problem_id is '\\ud800'"),
        (lambda: untyped("x", images=[5]), "image 5 is no image: give the bytes of a file, or a Path"),
        (lambda: untyped("x", images=5), "images is 5: should be a list of images"),
        (lambda: untyped("x", images=PNG), "should be a list of images"),
        (lambda: untyped("x", images=Path("x.png")), "should be a list of images"),
        (lambda: untyped("x", images="x.png"), "images is 'x.png': should be a list of images"),
        (lambda: untyped("x", images=["x.png"]), "image 'x.png' is a text: give a file as Path('x.png')"),
        (lambda: untyped("x", images=[Path("nowhere.png")]), "cannot read image nowhere.png: No such file"),
        (lambda: untyped("x", images=[Path("a\0b")]), "cannot use 'a\\x00b' as an image"),
        (lambda: untyped("x", images=[Path("~no-such-user/x.png")]), "cannot use '~no-such-user/x.png' as an image"),
        (lambda: untyped("x", images=[b"text"]), "no PNG"),
        (lambda: untyped("x", system=5), "the text of turn 1 of the conversation is 5"),
        (lambda: untyped("x", system=" "), "turn 1 of the conversation is empty: leave it out"),
        (lambda: untyped("x", earlier="hi"), "earlier is 'hi': should be a list of turns"),
        (lambda: untyped("x", earlier=[("user", "hi")]), "is ('user', 'hi'): should be a Turn(role, text)"),
        (lambda: untyped("x", earlier=[untyped_turn("bot", "hi")]), "'bot': should be one of system, user, assistant"),
        (lambda: untyped("x", earlier=[untyped_turn("user", "a", ["b.png"])]), "image 'b.png' is a text"),
        (
            lambda: untyped("x", earlier=[Turn("user", "a"), Turn("system", "b")]),
            "a system message can only come first",
        ),
        (lambda: untyped("x", system="a", earlier=[Turn("system", "b")]), "a system message can only come first"),
        (lambda: untyped.conversation([]), "the conversation is empty"),
        (lambda: untyped.conversation([Turn("system", "a")]), "its last turn should be a user's"),
        (lambda: untyped.conversation([Turn("user", "a"), Turn("assistant", "b")]), "a turn of the assistant"),
        (lambda: untyped.conversation("hi"), "a conversation is 'hi'"),
    ],
)
def test_what_is_no_problem_is_refused_in_a_line(make: Callable[[], Problem], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["/etc/hostname", "~/secret.png", "file:///etc/hostname"])
def test_a_text_is_never_read_as_the_name_of_a_file(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        pytest.fail(f"{path} was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(ProblemError, match="give a file as Path"):
        Problem("x", images=[text])  # type: ignore[list-item]
    assert Problem(text).text == text


@pytest.mark.parametrize(
    ("problem", "options", "error", "words"),
    [
        (None, {}, ProblemError, "the problem is None"),
        (b"why?", {}, ProblemError, "should be a text or a Problem"),
        ("why?", {"out": "a\0b"}, RunFolderError, "cannot use 'a\\x00b' as a path: it has a zero byte"),
        ("why?", {"out": ""}, RunFolderError, "cannot use '' as a path: it is empty"),
        ("why?", {"out": 5}, RunFolderError, "cannot use 5 as a path"),
        ("why?", {"out": "~no-such-user/run"}, RunFolderError, "as a path: there is no user 'no-such-user'"),
        ("why?", {"images": [PNG]}, ConfigError, "images is no setting but part of the problem"),
        ("why?", {"bta": 3}, ConfigError, "did you mean 'beta'"),
        ("why?", {"n": 1}, ConfigError, "c = 2 is more than n = 1"),
        ("why?", {"resume": True}, ConfigError, "resume needs the run's folder"),
    ],
)
def test_faults_of_a_call_are_named_at_once(problem: Any, options: dict[str, Any], error: type, words: str) -> None:
    asked = engine()
    rsa = MarkovianRSA(asked, **SMALL)
    for call in (rsa.solve_sync, rsa.stream):
        with pytest.raises(error, match=re.escape(words)) as caught:
            call(problem, **options)
        assert "\n" not in str(caught.value)
    assert asked.requests == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": 5}, "no profile is called 5"),
        ({"profile": b"light"}, "no profile is called b'light'"),
        ({"method": 5}, "no method is called 5"),
        ({"config": {}}, "config = {}: should be an RSAConfig"),
        ({"engine_options": 5}, "engine_options = 5: should be a mapping"),
        ({"engine_options": {5: 1}}, "engine_options = {5: 1}: should be a mapping"),
        ({"progress_every_s": "x"}, "progress_every_s = 'x': should be a number of seconds"),
        ({"progress_every_s": math.nan}, "progress_every_s = nan: should be a number of seconds"),
        ({"math_workers": 5}, "math_workers = 5: should be MathWorkers"),
        ({"sync": []}, "sync = []: should be one of candidate"),
        ({"limits": 5}, "limits = 5: should be a table"),
        ({"task": "a\0.toml"}, "cannot use 'a\\x00.toml' as a path"),
    ],
)
def test_faults_of_arguments_are_named_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        MarkovianRSA("nano", **options).solve_sync("why?")
    assert "\n" not in str(caught.value)


# ---- settings of one call


@pytest.mark.anyio
async def test_settings_of_a_call_are_of_that_run_alone() -> None:
    rsa = MarkovianRSA(engine(), **SMALL)
    plain = await rsa.solve("why?")
    changed = await rsa.solve("why?", seed=7, t=0, limits={"total_tokens": 10_000})
    async with rsa.stream("why?", n=4) as events:
        last = [event async for event in events][-1]
    assert last.type == "run_finished"
    assert len(last.result.rounds[0].candidates) == 4
    assert (changed.config.seed, len(changed.rounds)) == (7, 1)
    expected = rsa.config.replace(seed=7, t=0, limits={"total_tokens": 10_000})
    assert changed.config == suited(expected, changed.model)
    again = await rsa.solve("why?")
    assert again.config == plain.config == suited(rsa.config, plain.model)
    assert [c.seed for c in again.rounds[0].candidates] == [c.seed for c in plain.rounds[0].candidates]
    other = await MarkovianRSA(engine(), **SMALL, seed=7).solve("why?", t=0)
    assert [c.seed for c in changed.rounds[0].candidates] == [c.seed for c in other.rounds[0].candidates]
