"""Every benchmark that reads a data set, from local files in exactly the Hub's columns. All problems are made up."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from evals.data.benchmarks import benchmark_names, load_benchmark
from evals.data.open import open_data
from evals.data.question import Question
from evals.folder import read_results
from evals.scorers import make
from rsa import compose
from rsa.command.cli import app

Row = dict[str, Any]
Rows = list[Row]
CASES: dict[str, Row] = {
    case["case"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "benchmark_rows.json").read_text(encoding="utf-8"))
}
"""Rows as the Hub has them, and the questions they become. {"png": 7} is an image of one shade of red; so are the
numbers that questions have as images."""


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def written(rows: Rows, as_image: Callable[[bytes], object]) -> Rows:
    return [
        {
            name: as_image(png(value["png"])) if isinstance(value, dict) and "png" in value else value
            for name, value in row.items()
        }
        for row in rows
    ]


def parquet(folder: Path, rows: Rows) -> Path:
    """As the Hub holds the data set."""
    table = pa.Table.from_pylist(written(rows, lambda data: {"bytes": data, "path": None}))
    pyarrow.parquet.write_table(table, folder / "data.parquet")
    return folder / "data.parquet"


def jsonl(folder: Path, rows: Rows, as_image: Callable[[bytes], str]) -> Path:
    """As people export it."""
    lines = [json.dumps(row) for row in written(rows, as_image)]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return folder / "data.jsonl"


def with_files(folder: Path, rows: Rows) -> Path:
    def saved(data: bytes) -> str:
        name = f"pictures/{hashlib.sha256(data).hexdigest()}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return name

    return jsonl(folder, rows, saved)


def with_base64(folder: Path, rows: Rows) -> Path:
    return jsonl(folder, rows, lambda data: base64.b64encode(data).decode())


def with_data_urls(folder: Path, rows: Rows) -> Path:
    return jsonl(folder, rows, lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}")


def expected(case: Row) -> list[Question]:
    return [
        Question(**{**question, "images": tuple({"data": png(red)} for red in question.get("images", ()))})
        for question in case["questions"]
    ]


@pytest.mark.parametrize("write", [parquet, with_files, with_base64, with_data_urls])
@pytest.mark.parametrize("name", CASES)
def test_questions_of_a_local_file(name: str, write: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    case = CASES[name]
    data = open_data(load_benchmark(case["benchmark"]), data=write(tmp_path, case["rows"]))
    questions = list(data)
    assert list(data) == questions, "it can be read again"
    if name == "ai2d":  # the cluster is a digest of the image
        (cluster,) = {question.cluster for question in questions}
        assert cluster
        questions = [question.model_copy(update={"cluster": "same image"}) for question in questions]
    assert questions == expected(case)
    assert data.ids == tuple(question.id for question in questions)
    assert (data.info.kind, data.info.rows, data.info.selected, len(data)) == ("file", *[len(case["rows"])] * 3)


@pytest.mark.parametrize("name", CASES)
def test_the_metric_can_use_the_gold_answers(name: str, tmp_path: Path) -> None:
    """And a gold answer in a box is right."""
    case = CASES[name]
    benchmark = load_benchmark(case["benchmark"])

    async def worths() -> set[float | None]:
        values = set()
        async with make(str(benchmark.metric), settings=benchmark.settings) as scorer:
            for question in open_data(benchmark, data=parquet(tmp_path, case["rows"])):
                gold = question.gold[0] if isinstance(question.gold, list) else question.gold
                answer = "ABCD"[int(str(gold))] if name == "ai2d" else str(gold).rpartition("#### ")[2]
                score = await scorer.score(f"\\boxed{{{answer}}}", question.gold, question.fields)
                values.add(score.value)
        return values

    assert anyio.run(worths) == {1.0}


def test_no_benchmark_is_forgotten() -> None:
    assert {case["benchmark"] for case in CASES.values()} | {"countdown", "chain", "sums"} == set(benchmark_names())


WORTH: dict[str, tuple[tuple[str, ...], float, dict[str, int]]] = {
    "aime24 of HuggingFaceH4": (
        (r"\boxed{25}", r"so it is $\boxed{025}$", r"\boxed{26}", "25, I think"),
        2 / 4,
        {"scored": 3, "no_answer": 1},
    ),
    "aime25 of MathArena": (
        (r"\boxed{5}", r"\boxed{2+3}", r"\boxed{6}", r"\boxed{9^{9^{9^{9}}}}"),
        2 / 3,  # nobody can tell of the last one
        {"scored": 3, "too_hard": 1},
    ),
    "aime26": ((r"\boxed{0}", r"\boxed{00}", r"\boxed{1}", r"\boxed{}0"), 2 / 4, {"scored": 3, "no_answer": 1}),
    "hmmt_feb25": ((r"\boxed{0.5}", r"\boxed{\dfrac{2}{4}}", r"\boxed{0.51}", r"\boxed{50\%}"), 2 / 4, {"scored": 4}),
    "hmmt_nov25": ((r"\boxed{[1,2]}", r"\boxed{(1, 2)}", r"\boxed{[1, \frac42]}", r"\boxed{1}"), 2 / 4, {"scored": 4}),
    "hmmt_feb26": ((r"\boxed{1024}", r"\boxed{4^5}", r"\boxed{1{,}024}", r"\boxed{1000}"), 3 / 4, {"scored": 4}),
    "gsm8k": (
        (r"\boxed{2125}", r"\boxed{2{,}125}", r"\boxed{25}", "2,125 ducks"),
        2 / 4,
        {"scored": 3, "no_answer": 1},
    ),
    "ai2d": ((r"\boxed{C}", "Answer: C", r"\boxed{B}", "I cannot tell"), 2 / 4, {"scored": 3, "no_answer": 1}),
    # One of six characters is wrong; letters' size and spaces do not count; nothing like it.
    "docvqa": (
        (r"\boxed{1/8/93}", r"\boxed{1/8/94}", r"\boxed{8  JANUARY 1993}", r"\boxed{unknown}"),
        (1 + 5 / 6 + 1 + 0) / 4,
        {"scored": 4},
    ),
    # 7, 1, 1 and 0 of ten annotators.
    "textvqa": (
        (r"\boxed{down}", r"\boxed{The table.}", r"\boxed{Skateboard}", r"\boxed{up}"),
        (1 + 0.3 + 0.3 + 0) / 4,
        {"scored": 4},
    ),
    "vqav2": (
        ("down", r"\boxed{\text{at table}}", r"\boxed{tables}", ""),
        (1 + 0.3) / 4,
        {"scored": 3, "no_answer": 1},
    ),
    # Rounded to one digit: 1.2, 1.2, 1.3; a unit does not count.
    "mathvista": ((r"\boxed{1.2}", r"\boxed{1.24}", r"\boxed{1.26}", r"\boxed{1.2 g}"), 3 / 4, {"scored": 4}),
    "mmmu": (
        (r"\boxed{C}", r"\boxed{the architect's name}", r"\boxed{A}", "no idea"),
        2 / 4,
        {"scored": 3, "no_answer": 1},
    ),
}
"""What four candidates answer to the first row of a case, their mean by the official metric, worked by hand, and how
they count."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", WORTH)
def test_a_benchmark_from_a_file_to_its_number(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command, with the scripted engine as the model."""
    case, (answers, mean, statuses) = CASES[name], WORTH[name]

    def script(request: GenerationRequest) -> Script:
        return Script("let me see", answers[int(request.id.removeprefix("r0-c"))])

    engine = ScriptedEngine(script)
    monkeypatch.setattr(compose, "open_engine", lambda model: engine)
    monkeypatch.setattr(compose, "fetch_if_missing", lambda model, show: None)
    monkeypatch.chdir(tmp_path)
    file = parquet(tmp_path, case["rows"][:1])
    words = ["--method", "single", "--n", "4", "--answer-budget", "64", "--out", "out", "--no-report", "--quiet"]
    done = CliRunner().invoke(app, ["eval", case["benchmark"], "--data", str(file), *words])
    assert (done.exit_code, done.stdout) == (0, f"{mean:.4f}\n"), done.stderr
    results = read_results("out")
    assert results.mean.value == pytest.approx(mean)
    assert results.statuses == statuses
    (question,) = expected({**case, "questions": case["questions"][:1]})
    for request in engine.requests:
        (message,) = request.messages
        assert message.images == question.images
        assert question.problem in message.text


def test_images_and_a_model_that_reads_text_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once and before anything runs, not of each of thousands of problems."""
    engine = ScriptedEngine("never asked", images=False)
    monkeypatch.setattr(compose, "open_engine", lambda model: engine)
    monkeypatch.setattr(compose, "fetch_if_missing", lambda model, show: None)
    file = parquet(tmp_path, CASES["docvqa"]["rows"])
    done = CliRunner().invoke(app, ["eval", "docvqa", "--data", str(file), "--out", str(tmp_path / "out")])
    says = "error: the problems of docvqa have images, but scripted reads text only: use a model that sees\n"
    assert (done.exit_code, done.stderr) == (2, says)
    assert not (tmp_path / "out").exists()


def test_every_data_set_has_a_number_worked_by_hand() -> None:
    assert {CASES[name]["benchmark"] for name in WORTH} == {case["benchmark"] for case in CASES.values()}
