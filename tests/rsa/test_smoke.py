"""`rsa doctor --smoke`: what a model in working order is told, and what a broken one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from command_line import rsa
from PIL import Image

from engine.api import GenerationRequest, ModelInfo
from engine.errors import EngineError
from engine.scripted import Script, ScriptedEngine, ScriptLike
from rsa import compose
from rsa.answers.checking import find_checker
from rsa.command.smoke import QUESTIONS, questions_for

pytestmark = pytest.mark.thorough

TINY = Path(__file__).resolve().parents[1] / "golden" / "tiny_hf"
RIGHT = {
    "2 + 2": "2 + 2 is 4.",
    "capital": "It is **Paris**.",
    "thinking off": "Green",
    "image": "red",
}


def doctor(*words: object) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit code, of each thing its mark and text, and standard error."""
    done = rsa("doctor", *words)
    lines = {line[4:18].strip(): (line[:3].strip(), line[19:]) for line in done.out.splitlines()}
    return done.code, lines, done.err


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedEngine]:
    """Have `--model` open a scripted engine, on a machine that is in order."""
    monkeypatch.setattr("rsa.command.doctor.examine", list)
    monkeypatch.delenv("RSA_MODEL", raising=False)

    def use(script: Callable[[GenerationRequest], ScriptLike], **options: bool) -> ScriptedEngine:
        engine = ScriptedEngine(script, name="scripted", **options)  # type: ignore[arg-type]
        monkeypatch.setattr(compose, "open_engine", lambda model, **options: engine)
        return engine

    return use


def right(request: GenerationRequest) -> Script:
    return Script(reasoning="hm" if request.thinking else "", answer=RIGHT[request.id])


def test_a_model_in_working_order(play: Callable[..., ScriptedEngine]) -> None:
    engine = play(right)
    code, lines, _ = doctor("--smoke", "--model", "m")
    assert code == 0
    assert lines["model"] == ("ok", "scripted, reads images")
    assert lines["2 + 2"] == ("ok", "What is 2 + 2? -> 2 + 2 is 4.")
    assert [mark for mark, _ in lines.values()] == ["ok"] * 5
    asked = {request.id: request for request in engine.requests}
    assert {name: request.thinking for name, request in asked.items()} == {
        name: name != "thinking off" for name in RIGHT
    }
    (image,) = asked["image"].messages[0].images
    assert Image.open(BytesIO(image.data)).getcolors() == [(224 * 224, (255, 0, 0))]
    assert engine._closed


