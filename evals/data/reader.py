"""From a row of a data file to a `Question`: its id, problem, images and gold answer, as a benchmark declares them."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from pydantic import JsonValue

from engine.api import ImagePart
from evals.data.benchmarks import Benchmark, Columns
from evals.data.columns import Found, find, paths, top, where_else
from evals.data.images import image_bytes, image_path, is_file, renumbered
from evals.data.question import Question
from evals.data.rows import Row
from evals.errors import DataError

_NEEDED = {"problem": "the problem", "gold": "the gold answer", "images": "the image"}
"""Columns that a question cannot do without, if the benchmark has them at all, and what they are called for people."""


class QuestionReader:
    """Reads rows as a benchmark declares them.

    place   of the data, for messages.
    folder  that image paths in the rows start from.

    Every method raises DataError, which names the row (from 1) and the column.
    """

    def __init__(self, benchmark: Benchmark, columns: Columns, place: str, folder: Path = Path()) -> None:
        self.benchmark, self.columns = benchmark, columns
        self._place, self._folder = place, folder
        self._seen: Counter[int] = Counter()
        papers = "|".join(map(re.escape, benchmark.papers))
        # `2024-II-7`, or an address that ends in `2024_AIME_II_Problems/Problem_7`.
        self._paper = re.compile(rf"(?:.*[-_ ])?(?P<paper>{papers})(?:_Problems/Problem_|[-_ ])(?P<number>\d+)")

    def check_columns(self, row: Row) -> None:
        """That a first row, or one of empty values, has the columns that a question cannot do without. Names no row."""
        missing = [key for key in _NEEDED if (names := getattr(self.columns, key)) and find(row, names) is None]
        if missing:
            raise DataError(f"{self._place}: {self._no_column(row, *missing)}")

    def image_columns(self, names: Sequence[str]) -> list[str]:
        """Which of these columns of a table hold images and nothing else that questions need."""
        columns = self.columns
        others = [columns.problem, columns.gold, columns.id, columns.cluster, columns.options, columns.prompt]
        others += [self._field(name) for name in self.benchmark.fields]
        needed = {top(names, [one]) for alternatives in others for one in alternatives}
        return [name for image in columns.images if (name := top(names, [image])) is not None and name not in needed]

    def text_id(self, row: Row) -> str | None:
        """What the row has as its id, as text; None if it has none."""
        value = self._value(row, self.columns.id)
        return None if value is None else _text(value)

    def id_of(self, row: Row, position: int) -> str:
        """The id of the row at `position` (from 0). To be asked once for each row, in order: papers are counted."""
        value = self.text_id(row)
        text = str(position + 1) if value is None else value
        if not text:
            raise self._error(position, "the id is empty")
        if self.benchmark.ids == "text" and value is not None:
            return text
        if self.benchmark.ids == "papers":
            return self._id_in_a_paper(text, position)
        return f"{self.benchmark.name}-{int(text):02d}" if text.isdecimal() else f"{self.benchmark.name}-{text}"

    def _id_in_a_paper(self, text: str, position: int) -> str:
        papers, size = self.benchmark.papers, self.benchmark.paper_size
        match = self._paper.fullmatch(text)
        if match:
            return f"{self.benchmark.name}-{match['paper']}-{int(match['number']):02d}"
        number = int(text) if text.isdecimal() else 0
        if not 1 <= number <= len(papers) * size:
            raise self._error(position, f"{text!r} is no number of a problem, 1 to {len(papers) * size}")
        # Numbers go on through the papers, or start again with each: then a second 7 is of the second paper.
        paper, place = divmod(number - 1, size)
        paper += self._seen[number]
        self._seen[number] += 1
        if paper >= len(papers):
            raise self._error(position, f"the number {number} occurs too often for papers {', '.join(papers)}")
        return f"{self.benchmark.name}-{papers[paper]}-{place + 1:02d}"

    def check(self, row: Row, position: int) -> None:
        """That the row has what its question needs. Images are not read, but files that are named must be there."""
        self._problem(row, position)
        self._gold(row, position)
        for column in self._images(row):
            for value in _listed(column.value):
                path = image_path(value, self._folder)
                if path is not None and not is_file(path):
                    raise self._error(position, f"column {column.name!r}: there is no image {path}")

    def question(self, row: Row, position: int, question_id: str) -> Question:
        """The question of a row, with the bytes of its images."""
        problem, images = self._with_images(self._problem(row, position), row, position)
        cluster = self._value(row, self.columns.cluster)
        if cluster is None and self.benchmark.cluster_by_image and images:
            cluster = images[0].sha256[:16]
        return Question(
            id=question_id,
            problem=problem,
            images=images,
            gold=self._gold(row, position),
            cluster=None if cluster is None else _text(cluster),
            fields={
                name: found.value
                for name in self.benchmark.fields
                if (found := self._found(row, self._field(name))) is not None
            },
        )

    def _problem(self, row: Row, position: int) -> str:
        prompt = self._value(row, self.columns.prompt)
        if prompt:
            return _text(prompt)
        asked = self._required(row, "problem", position)
        if isinstance(asked.value, Mapping | list):
            parts = ", ".join(paths({asked.name: asked.value}))
            raise self._error(position, f"column {asked.name!r} is no text; say which part of it is: {parts}")
        question = _text(asked.value)
        if not question:
            raise self._error(position, "the problem is empty")
        options = _listed(self._value(row, self.columns.options))
        if len(options) > len(ascii_uppercase):
            raise self._error(position, f"{len(options)} options are more than there are letters")
        lettered = "\n".join(f"{letter}. {_text(text)}" for letter, text in zip(ascii_uppercase, options, strict=False))
        instruction = self.benchmark.instruction.choice if options else self.benchmark.instruction.short
        return "\n\n".join(part for part in (question, lettered, instruction) if part)

    def _gold(self, row: Row, position: int) -> JsonValue:
        value = self._required(row, "gold", position).value
        if isinstance(value, Mapping) and "answer" not in value:
            return dict(value)  # a problem that its metric checks, or something that the metric refuses
        # Answers of annotators may come with more: {"answer": "down", "answer_id": 1, ...}
        golds = [one["answer"] if isinstance(one, Mapping) and "answer" in one else one for one in _listed(value)]
        if any(isinstance(one, float) and math.isinf(one) for one in golds):
            raise self._error(position, "the gold answer is infinite")
        gold = [_text(one) for one in golds if one is not None]
        if not any(gold):
            raise self._error(position, "the gold answer is empty")
        return list[JsonValue](gold) if isinstance(value, list) else gold[0]

    def _with_images(self, text: str, row: Row, position: int) -> tuple[str, tuple[ImagePart, ...]]:
        """The text and the images, as `renumbered` has them."""
        if not self.columns.images:
            return text, ()
        columns = self._images(row)
        if not columns:
            raise self._error(position, self._no_column(row, "images"))
        there = {number: values for number, one in enumerate(columns, 1) if (values := _listed(one.value or None))}
        if not there:
            raise self._error(position, f"there is no image in {' or '.join(repr(one.name) for one in columns)}")
        try:
            text, shown = renumbered(text, there)
            data = [image_bytes(value, self._folder) for number in shown for value in there[number]]
        except (OSError, ValueError) as error:
            raise self._error(position, str(error)) from None
        return text, tuple(ImagePart(data=one) for one in data)

    # ------------------------------------------------------------ columns

    def _images(self, row: Row) -> list[Found]:
        return [found for column in self.columns.images if (found := find(row, [column])) is not None]

    def _field(self, name: str) -> tuple[str, ...]:
        return self.columns.fields.get(name, (name,))

    def _value(self, row: Row, names: Sequence[str]) -> Any:
        found = self._found(row, names)
        return None if found is None else found.value

    def _found(self, row: Row, names: Sequence[str]) -> Found | None:
        """A column, its value as JSON has it."""
        found = find(row, names)
        if found is None:
            return None
        listed = found.name in self.benchmark.lists
        return Found(found.name, _json(_literal_list(found.value) if listed else found.value))

    def _required(self, row: Row, key: str, position: int) -> Found:
        found = self._found(row, getattr(self.columns, key))
        if found is None:
            raise self._error(position, self._no_column(row, key))
        if found.value is None:
            raise self._error(position, f"column {found.name!r} is empty; it should hold {_NEEDED[key]}")
        return found

    def _no_column(self, row: Row, *keys: str) -> str:
        missing = [f"no column {' or '.join(map(repr, getattr(self.columns, key)))} for {_NEEDED[key]}" for key in keys]
        return f"{', '.join(missing)}; {where_else(row, keys)}"

    def _error(self, position: int, message: str) -> DataError:
        return DataError(f"{self._place}, row {position + 1}: {message}")


def _text(value: Any) -> str:
    """A value as text: 25 and 25.0 as "25"."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _listed(value: Any) -> list[Any]:
    """A list as it is, one value as a list, and nothing as an empty one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _literal_list(value: Any) -> Any:
    """The list in a text like "['a', 'b']"; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        parsed = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return parsed if isinstance(parsed, list) else value


def _json(value: Any) -> Any:
    """A value as JSON has it: None for NaN, which is pandas' empty number, and text for what JSON does not know."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
