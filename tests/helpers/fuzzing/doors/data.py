"""Data files of benchmarks: JSON lines, JSON, Parquet and what is none of these, with rows that nobody expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuzzing.core import Case, DifferentError, Door
from fuzzing.edits import apply, edits, wild, written
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from evals import Benchmark, load_benchmark
from evals.data.columns import from_flags
from evals.data.open import open_data
from evals.queue import check_gold
from evals.scorers import make

ROWS: dict[str, list[dict[str, Any]]] = {
    "hmmt_feb25": [
        {"problem_idx": number, "problem": f"What is {number} + 1?", "answer": f"{number + 1}", "problem_type": ["x"]}
        for number in range(1, 7)
    ],
    "aime25": [{"problem_idx": i, "problem": f"What is {i}?", "answer": i, "more": {"a": [1]}} for i in range(1, 5)],
    "mmmu": [
        {"id": f"v_{i}", "question": "Which?", "options": "['a', 'b']", "answer": "A", "question_type": "x"}
        for i in range(3)
    ],
    "mathvista": [
        {"pid": str(i), "query": "How many?", "question": "How?", "answer": "4", "decoded_image": None}
        for i in range(3)
    ],
}
BENCHMARKS = {name: load_benchmark(name) for name in ROWS}
ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".JSONL", "")
COLUMNS = (
    "problem=problem",
    "problem=more.a[0]",
    "problem=prompt[0].content",
    "gold=x",
    "=",
    "id=",
    "a=b=c",
    "id=more",
)


class Data(Door):
    name = "data"
    share = 6

    @property
    def cases(self) -> SearchStrategy[Case]:
        keys = st.sampled_from(
            ("problem", "question", "answer", "id", "problem_idx", "options", "image", "x", "", "ID")
        )
        change = st.fixed_dictionaries({"row": st.integers(0, 5), "key": keys, "value": wild()})
        return st.fixed_dictionaries(
            {
                "benchmark": st.sampled_from(list(ROWS)),
                "ending": st.sampled_from((*3 * (".jsonl",), *2 * (".json", ".parquet"), *ENDINGS)),
                "array": st.booleans(),
                "rows": st.lists(change, max_size=2),
                "edits": st.one_of(st.just([]), edits(["data.jsonl"], most=2)),
                "asked": st.one_of(st.just({}), _asked()),
            }
        )

    def enter(self, case: Case) -> str:
        rows = [dict(row) for row in ROWS[case["benchmark"]]]
        for change in case["rows"]:
            rows[change["row"] % len(rows)][change["key"]] = change["value"]
        path = self.scratch / f"data{case['ending']}"
        unharmed = self._write(path, rows, case)
        benchmark = BENCHMARKS[case["benchmark"]]
        asked = dict(case["asked"])
        columns = from_flags([asked.pop("column")]) if "column" in asked else None
        read = list(_questions(benchmark, path, columns=columns, **asked))
        if not asked and columns is None and read and unharmed is not None:
            _check_unharmed(benchmark, self.scratch, unharmed, read)
        return "right"

    def _write(self, path: Path, rows: list[Any], case: Case) -> list[bytes] | None:
        """Write the file. Returns the lines of it that nothing was done to, of a file of lines."""
        for old in self.scratch.iterdir():
            old.rmdir() if old.is_dir() and not old.is_symlink() else old.unlink()
        ending = case["ending"].casefold()
        base = self.scratch / "data.jsonl"
        if ending == ".parquet":
            base.write_bytes(_parquet(rows))
        elif ending == ".json" and case["array"]:
            base.write_text(written(rows))
        else:
            base.write_text("".join(written(row) + "\n" for row in rows))
        lines = base.read_bytes().split(b"\n")
        apply(self.scratch, case["edits"])
        if base != path and (base.exists() or base.is_symlink()):
            base.rename(path)
        if ending != ".jsonl" or not path.is_file():
            return None
        plain = [written(row).encode() for row in ROWS[case["benchmark"]]]
        there = path.read_bytes().split(b"\n")
        return [line for line in there if line in plain and line in lines]


def _asked() -> SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "limit": st.integers(-1, 9),
            "ids": st.lists(st.sampled_from(("1", "hmmt_feb25-01", "v_1", "", "\0", "x")), max_size=2),
            "seed": st.integers(-1, 2**40),
            "revision": st.sampled_from(("", "main", "0" * 40)),
            "column": st.sampled_from(COLUMNS),
        },
    )


def _questions(benchmark: Benchmark, path: Path, **asked: Any) -> list[Any]:
    scorer = make(str(benchmark.metric))
    questions = []
    for question in open_data(benchmark, data=path, **asked):
        check_gold(scorer, question)
        questions.append(question)
    return questions


def _check_unharmed(benchmark: Benchmark, scratch: Path, lines: list[bytes], read: list[Any]) -> None:
    """Rows whose lines are as they were give the questions that they gave."""
    if benchmark.ids != "text":
        return  # where an id is a place, a row that goes moves the others
    alone = scratch / "alone.jsonl"
    for line in dict.fromkeys(lines):
        alone.write_bytes(line)
        (question,) = _questions(benchmark, alone)
        if question not in read:
            raise DifferentError(f"the question of an unharmed line: {question.id}")


def _parquet(rows: list[Any]) -> bytes:
    """Rows as Parquet keeps them: a column that it does not take, of several types or of empty structs, has
    their JSON."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def file_of(columns: dict[str, Any]) -> bytes:
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file)
        return file.getvalue()

    columns: dict[str, Any] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name or "_"] = pa.array(values)
            file_of({"_": columns[name or "_"]})
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            columns[name or "_"] = pa.array([json.dumps(value) for value in values])
    return file_of(columns)
