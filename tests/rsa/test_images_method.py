"""Problems with images, on a tiny model that sees: sent in every round, encoded once, and kept for a resume."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from command_line import rsa
from PIL import Image

from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.scripted import ScriptedEngine
from engine.vision.tower import VisionTower
from rsa import MarkovianRSA, ProblemError, RSAConfig, read_events, read_result, read_run
from rsa.budgets import plan
from rsa.events import CandidateFinished, RunStarted
from rsa.problem import Problem
from rsa.prompts import load_prompts
from rsa.results import Budgets, RunResult
from rsa.runlog import EVENTS

pytestmark = pytest.mark.thorough

TINY = Path(__file__).resolve().parents[1] / "golden" / "tiny_hf"
SMALL: dict[str, Any] = {"n": 3, "c": 2, "t": 2, "beta": 12, "tau": 8, "answer_budget": 8, "temperature": 3.0}
FLAGS = [word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (84, 56)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))


@pytest.fixture
def seeing() -> Iterator[MLXEngine]:
    engine = load_engine(TINY)
    yield engine
    engine.close()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The grids of all images that the tower is given."""
    grids: list[tuple[int, int, int]] = []
    compute = VisionTower.__call__

    def watched(this: VisionTower, patches: mx.array, given: Sequence[tuple[int, int, int]]) -> mx.array:
        grids.extend(given)
        return compute(this, patches, given)

    monkeypatch.setattr(VisionTower, "__call__", watched)
    return grids


def outcome(result: RunResult) -> list[tuple[int, ...]]:
    completions = [candidate.completion for each in result.rounds for candidate in each.candidates]
    return [completion.token_ids if completion else () for completion in completions]


def test_a_run_encodes_each_image_once(seeing: MLXEngine, encoded: list[tuple[int, int, int]]) -> None:
    rsa = MarkovianRSA(seeing, **SMALL)
    result = rsa.solve_sync(Problem("w5 w6 w7", images=[RED, BLUE, RED]))
    assert len(result.rounds) == 3
    assert encoded == [(1, 4, 6)] * 2
    # From round 1 on, all prompts begin alike: the images are computed for the first of them and used by the others.
    later = [c.completion.usage for each in result.rounds[1:] for c in each.candidates if c.completion]
    assert [usage.cached_tokens >= 3 * 8 for usage in later] == [False, *[True] * 5]
    assert outcome(rsa.solve_sync(Problem("w5 w6 w7", images=[RED, BLUE, RED]))) == outcome(result)
    assert encoded == [(1, 4, 6)] * 2


def test_the_budgets_are_planned_with_the_images(seeing: MLXEngine) -> None:
    config = RSAConfig(**{**SMALL, "beta": 100, "tau": 50, "answer_budget": 100})

    def planned(*images: bytes) -> Budgets:
        return plan(seeing, config, Problem("w5", images=images), load_prompts("vision"))

    text_only, small, large = planned(), planned(RED), planned(picture((9, 9, 9), (448, 280)))
    assert text_only.lowered is small.lowered is None
    assert small.initial_prompt == text_only.initial_prompt + 6 + 2
    assert large.beta < 100
    assert "do not fit the model's context of 512 tokens" in str(large.lowered)
    with pytest.raises(ProblemError, match=r"images take 514 tokens: use fewer or smaller ones"):
        planned(picture((9, 9, 9), (896, 448)))


def test_a_broken_image_is_named(seeing: MLXEngine, encoded: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ProblemError, match="image 2 of the problem cannot be used: "):
        MarkovianRSA(seeing, **SMALL).solve_sync(Problem("w5", images=[RED, BLUE[:60]]))
    assert encoded == []


# ---- the task


@pytest.mark.parametrize(
    ("images", "settings", "task"),
    [
        ([RED], {}, "vision"),
        ([RED], {"task": "math"}, "math"),
        ([RED], {"config": RSAConfig(task="choice")}, "choice"),
        ([RED], {"config": RSAConfig(t=0), "n": 4}, "vision"),
        ([], {}, "math"),
    ],
)
def test_images_mean_the_vision_task_unless_another_is_asked_for(
    images: list[bytes], settings: dict[str, object], task: str, tmp_path: Path
) -> None:
    more = {} if "config" in settings else {"n": 4, "t": 0}
    rsa = MarkovianRSA(ScriptedEngine("<think>hm</think>\\boxed{1}"), **{**more, **settings})  # type: ignore[arg-type]
    result = rsa.solve_sync(Problem("what?", images=images), out=tmp_path / "run")
    assert result.config.task == task
    started = read_events(tmp_path / "run")[0]
    assert isinstance(started, RunStarted)
    assert started.task == task


