"""The problems of a benchmark: found, checked, selected, and handed out one at a time.

What can be wrong with files on this machine is found before the first problem is handed out. Images are read when
their problem's turn comes: memory stays flat however many problems there are.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from engine.paths import path_named
from evals.data import hub
from evals.data.benchmarks import Benchmark, Columns
from evals.data.choice import Choice, check_distinct, refuse_unknown
from evals.data.columns import Mapped, names_of, top
from evals.data.generated import MOST_PROBLEMS, Generate, generated_questions, question_id
from evals.data.question import Question
from evals.data.reader import QuestionReader
from evals.data.remote import RemoteRows
from evals.data.rows import PARQUET, TEXT, file_rows
from evals.data.shard import Shard
from evals.errors import DataError
from evals.results import DataInfo
from rsa.words import shown


@dataclass(frozen=True)
class Data:
    """The selected problems. Iterating gives `Question`s in the order of the source, as often as one likes; it raises
    DataError.

    ids       of them; None for a sample or a shard of a remote data set: they are known when it is read.
    warnings  what a reader of the results should know about the data.
    images    problems have images.
    """

    info: DataInfo
    ids: tuple[str, ...] | None
    questions: Callable[[], Iterator[Question]] = field(repr=False)
    warnings: tuple[str, ...] = ()
    images: bool = False

    def __iter__(self) -> Iterator[Question]:
        return self.questions()

    def __len__(self) -> int:
        return self.info.selected


def open_data(
    benchmark: Benchmark,
    *,
    data: Path | None = None,
    columns: Mapped | None = None,
    limit: int | None = None,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    shard: Shard | None = None,
) -> Data:
    """Find the problems of a benchmark and select among them.

    data      a jsonl, json or parquet file with the columns of the benchmark, or a folder with a copy of its data set:
              taken instead of the benchmark's own. Paths of images start from the file's folder.
    columns   which columns of the data hold what, where that is not as the benchmark says: `Benchmark.with_columns`.
    limit     at most so many: the first ones, or a sample, as the benchmark's `limit_takes` says. A larger limit takes
              those of a smaller one, too.
    ids       these only; `limit` counts among them.
    seed      of the sample, and of generated problems.
    revision  a commit of the Hub, instead of the one that the benchmark is pinned to.
    shard     of the problems that are left only those of this shard.

    Raises DataError: no such file, or no network; a file that cannot be read; a missing column or value; two problems
    of one id; an id that is unknown; nothing left, or fewer problems than shards.
    """
    choice = Choice.wanted(limit, ids, seed, shard)
    if benchmark.columns is None and (data is not None or revision is not None or columns):
        raise DataError(
            f"benchmark {benchmark.name} reads no data set: it has no use for a data file, columns or a revision"
        )
    if benchmark.generate is not None:
        return _generated(benchmark.name, benchmark.generate, choice)
    if benchmark.columns is None:
        return _program_data(benchmark, choice)
    data = data or benchmark.data
    if data is not None and revision is not None:
        raise DataError(f"{data} is a copy of its own: a revision says nothing about it")
    mapped = names_of(columns or {})
    benchmark = benchmark.with_columns(mapped)
    assert benchmark.columns is not None, "a copy has columns, too"
    if data is not None:
        opened = _from_disk(benchmark, benchmark.columns, path_named(data, DataError), choice)
    else:
        opened = _from_hub(benchmark, benchmark.columns, choice, revision)
    info = opened.info.model_copy(update={"columns": mapped})
    return replace(opened, info=info, images=bool(benchmark.columns.images))


# ---------------------------------------------------------------- problems without a data set


def _program_data(benchmark: Benchmark, choice: Choice) -> Data:
    place = f"benchmark {benchmark.name}"

    def every() -> Iterator[Question]:
        given = benchmark.questions() if callable(benchmark.questions) else benchmark.questions or ()
        if not isinstance(given, Iterable):
            raise DataError(f"{place}: its questions are {shown(given)}: should be Question, one after the other")
        for question in given:
            if not isinstance(question, Question):
                raise DataError(f"{place}: a question is {shown(question)}: should be a Question")
            yield question

    ids = [question.id for question in every()]
    check_distinct(ids, place)
    chosen = choice.select(ids, benchmark.limit_takes, place)
    info = DataInfo(
        kind="given",
        name=benchmark.name,
        rows=len(ids),
        selected=len(chosen),
        options=choice.options(benchmark.limit_takes),
    )
    return Data(info, tuple(ids[position] for position in chosen), lambda: _at(every(), chosen))


def _generated(name: str, options: Generate, choice: Choice) -> Data:
    if choice.limit is not None and choice.limit > MOST_PROBLEMS:
        raise DataError(f"`limit` {choice.limit} is too much: {MOST_PROBLEMS:,} problems are made at most")
    chosen = list(range(choice.limit or options.count))
    if choice.ids is not None:  # any index may be asked for
        form = re.compile(rf"{re.escape(name)}-{choice.seed}-(\d{{4,6}})")
        indices = {one: int(match[1]) for one in choice.ids if (match := form.fullmatch(one))}
        unknown = [
            one for one in choice.ids if one not in indices or question_id(name, choice.seed, indices[one]) != one
        ]
        examples = [question_id(name, choice.seed, index) for index in range(2)]
        refuse_unknown(unknown, (), f"benchmark {name}", examples)
        chosen = sorted(indices.values())[: choice.limit]
    chosen = list(choice.part(chosen))
    questions = partial(generated_questions, name, options, choice.seed, chosen[-1] + 1)
    if options.sizes or options.lengths:  # there may be too few different ones: better now than in the middle
        deque(questions(), maxlen=0)
    info = DataInfo(
        kind="generated",
        name=options.task,
        selected=len(chosen),
        options={**options.as_recorded(), **choice.options("first"), "seed": choice.seed},
    )
    ids = tuple(question_id(name, choice.seed, index) for index in chosen)
    return Data(info, ids, lambda: _at(questions(), chosen))


def _at(questions: Iterable[Question], chosen: Sequence[int]) -> Iterator[Question]:
    wanted = set(chosen)
    return (question for position, question in enumerate(islice(questions, chosen[-1] + 1)) if position in wanted)


# ---------------------------------------------------------------- data sets


def _from_disk(benchmark: Benchmark, columns: Columns, data: Path, choice: Choice) -> Data:
    split = None
    if data.is_dir():
        if not benchmark.sources:
            raise DataError(f"{data} is a folder: give a .jsonl, .json or .parquet file")
        source, files = hub.files_in(data, benchmark.name, benchmark.sources)
        split, folder = source.split, data
    elif data.is_file():
        if data.suffix not in PARQUET + TEXT:
            raise DataError(f"{data} is no .jsonl, .json or .parquet file")
        files, folder = [data], data.parent
    else:
        raise DataError(f"there is no file or folder {data}")
    info = DataInfo(
        kind="file",
        name=data.name,
        split=split,
        revision=_sha256(files),
        selected=0,
        options=choice.options(benchmark.limit_takes),
    )
    return _of_files(QuestionReader(benchmark, columns, str(data), folder), files, choice, info)


def _from_hub(benchmark: Benchmark, columns: Columns, choice: Choice, revision: str | None) -> Data:
    found = hub.find(benchmark.name, benchmark.sources, revision)
    source, name = found.source, " + ".join(found.source.hub)
    info = DataInfo(
        kind="hub",
        name=name,
        config=", ".join(source.config) or None,
        split=source.split,
        revision=" + ".join(found.revisions),
        selected=0,
        options=choice.options(benchmark.limit_takes),
    )
    reader = QuestionReader(benchmark, columns, name)
    warnings = [f"the data come from {name}, because {reason}" for reason in found.skipped]
    if source.stream:
        data = _of_remote(reader, RemoteRows(found.files), choice, info)
    else:
        data = _of_files(reader, [Path(file) for file in found.files], choice, info)
    rows = data.info.rows
    if rows is not None and source.rows is not None and rows != source.rows:
        message = f"{name} has {rows} rows where {source.rows} are expected"
        if rows < source.rows:
            raise DataError(f"{message}: it is not whole, or another revision is needed")
        warnings.append(message)
    return replace(data, warnings=tuple(warnings))


def _of_files(reader: QuestionReader, files: Sequence[Path], choice: Choice, info: DataInfo) -> Data:
    """Problems of files that are here. A first pass, which leaves out the images, checks every row."""
    first = next(file_rows(files), None)
    images: list[str] = []
    if first is not None:
        reader.check_columns(first)
        images = [name.casefold() for name in reader.image_columns(list(first))]
    ids: list[str] = []
    for position, row in enumerate(file_rows(files, leave_out=images)):
        reader.check(row, position)
        ids.append(reader.id_of(row, position))
    check_distinct(ids, info.name)
    chosen = choice.select(ids, reader.benchmark.limit_takes, info.name)

    def questions() -> Iterator[Question]:
        wanted = set(chosen)
        for position, row in enumerate(islice(file_rows(files), chosen[-1] + 1)):
            if position in wanted:
                yield reader.question(row, position, ids[position])

    info = info.model_copy(update={"rows": len(ids), "selected": len(chosen)})
    return Data(info, tuple(ids[position] for position in chosen), questions)


def _of_remote(reader: QuestionReader, rows: RemoteRows, choice: Choice, info: DataInfo) -> Data:
    """Problems of files that are read where they are; their rows are checked as they come."""
    reader.check_columns(dict.fromkeys(rows.columns))
    column = top(rows.columns, reader.columns.id)
    ids = None if choice.ids is None else choice.ids[: choice.limit]
    if ids is not None and column is None:
        raise DataError(f"{info.name} has no column of ids")

    def wanted() -> Iterator[dict[str, object]]:
        if ids is not None and column is not None:
            return rows.where(column, ids, reader.text_id)
        if choice.limit is None or reader.benchmark.limit_takes == "first":
            return islice(rows.all(), choice.limit)
        return rows.sample(choice.limit, choice.seed)

    def questions() -> Iterator[Question]:
        seen: list[str] = []
        for position, row in enumerate(wanted()):
            seen.append(reader.id_of(row, position))
            if choice.holds(position):
                yield reader.question(row, position, seen[-1])
        refuse_unknown([one for one in ids or () if one not in seen], seen, info.name)
        check_distinct(seen, info.name)

    selected = choice.part(range(min(choice.limit or rows.rows, rows.rows) if ids is None else len(ids)))
    return Data(
        info.model_copy(update={"rows": rows.rows, "selected": len(selected)}),
        ids if choice.shard is None else None,
        questions,
    )


def _sha256(files: Sequence[Path]) -> str:
    """Of a file; of several, the one of their digests put together."""
    digests: list[str] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
