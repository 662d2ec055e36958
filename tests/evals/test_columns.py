"""Data in other people's columns: a benchmark's columns that are said to be elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet
import pytest
from command_line import Ended, rsa

from evals.data.benchmarks import load_benchmark
from evals.data.columns import paths, top
from evals.data.open import open_data
from evals.data.question import Question
from evals.data.remote import RemoteRows
from evals.errors import BenchmarkError, DataError
from evals.folder import read_eval, read_results
from evals.job import evaluate
from rsa.compose import open_engine

Row = dict[str, Any]
_ANSWERS = Path(__file__).with_name("answers_by_seed.py")
SIZES = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "32", "--no-report"]
FLAGS = ["--column", "problem=prompt[0].content", "--column", "gold=reward_model.ground_truth"]
MAPPED = {"problem": "prompt[0].content", "gold": "reward_model.ground_truth"}
GOLDS = ["0", "1", "2"]


def verl(number: int, gold: str) -> Row:
    """A row as data sets for reinforcement learning with verl have it."""
    return {
        "data_source": "made-up/aime_2025",
        "prompt": [{"role": "user", "content": f"what is number {number}?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": {"index": number, "split": "test"},
    }


ROWS = [verl(number, gold) for number, gold in enumerate(GOLDS)]


def parquet(rows: list[Row]) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "data.parquet")
    return Path("data.parquet")


def jsonl(rows: list[Row]) -> Path:
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path("data.jsonl")


def array(rows: list[Row]) -> Path:
    Path("data.json").write_text("\ufeff\n" + json.dumps(rows, indent=2))
    return Path("data.json")


def lines(rows: list[Row]) -> Path:
    return jsonl(rows).rename("data.json")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the scripted engine in place of every model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSA_MODEL", f"scripted:{_ANSWERS}")


def evaluated(*words: object, out: str = "out") -> Ended:
    return rsa("eval", "aime25", *SIZES, "--out", out, *words)


# ---- a benchmark's columns elsewhere


def test_paths_are_those_that_people_see() -> None:
    assert paths({**verl(0, "1"), "image": {"bytes": b"", "path": None}, "choices": ["a", "b"], "none": []}) == [
        "data_source",
        "prompt[0].role",
        "prompt[0].content",
        "ability",
        "reward_model.style",
        "reward_model.ground_truth",
        "extra_info.index",
        "extra_info.split",
        "image",
        "choices",
        "none",
    ]


@pytest.mark.parametrize("write", [parquet, jsonl, array, lines])
def test_a_file_of_another_framework_is_evaluated_by_flags_alone(write: Callable[[list[Row]], Path]) -> None:
    done = evaluated("--data", write(ROWS), *FLAGS)
    assert done.code == 0, done.err
    assert [problem.id for problem in read_results("out").problems] == ["aime25-I-01", "aime25-I-02", "aime25-I-03"]
    assert read_results("out").data.columns == {key: (name,) for key, name in MAPPED.items()}
    questions = list(open_data(load_benchmark("aime25"), data=write(ROWS), columns=MAPPED))
    assert [(question.problem, question.gold) for question in questions] == [
        (f"what is number {number}?", gold) for number, gold in enumerate(GOLDS)
    ]


@pytest.mark.parametrize("write", [parquet, jsonl])
def test_the_message_about_a_missing_column_can_be_pasted(write: Callable[[list[Row]], Path]) -> None:
    file = write(ROWS)
    missing = evaluated("--data", file)
    assert missing.code == 2
    (line,) = missing.err.splitlines()
    assert line == (
        f"error: {Path.cwd() / file}: no column 'problem' or 'question' for the problem, no column 'answer' for the "
        "gold answer; there are ability, data_source, extra_info.index, extra_info.split, prompt[0].content, "
        "prompt[0].role, reward_model.ground_truth, reward_model.style. Say where it is, like "
        "--column 'problem=prompt[0].content' --column gold=reward_model.ground_truth, "
        "or under [columns] in a TOML file of your own"
    )
    pasted = shlex.split(line.partition(", like ")[2].partition(", or ")[0])
    assert evaluated("--data", file, *pasted).code == 0


def test_a_column_whose_name_looks_like_a_path_is_found() -> None:
    rows = [{"prompt[0].content": "what is number 1?", "prompt": [{"content": "no"}], "meta.gold": "1", "meta": {}}]
    (question,) = open_data(
        load_benchmark("aime25"), data=jsonl(rows), columns={"problem": "prompt[0].content", "gold": "meta.gold"}
    )
    assert (question.problem, question.gold) == ("what is number 1?", "1")


def test_everything_that_a_benchmark_reads_can_be_elsewhere() -> None:
    row = {
        "q": {"text": "which one?", "choices": "['one', 'two']", "kind": "multiple-choice"},
        "key": {"of": {"it": "B"}},
        "uid": {"n": "mine-7"},
        "media": [{"bytes": b"picture", "path": None}],
    }
    columns = {
        "problem": "q.text",
        "options": "q.choices",
        "question_type": "q.kind",
        "gold": ["key.missing", "key.of.it"],
        "id": "uid.n",
        "images": "media[0]",
    }
    (question,) = open_data(load_benchmark("mmmu"), data=parquet([row]), columns=columns)
    assert question == Question(
        id="mine-7",
        problem="which one?\n\nA. one\nB. two\n\nAnswer with the letter of the correct option.",
        images=({"data": b"picture"},),
        gold="B",
        fields={"question_type": "multiple-choice", "options": ["one", "two"]},
    )


def test_ids_inside_a_column_are_found_in_a_data_set_that_is_read_from_afar() -> None:
    rows = RemoteRows([str(parquet(ROWS))])
    column = top(rows.columns, ["extra_info.index"])
    assert column == "extra_info"
    found = rows.where(column, {"2"}, lambda row: str(row["extra_info"]["index"]))
    assert [row["reward_model"]["ground_truth"] for row in found] == ["2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--column", "problem"], "--column 'problem': should be NAME=COLUMN, like problem=question"),
        (["--column", "=x"], "--column '=x': should be NAME=COLUMN"),
        (
            ["--column", "golds=x"],
            "columns of benchmark aime25: none is called 'golds'; did you mean 'gold'? There are problem, gold, id, ",
        ),
        (["--column", "problem=prompt", *FLAGS[2:]], "row 1: column 'prompt' is no text; say which part of it is: "),
        (["--column", "problem=prompt[1].content", *FLAGS[2:]], "no column 'prompt[1].content' for the problem"),
        ([*FLAGS[:2], "--column", "gold=reward_model"], "gold: should be a text or a number, not {'style': 'rule',"),
    ],
)
def test_a_wrong_column_is_said_in_a_line(words: list[str], says: str) -> None:
    done = evaluated("--data", jsonl(ROWS), *words)
    assert done.code == 2
    assert says in done.err.splitlines()[-1]


def test_what_reads_no_data_set_has_no_columns() -> None:
    done = rsa("eval", "countdown", "--column", "problem=x")
    assert (done.code, done.err) == (
        2,
        "error: benchmark countdown reads no data set: it has no use for a data file, columns or a revision\n",
    )
    with pytest.raises(BenchmarkError, match="reads no data set: it has no use for columns"):
        load_benchmark("countdown").with_columns({"problem": "x"})
    wrongs: tuple[Any, ...] = ((), "", ["a", 5])
    for wrong in wrongs:
        with pytest.raises(DataError, match="columns: problem should be the name of a column, or several"):
            load_benchmark("aime25").with_columns({"problem": wrong})


# ---- the mapping is part of the evaluation


def test_it_goes_on_and_is_scored_again_with_the_columns_it_was_started_with() -> None:
    first = evaluated("--data", jsonl(ROWS), *FLAGS)
    record = read_eval("out")
    assert record.source.columns == record.data.columns == {key: (name,) for key, name in MAPPED.items()}
    before = Path("out/results.json").read_bytes()
    for words in (["--resume", "out"], ["--resume", "out", *FLAGS[2:], *FLAGS[:2]], ["--rescore", "out"]):
        again = rsa("eval", *words, "--no-report")
        assert (again.code, again.out) == (0, first.out), again.err
        assert Path("out/results.json").read_bytes() == before


def test_other_columns_are_another_evaluation() -> None:
    rows = [{**row, "other": "1"} for row in ROWS]
    evaluated("--data", jsonl(rows), *FLAGS)
    other = [*FLAGS[:2], "--column", "gold=other"]
    resumed = rsa("eval", "--resume", "out", *other)
    assert resumed.code == 2
    assert (
        "columns is --column 'problem=prompt[0].content' --column gold=reward_model.ground_truth, "
        "not --column 'problem=prompt[0].content' --column gold=other"
    ) in resumed.err
    assert "out holds another evaluation. Different: data.columns:" in evaluated("--data", "data.jsonl", *other).err
    assert rsa("eval", "--rescore", "out", *other).err == "error: --rescore does not go with --column: leave it out\n"
    evaluated("--data", "data.jsonl", *other, out="b")
    assert "these cannot be compared: data columns is" in rsa("compare", "out", "b").err


def test_columns_in_a_program() -> None:
    async def main() -> None:
        engine = open_engine(f"scripted:{_ANSWERS}")
        settings: dict[str, Any] = {"n": 4, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 32}
        await evaluate("aime25", engine, data=jsonl(ROWS), columns=MAPPED, out="program", **settings)

    anyio.run(main)
    evaluated("--data", "data.jsonl", *FLAGS)
    assert Path("program/candidates.jsonl").read_bytes() == Path("out/candidates.jsonl").read_bytes()


@pytest.mark.thorough
def test_the_report_says_which_columns_were_read() -> None:
    evaluated("--data", jsonl(ROWS), *FLAGS)
    rsa("report", "out")
    page = Path("out/report.html").read_text()
    assert "column problem" in page
    assert "prompt[0].content" in page


# ---- a benchmark that names its file


TOML = """metric = "integer"
task = "aime"
data = "questions/data.jsonl"