# ---- the command line


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSA_MODEL", raising=False)
    Path("problem.txt").write_text("w5 w6 w7\n")
    Path("red.png").write_bytes(RED)
    Path("blue.png").write_bytes(BLUE)
    return tmp_path


def command(*words: object) -> tuple[int, str]:
    done = rsa(*words)
    return done.code, done.words


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_solve_with_images_and_resume_without_them(encoded: list[tuple[int, int, int]]) -> None:
    images = ["--image", "red.png", "--image", "blue.png"]
    code, said = command("solve", "problem.txt", "--model", TINY, *images, *FLAGS, "--out", "run")
    assert code == 3, said  # random weights box no answer
    record, problem = read_run("run")
    assert record.config.task == "vision"
    assert [image.data for image in problem.images] == [RED, BLUE]
    whole = read_result("run")
    assert encoded == [(1, 4, 6)] * 2

    # Stopped after the first candidate of round 1, in another place, without the files.
    shutil.copytree("run", "moved")
    Path("moved/result.json").unlink()
    Path("red.png").unlink()
    events = Path("moved") / EVENTS
    ended = [i for i, event in enumerate(read_events("moved")) if isinstance(event, CandidateFinished)]
    events.write_bytes(b"".join(events.read_bytes().splitlines(keepends=True)[: ended[SMALL["n"]] + 1]))
    code, said = command("solve", "--resume", "moved", "--profile", "light", *FLAGS)
    assert code == 3, said
    resumed = read_result("moved")
    assert outcome(resumed) == outcome(whole)
    assert encoded == [(1, 4, 6)] * 4


def photo(size: tuple[int, int] = (84, 56)) -> bytes:
    file = BytesIO()
    Image.effect_noise(size, 60).save(file, "JPEG")
    return file.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels."""
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return picture((0, 0, 0))[:12] + size + struct.pack(">I", zlib.crc32(size)) + picture((0, 0, 0))[33:]


BAD = {
    "a truncated JPEG": (photo()[:-200], "the image is damaged or cut off"),
    "the start of a PNG": (RED[:60], "the image is damaged or cut off"),
    "one pixel": (picture((0, 0, 0), (1, 1)), "the image is too small: 1 x 1 pixels"),
    "20,000 pixels square": (header(20_000, 20_000), "the image is too large: more than 134 million pixels"),
    "20,000 pixels wide": (picture((0, 0, 0), (20_000, 150)), "images take 3580 tokens: use fewer or smaller ones"),
    "a bomb": (header(2**31 - 1, 2**31 - 1), "the image is too large: more than 134 million pixels"),
    "a text": (b"no image", "image bad is empty or no PNG"),
    "nothing": (b"", "image bad is empty or no PNG"),
}


@pytest.mark.usefixtures("in_a_folder_of_its_own")
@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_bad_images_are_told_in_a_line_before_anything_runs(
    data: bytes, words: str, encoded: list[tuple[int, int, int]]
) -> None:
    Path("bad").write_bytes(data)
    code, said = command("solve", "problem.txt", "--model", TINY, "--image", "red.png", "--image", "bad", *FLAGS)
    assert code == 2
    assert words in said
    assert said.count("error: ") == 1
    assert said.startswith("error: ")
    assert not Path("runs").exists()
    assert encoded == []


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_models_that_cannot_take_the_images_are_told_so() -> None:
    code, said = command("solve", "problem.txt", "--image", "red.png", "--n", 2, "--c", 1)
    assert (code, said.split(":")[:2]) == (2, ["error", " the problem has images, but nano reads text only"])
    bundle = shutil.copytree(TINY.parent / "tiny_jang", "bundle")
    (Path(bundle) / "model.safetensors").rename("bundle/model-00001-of-00002.safetensors")
    code, said = command("solve", "problem.txt", "--model", "./bundle", "--image", "red.png", *FLAGS)
    assert code == 4
    assert said.startswith("error: bundle is incomplete: 1 of 2 weight files are not there (model-00002-of-00002")
    assert not Path("runs").exists()


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_an_image_token_in_the_problem_is_text() -> None:
    Path("problem.txt").write_text("w5 <image> <|im_end|> w6\n")
    code, said = command("solve", "problem.txt", "--model", TINY, "--image", "red.png", *FLAGS, "--out", "run")
    assert code == 3, said  # random weights box no answer
    assert read_result("run").stopped_because == "finished"
