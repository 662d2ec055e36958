"""Which problems of a data set are taken, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from evals.data.benchmarks import load_benchmark
from evals.data.open import Data, open_data
from evals.errors import DataError

Row = dict[str, Any]
PNG = b"\x89PNG, as far as anybody looks here"
CASES = json.loads((Path(__file__).parents[1] / "data" / "benchmark_rows.json").read_text(encoding="utf-8"))


def row_of(benchmark: str) -> Row:
    """The first row of a benchmark in the table of cases."""
    row = next(case["rows"][0] for case in CASES if case["benchmark"] == benchmark)
    return {
        name: {"bytes": PNG, "path": None} if isinstance(value, dict) and "png" in value else value
        for name, value in row.items()
    }


AI2D, MMMU, MATHVISTA = row_of("ai2d"), row_of("mmmu"), row_of("mathvista")


def parquet(folder: Path, rows: list[Row]) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    return folder / "data.parquet"


def jsonl(folder: Path, rows: list[Row]) -> Path:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "data.jsonl"


# ---------------------------------------------------------------- what users get wrong


def aime(folder: Path, rows: list[Row]) -> Data:
    return open_data(load_benchmark("aime25"), data=jsonl(folder, rows))


GOOD = {"problem_idx": 1, "problem": "2 + 3?", "answer": 5}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [{"text": "2 + 3?", "answer": 5}],
            "no column 'problem' or 'question' for the problem; there are answer, text",
        ),
        ([{"problem": "2 + 3?"}], "no column 'answer' for the gold answer; there are problem"),
        ([GOOD, {"problem": "2 + 3?", "problem_idx": 2}], "row 2: no column 'answer' for the gold answer"),
        ([{**GOOD, "answer": math.nan}], "row 1: column 'answer' is empty; it should hold the gold answer"),
        ([{**GOOD, "answer": [None, math.nan]}], "row 1: the gold answer is empty"),
        ([{**GOOD, "answer": [{"answer": None}]}], "row 1: the gold answer is empty"),
        ([{**GOOD, "answer": [5, math.inf]}], "row 1: the gold answer is infinite"),
        ([{**GOOD, "answer": None}], "row 1: column 'answer' is empty; it should hold the gold answer"),
        ([{**GOOD, "answer": " "}], "row 1: the gold answer is empty"),
        ([{**GOOD, "problem": ""}], "row 1: the problem is empty"),
        ([{**GOOD, "problem_idx": 31}], "row 1: '31' is no number of a problem, 1 to 30"),
        ([{**GOOD, "problem_idx": "x"}], "row 1: 'x' is no number of a problem"),
        ([GOOD, GOOD, GOOD], "row 3: the number 1 occurs too often for papers I, II"),
        ([{**GOOD, "problem_idx": 16}, GOOD, GOOD], "two problems have the id 'aime25-II-01'"),
        ([], "has no problems"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(rows: list[Row], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl") as caught:
        aime(tmp_path, rows)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": "there.png"}, "there is no image"),
        ({"image": "a" * 300 + ".png"}, "there is no image"),
        ({"image": "a\0.png"}, "there is no image"),
        ({"image": None}, "there is no image in 'image'"),
        ({"image": 5}, "no image: neither bytes, base64 nor the path of a file"),
        ({"options": [str(number) for number in range(27)]}, "27 options are more than there are letters"),
    ],
)
def test_a_wrong_row_with_an_image(change: Row, says: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path, [{**AI2D, "image": "aGVsbG8=", **change}])
    with pytest.raises(DataError, match="row 1") as caught:
        list(open_data(load_benchmark("ai2d"), data=file))
    assert says in str(caught.value)


def test_a_missing_image_column_is_named(tmp_path: Path) -> None:
    row = {name: value for name, value in AI2D.items() if name != "image"}
    with pytest.raises(DataError, match="no column 'image' for the image; there are answer, options, question"):
        open_data(load_benchmark("ai2d"), data=parquet(tmp_path, [row]))


def test_a_text_that_speaks_of_an_image_that_is_not_there(tmp_path: Path) -> None:
    data = open_data(load_benchmark("mmmu"), data=parquet(tmp_path, [{**MMMU, "image_2": None}]))
    with pytest.raises(DataError, match="row 1: the problem speaks of <image 2>, which is not there"):
        list(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    benchmark = load_benchmark("aime25")
    with pytest.raises(DataError, match="there is no file or folder"):
        open_data(benchmark, data=tmp_path / "nowhere.jsonl")
    (tmp_path / "data.csv").write_text("problem,answer\n")
    with pytest.raises(DataError, match=r"no \.jsonl, \.json or \.parquet file"):
        open_data(benchmark, data=tmp_path / "data.csv")
    (tmp_path / "data.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"cannot read .*data\.parquet"):
        open_data(benchmark, data=tmp_path / "data.parquet")
    for text, says in (('{"problem": "x", "answer": 1}\n{"problem', "line 2: no JSON"), ("[1]\n", "line 1: should be")):
        (tmp_path / "data.jsonl").write_text(text)
        with pytest.raises(DataError, match=says):
            open_data(benchmark, data=tmp_path / "data.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is called data/train-\*"):
        open_data(benchmark, data=tmp_path / "empty")


def test_numbers_and_texts_in_one_column_stay_what_they_are(tmp_path: Path) -> None:
    """A reader that guesses a type for the whole column would change one of them."""
    (tmp_path / "data.jsonl").write_text('{"problem": "p", "answer": "0.50"}\n{"problem": "p", "answer": 25}\n')
    data = open_data(load_benchmark("hmmt_feb25"), data=tmp_path / "data.jsonl")
    assert [question.gold for question in data] == ["0.50", "25"]


def test_empty_numbers_of_pandas_are_nothing(tmp_path: Path) -> None:
    file = parquet(tmp_path, [{**MATHVISTA, "precision": float("nan"), "answer": 3.0}])
    (question,) = open_data(load_benchmark("mathvista"), data=file)
    assert question.fields["precision"] is None
    assert question.gold == "3"


# ---------------------------------------------------------------- which problems


def thirty(folder: Path) -> Path:
    rows = [{"problem_idx": number, "problem": "2 + 3?", "answer": 5} for number in range(1, 31)]
    return jsonl(folder, rows)


def test_a_limit_takes_the_first_of_a_contest(tmp_path: Path) -> None:
    data = open_data(load_benchmark("aime25"), data=thirty(tmp_path), limit=2)
    assert [question.id for question in data] == ["aime25-I-01", "aime25-I-02"] == list(data.ids or ())
    assert (data.info.rows, data.info.selected) == (30, 2)
    assert data.info.options == {"limit": 2, "ids": None}
    assert len(open_data(load_benchmark("aime25"), data=tmp_path / "data.jsonl", limit=50)) == 30


def test_a_limit_samples_a_large_set(tmp_path: Path) -> None:
    file = parquet(tmp_path, [{**AI2D, "question": f"{place}?"} for place in range(60)])
    benchmark = load_benchmark("ai2d")

    def drawn(limit: int, seed: int = 0) -> list[str]:
        data = open_data(benchmark, data=file, limit=limit, seed=seed)
        assert data.info.options == {"limit": limit, "ids": None, "seed": seed}
        return [question.id for question in data]

    few, more = drawn(5), drawn(20)
    assert len(few) == 5
    assert set(few) < set(more), "a larger question contains the smaller one"
    assert drawn(5) == few, "the same question every time"
    assert drawn(5, seed=1) != few
    assert few != [f"ai2d-{number:02d}" for number in range(1, 6)], "not just the first ones"
    order = [f"ai2d-{number:02d}" for number in range(1, 61)]
    assert more == sorted(more, key=order.index), "in the order of the source"


def test_ids_choose_exactly(tmp_path: Path) -> None:
    file, benchmark = thirty(tmp_path), load_benchmark("aime25")
    data = open_data(benchmark, data=file, ids=["aime25-II-01", "aime25-I-03", "aime25-II-01"])
    assert [question.id for question in data] == ["aime25-I-03", "aime25-II-01"]
    assert open_data(benchmark, data=file, ids=data.ids, limit=1).ids == ("aime25-I-03",)
    with pytest.raises(DataError, match=r"`ids`: .* has no problem aime25-II-1; did you mean 'aime25-II-1"):
        open_data(benchmark, data=file, ids=["aime25-I-03", "aime25-II-1"])
    with pytest.raises(DataError, match="has no problem a, b, c, d, e and 1 more; ids are like aime25-I-01"):
        open_data(benchmark, data=file, ids=list("abcdef"))


def test_filters_that_leave_nothing_are_named(tmp_path: Path) -> None:
    file, benchmark = thirty(tmp_path), load_benchmark("aime25")
    with pytest.raises(DataError, match="`limit` 0 leaves no problem"):
        open_data(benchmark, data=file, limit=0)
    with pytest.raises(DataError, match="`ids` leaves no problem"):
        open_data(benchmark, data=file, ids=[])


def test_the_record_tells_one_file_from_another(tmp_path: Path) -> None:
    benchmark, (first, second) = load_benchmark("aime25"), (tmp_path / "1", tmp_path / "2")
    for folder in (first, second):
        folder.mkdir()
    one = open_data(benchmark, data=thirty(first)).info
    assert one == open_data(benchmark, data=thirty(second)).info
    assert one.name == "data.jsonl"
    assert one.revision
    (second / "data.jsonl").write_text((second / "data.jsonl").read_text().replace("2 + 3", "3 + 2"))
    assert open_data(benchmark, data=second / "data.jsonl").info.revision != one.revision