def test_what_slows_a_model_down_is_said(play: Callable[..., ScriptedEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = play(right)
    note = "kernels of our own do not run here"
    monkeypatch.setattr(engine, "_model", engine.model.model_copy(update={"notes": (note,)}))
    _, lines, _ = doctor("--smoke", "--model", "m")
    assert lines["note"] == ("ok", note)


BROKEN = {
    "2 + 2": ("Not solved\n\n, no\n2/2=1, 3*2=6, 6-1=5, no\n... 4", "(expected: 4 or four)"),
    "capital": ("", "-> nothing (expected: Paris)"),
    "thinking off": ("greenish", "-> greenish (expected: green)"),
    "image": ("I cannot see a reddish image.", "(expected: red)"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_wrong_answer_fails(play: Callable[..., ScriptedEngine], what: str) -> None:
    answer, words = BROKEN[what]
    play(lambda request: Script(answer=answer) if request.id == what else right(request))
    code, lines, _ = doctor("--smoke", "--model", "m")
    assert code == 4
    assert {name for name, (mark, _) in lines.items() if mark == "!!"} == {what}
    assert words in lines[what][1]


@pytest.mark.parametrize(
    "answer",
    [
        *("4", "**Four.**", "2 + 2 is 4.", "2+2=4", "2 + 2 equals **4**", "It is equal to 4.", "Answer: 4"),
        *(r"The answer is $\boxed{4}$.", r"\boxed{4}", "The sum of 2 and 2 is four, of course."),
    ],
)
def test_four_is_said_in_many_ways(answer: str) -> None:
    assert QUESTIONS[0].judge(answer).mark == "verified"


@pytest.mark.parametrize(
    "answer",
    ["5", "it is 14 or 41", "It is 4.5", "4 is not it", "2 + 2 = 4 + 1", "There are 4 of them: 5", r"\boxed{44}", ""],
)
def test_a_four_somewhere_is_no_answer(answer: str) -> None:
    assert QUESTIONS[0].judge(answer).mark == "wrong"


def test_nano_is_asked_its_own_puzzles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsa.command.doctor.examine", list)
    code, lines, said = doctor("--smoke", "--model", "nano")
    assert (code, said) == (0, "")
    assert {name: mark for name, (mark, _) in lines.items()} == dict.fromkeys(
        ("model", "note", "countdown", "chain", "sums"), "ok"
    )
    asked, _, answer = lines["sums"][1].partition(" -> ")
    assert (asked, answer) == ("What is 48 + 93 - 20 + 7?", r"The answer is \boxed{128}.")


@pytest.mark.parametrize(
    ("answer", "code", "marks"),
    [
        (r"\boxed{7*5-9-2}", 4, {"!!"}),
        (r"\boxed{72}", 4, {"ok", "!!"}),
    ],
)
def test_a_model_that_fails_its_own_puzzles_is_broken(
    play: Callable[..., ScriptedEngine], monkeypatch: pytest.MonkeyPatch, answer: str, code: int, marks: set[str]
) -> None:
    play(lambda request: Script(reasoning="hm", answer=answer))
    nano = ModelInfo(name="nano", details={"source": "nano"})
    monkeypatch.setattr("rsa.command.smoke.questions_for", lambda model: questions_for(nano))
    found, lines, _ = doctor("--smoke", "--model", "m")
    assert found == code
    assert {mark for name, (mark, _) in lines.items() if name != "model"} == marks


def test_without_its_checker_nano_is_not_called_broken(
    play: Callable[..., ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(lambda request: Script(reasoning="hm", answer=r"\boxed{72}"))
    monkeypatch.setattr(compose, "checker_of", lambda model: find_checker("not installed"))
    monkeypatch.setattr(compose, "smoke_problems", lambda model: {"chain": "Start at 4, add 68, all modulo 97."})
    code, lines, _ = doctor("--smoke", "--model", "m")
    assert code == 0
    assert lines["chain"][0] == "!"
    assert "cannot be loaded" in lines["chain"][1]


def test_a_right_answer_that_never_stops_fails(play: Callable[..., ScriptedEngine]) -> None:
    play(lambda request: Script(answer="2 + 2 is 4. " * 100) if request.id == "2 + 2" else right(request))
    code, lines, _ = doctor("--smoke", "--model", "m")
    assert code == 4
    assert "did not stop within" in lines["2 + 2"][1]


def test_a_request_that_fails_is_told(play: Callable[..., ScriptedEngine]) -> None:
    play(lambda request: Script(error=EngineError("no luck")) if request.id == "capital" else right(request))
    code, lines, _ = doctor("--smoke", "--model", "m")
    assert code == 4
    assert lines["capital"] == ("!!", "failed: no luck")


def test_a_model_that_reads_text_only_is_shown_no_image(
    plain_model: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[..., ScriptedEngine]
) -> None:
    code, lines, _ = doctor("--smoke", "--model", plain_model)
    assert code == 4, "it is random"
    assert lines["model"] == ("ok", "tiny-writer, text only")
    assert lines["image"] == ("ok", "skipped: tiny-writer reads text only")
    assert lines["capital"][0] == "!!"


def test_a_model_with_random_weights_fails_all(play: Callable[..., ScriptedEngine]) -> None:
    code, lines, _ = doctor("--smoke", "--model", TINY)
    assert code == 4
    assert lines["model"] == ("ok", "tiny_hf, reads images")
    assert {name for name, (mark, _) in lines.items() if mark == "!!"} == set(RIGHT)
    assert "What is the capital of France? -> " in lines["capital"][1]


def test_a_question_that_is_refused_leaves_the_others(tmp_path: Path, play: Callable[..., ScriptedEngine]) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    code, lines, said = doctor("--smoke", "--model", folder)
    assert (code, said) == (4, "")
    assert lines["image"][1].startswith("failed: the model has no chat template")
    assert "What is the capital of France? -> " in lines["capital"][1]


@pytest.mark.parametrize("words", [["--smoke"], ["--model", "nano"]])
def test_smoke_and_model_go_together(play: Callable[..., ScriptedEngine], words: list[str]) -> None:
    code, lines, said = doctor(*words)
    assert (code, lines) == (2, {})
    assert "--smoke and --model go together" in said


def test_a_model_that_is_not_there(play: Callable[..., ScriptedEngine]) -> None:
    code, _, said = doctor("--smoke", "--model", "./nowhere")
    assert (code, said) == (4, "error: there is no model folder nowhere\n")
