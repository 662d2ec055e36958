"""Files of configs/benchmarks, one's own, and benchmarks in code: what they must hold, and what faults are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.data.benchmarks import Benchmark, benchmark_names, load_benchmark
from evals.data.open import open_data
from evals.data.question import Question
from evals.errors import BenchmarkError, DataError
from evals.scorers import make
from rsa.problem import Problem
from rsa.prompts import load_prompts


@pytest.mark.parametrize("name", benchmark_names())
def test_each_file_is_whole(name: str) -> None:
    benchmark = load_benchmark(name)
    load_prompts(benchmark.task)
    assert benchmark.name == name
    assert benchmark.description
    assert make(str(benchmark.metric), settings=benchmark.settings)
    for source in benchmark.sources:
        assert source.rows
        assert source.patterns


AIME = "Put your final answer within \\boxed{}.\nThe answer is an integer between 0 and 999 inclusive."


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("aime25", AIME),
        ("hmmt_feb25", "Put your final answer within \\boxed{}."),
        ("docvqa", "Put your final answer within \\boxed{}."),
    ],
)
def test_every_prompt_ends_as_the_protocol_says(name: str, end: str) -> None:
    prompts = load_prompts(load_benchmark(name).task)
    problem = Problem("What is 2 + 3?")
    assert prompts.initial(problem)[-1].text.strip() == f"What is 2 + 3?\n\n{end}"
    for tails in (["one"], ["one", "two"]):
        (message,) = prompts.aggregate(problem, tails)
        assert message.role == "user"
        assert message.text.endswith(end)
        assert message.text.count("between 0 and 999") == end.count("between 0 and 999")


# ---------------------------------------------------------------- one's own


def test_a_benchmark_in_a_few_lines_of_code() -> None:
    questions = [Question(id=str(number), problem=f"{number} + 1?", gold=str(number + 1)) for number in range(3)]
    for given in (questions, lambda: iter(questions)):
        benchmark = Benchmark(name="increments", metric="integer", questions=given)
        data = open_data(benchmark, limit=2)
        assert list(data) == list(data) == questions[:2]
        assert (data.info.kind, data.info.name, data.info.rows) == ("given", "increments", 3)
    with pytest.raises(DataError, match="benchmark increments reads no data set"):
        open_data(benchmark, data=Path("x.jsonl"))
    with pytest.raises(DataError, match="two problems have the id '0'"):
        open_data(Benchmark(name="twice", metric="integer", questions=[questions[0], questions[0]]))


def test_a_benchmark_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "capitals.toml"
    file.write_text(
        'metric = "math"\ntask = "ask.toml"\n[columns]\nproblem = "Q"\ngold = ["A", "B"]\n'
        '[[sources]]\nhub = "nobody/capitals"\nsplit = "test"\n'
    )
    benchmark = load_benchmark(file)
    assert benchmark.name == "capitals"
    assert benchmark.task == str(tmp_path / "ask.toml"), "prompts beside the file"
    (tmp_path / "x.jsonl").write_text('{"q": "2 + 3?", "b": 5, "a": 6}\n')
    (question,) = open_data(benchmark, data=tmp_path / "x.jsonl")
    assert (question.id, question.problem, question.gold) == ("capitals-01", "2 + 3?", "6")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metric = ", "no valid TOML"),
        ("", "metric is missing"),
        ('metric = "math"\nname = "x"', "unknown key 'name'"),
        ('metric = "math"\ncolumn = 1', "unknown key 'column'; did you mean 'columns'"),
        ('metric = "math"', "its problems come from nowhere: give exactly one of sources, data, generate, questions"),
        ('metric = "math"\n[[sources]]\nhub = "a/b"\nsplit = "x"', "`columns` is missing"),
        ('metric = "math"\n[[sources]]\nhub = "a/b"', "split is missing"),
        ('metric = "math"\n[[sources]]\nhub = "a/b"\nsplit = "x"\nrevision = ["1", "2"]', "2 revisions for 1 hub id"),
        (
            'metric = "math"\n[generate]\ntask = "sudoku"',
            "no task is called 'sudoku'; there are countdown, chain",
        ),
        ('metric = "math"\n[generate]\ntask = "chain"\nsizes = [3]', "sizes: no option of chain"),
        ('metric = "math"\n[generate]\ntask = "countdown"\nsizes = [7]', "sizes: 7 should be 3 to 6"),
        ('metric = "math"\nids = "papers"\n[generate]\ntask = "chain"', "go together"),
        ('metric = "math"\nlimit_takes = "last"\n[generate]\ntask = "chain"', "limit_takes: should be 'first' or"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(BenchmarkError, match=r"mine\.toml") as caught:
        load_benchmark(tmp_path / "mine.toml")
    assert says in str(caught.value)


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(BenchmarkError, match="no benchmark is called 'aime2025'; did you mean 'aime2") as caught:
        load_benchmark("aime2025")
    assert all(name in str(caught.value) for name in benchmark_names())


def test_questions_that_can_be_read_only_once_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="`questions` should be a list of Question, or a function"):
        Benchmark(name="once", metric="math", questions=iter([]))