[columns]
problem = "prompt[0].content"
gold = "reward_model.ground_truth"
id = "extra_info.index"
"""


def test_a_benchmark_names_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine/questions").mkdir(parents=True)
    jsonl(ROWS).rename("mine/questions/data.jsonl")
    Path("mine/verl.toml").write_text(TOML)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    done = rsa("eval", "../mine/verl.toml", *SIZES, "--out", "out")
    assert done.code == 0, done.err
    results = read_results("out")
    assert [problem.id for problem in results.problems] == ["0", "1", "2"]
    assert (results.data.kind, results.data.name, results.data.columns) == ("file", "data.jsonl", {})
    monkeypatch.chdir(tmp_path)
    assert rsa("eval", "--resume", "elsewhere/out", "--no-report").out == done.out
    other = rsa("eval", "mine/verl.toml", "--data", jsonl(ROWS[:1]), *SIZES, "--out", "other")
    assert (other.code, len(read_results("other").problems)) == (0, 1), "--data comes first"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TOML.replace("questions/", ""), "there is no file or folder"),
        (TOML.replace("questions/data.jsonl", "."), "is a folder: give a .jsonl, .json or .parquet file"),
        (TOML + '[[sources]]\nhub = "a/b"\nsplit = "test"\n', "its problems come from sources and data: give exactly"),
        (TOML.partition("[columns]")[0], "`columns` is missing"),
        (TOML + '[columns.fields]\nunit = "u"\n', "columns.fields: none is called 'unit'. There are none"),
    ],
)
def test_a_wrong_benchmark_with_a_file(text: str, says: str) -> None:
    Path("mine.toml").write_text(text)
    done = rsa("eval", "mine.toml", *SIZES)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_a_revision_says_nothing_about_a_file() -> None:
    Path("mine.toml").write_text(TOML)
    assert "is a copy of its own: a revision says nothing" in rsa("eval", "mine.toml", "--revision", "main").err


def test_a_problem_with_a_checker_of_its_own_may_be_in_a_file() -> None:
    """Its gold answer is an object."""
    Path("mine.toml").write_text('metric = "countdown"\ndata = "data.jsonl"\n[columns]\nproblem = "q"\ngold = "task"\n')
    jsonl([{"q": "Make 10 from 3 and 7.", "task": {"numbers": [3, 7], "target": 10}}])
    (question,) = open_data(load_benchmark("mine.toml"))
    assert question.gold == {"numbers": [3, 7], "target": 10}
    assert rsa("eval", "mine.toml", *SIZES, "--out", "out").code == 0


# ---- files and ids that are odd


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "data.json: no JSON: "),
        ('[{"problem": "x", "answer": 1}, 5]', "data.json, row 2: should be an object with the columns as keys"),
        ("[]", "has no problems"),
        ("", "has no problems"),
        ('{"problem": \n', "data.json, line 1: no JSON: "),
        ("[" * 100_000, "nested more than 100 deep"),
    ],
)
def test_wrong_json_files(text: str, says: str) -> None:
    Path("data.json").write_text(text)
    done = evaluated("--data", "data.json")
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ("", "row 2: the id is empty"),
        (" ", "row 2: the id is empty"),
        ("\ud83d", r"\ud83d' has half a character (a lone surrogate) in it: give it another"),
    ],
)
def test_odd_ids_are_said_in_a_line(odd: str, says: str) -> None:
    rows = [{"problem": "what is number 1?", "answer": "1", "problem_idx": one} for one in ("x", odd)]
    for more in ([], ["--limit", "1"]):
        done = rsa("eval", "hmmt_feb25", "--data", jsonl(rows), "--column", "id=problem_idx", *more)
        assert done.code == 2
        assert says in done.err
        assert len(done.err.splitlines()) == 1
