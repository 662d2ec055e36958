"""Benchmarks: what is asked, how an answer is scored, and where the problems come from.

Those that come with the package are TOML files in configs/benchmarks; one's own are such files, or a `Benchmark`
made in code:

    Benchmark(name="sums", metric="integer", questions=[Question(id="1", problem="What is 2 + 3?", gold=5)])

`Benchmark` and the records it is made of say what the keys of a file mean; configs/benchmarks/aime24.toml shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, SkipValidation, model_validator

from engine.documents import read_toml
from engine.paths import path_named
from evals.data.columns import Mapped, names_of
from evals.data.declared import Declared, Names
from evals.data.generated import Generate
from evals.data.question import Question
from evals.errors import BenchmarkError
from evals.scorers.protocol import Scorer
from rsa.errors import ConfigError, did_you_mean
from rsa.settings import resources

Questions = Sequence[Question] | Callable[[], Iterable[Question]]
"""Problems given by a program: a list, or a function that starts from the first one whenever it is called."""
IdRule = Literal["text", "number", "papers"]
LimitTakes = Literal["first", "sample"]


class Source(Declared):
    """A data set of the Hub. Where several are given, they hold the same problems, and the first that loads is used.

    hub       its id; several: their rows are read one after the other.
    config    the configuration, or several of them in that order.
    split     of the data set.
    rows      that it has in all; with fewer, it is taken for broken.
    revision  commit it is pinned to, one for each hub id; without, the newest is taken.
    files     patterns of the files that hold the split, in order; nothing else is fetched. By default where the Hub
              puts them, `data/SPLIT-*` or `CONFIG/SPLIT-*` for each configuration, else what the data set itself says.
    stream    it is too large to keep: the rows that are wanted are read from the Hub each time.
    """

    hub: Annotated[Names, Field(min_length=1)]
    config: Names = ()
    split: str
    rows: int | None = Field(None, ge=1)
    revision: Names = ()
    files: Names = ()
    stream: bool = False

    @model_validator(mode="after")
    def _revisions_fit(self) -> Self:
        if self.revision and len(self.revision) != len(self.hub):
            raise BenchmarkError(f"{len(self.revision)} revisions for {len(self.hub)} hub ids: give one for each")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """Which files of each repository hold the split."""
        return self.files or tuple(f"{folder}/{self.split}-*" for folder in self.config or ("data",))


class Columns(Declared):
    """Which columns hold what. Several names are alternatives: the first that is there counts, in any capitals. A name
    may lead into a column: `prompt[0].content`, see `evals.data.columns`.

    problem  the question.
    gold     the answer, or a list of answers.
    id       what `Benchmark.ids` makes an id of; without such a column, the place of the row is used.
    cluster  what questions have in common that are not independent: an image's or a document's id.
    options  answers to choose from: they follow the question as A., B., ...
    prompt   the question, its options and its instruction in one: used instead of these where it is there.
    images   all of those columns that are there, in order; `<image 2>` in the question means the second of them.
    fields   where those of `Benchmark.fields` are that have another name in the data.
    """

    problem: Annotated[Names, Field(min_length=1)]
    gold: Annotated[Names, Field(min_length=1)]
    id: Names = ()
    cluster: Names = ()
    options: Names = ()
    prompt: Names = ()
    images: Names = ()
    fields: dict[str, Annotated[Names, Field(min_length=1)]] = Field(default_factory=dict)


class Instruction(Declared):
    """What follows the question in the problem's text, and so is in aggregation prompts too.

    short   for a question without options.
    choice  for one with options.
    """

    short: str = ""
    choice: str = ""


class Benchmark(Declared):
    """A set of problems and how answers to them are scored. Frozen.

    name         in ids of its problems and in results.
    description  a line for people.
    task         the prompts file: a name, or the path of one (from a benchmark's file: relative to that file).
    metric       its name in `evals.scorers`; in code also a `Scorer` of one's own.
    settings     of the metric.
    limit_takes  what `--limit k` takes: the `first` k problems, or a `sample` of k that depends on the seed alone.
    ids          `text`: what is in the id column; `number`: NAME-07, the number in the id column; `papers`:
                 NAME-II-07, for contests of several papers of `paper_size` problems, see `papers`.
    papers       names of the papers. The id column may name paper and problem (`2024-II-7`, an address that ends in
                 `2024_AIME_II_Problems/Problem_7`), count through all papers (1 to 30), or start again with each
                 paper (1 to 15, twice).
    fields       columns that the metric needs besides the gold answer; those that are missing are left out.
    lists        columns whose lists are stored as text: "['a', 'b']".
    cluster_by_image   questions with the same first image form a cluster.

    Where the problems come from is exactly one of: `sources` or `data` (both with `columns`), `generate`, `questions`.
    `data` is a file as `evals.data.open.open_data` reads it (from a benchmark's file: relative to that file).

    Raises BenchmarkError for a key that is unknown, missing or wrong, in plain words.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = Field(min_length=1)
    description: str = ""
    task: str = Field("math", min_length=1)
    metric: Annotated[str | Scorer, SkipValidation]
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    limit_takes: LimitTakes = "first"
    ids: IdRule = "text"
    papers: Names = ()
    paper_size: int = Field(15, ge=1)
    columns: Columns | None = None
    fields: Names = ()
    lists: Names = ()
    cluster_by_image: bool = False
    instruction: Instruction = Instruction()
    sources: tuple[Source, ...] = ()
    data: Path | None = None
    generate: Generate | None = None
    questions: Annotated[Questions | None, SkipValidation] = Field(None, repr=False)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not isinstance(self.metric, str) and not hasattr(self.metric, "score"):
            raise BenchmarkError("`metric` should be the name of a metric or a Scorer")
        if not (self.questions is None or callable(self.questions) or isinstance(self.questions, Sequence)):
            raise BenchmarkError("`questions` should be a list of Question, or a function that returns them")
        origins = {"sources": self.sources, "data": self.data, "generate": self.generate, "questions": self.questions}
        given = [name for name, value in origins.items() if value not in ((), None)]
        if len(given) != 1:
            there = " and ".join(given) or "nowhere"
            raise BenchmarkError(f"its problems come from {there}: give exactly one of {', '.join(origins)}")
        if given[0] in ("sources", "data") and self.columns is None:
            raise BenchmarkError("`columns` is missing: say which columns hold the problem and the gold answer")
        if self.columns is not None:
            _refuse_unknown(self.columns.fields, self.fields, "columns.fields")
        if (self.ids == "papers") != bool(self.papers):
            raise BenchmarkError('ids = "papers" and the names in `papers` go together')
        has_ids = self.ids == "text" and self.columns is not None and self.columns.id
        if any(source.stream for source in self.sources) and not has_ids:
            raise BenchmarkError('a source with `stream` needs ids = "text" and `columns.id`: its rows are not counted')
        return self

    def with_columns(self, mapped: Mapped) -> Benchmark:
        """A copy that takes its columns from elsewhere: keys are those of `Columns`, and names in `fields`.

        Raises BenchmarkError for another key, and if it has no columns; DataError for what is no name.
        """
        names = names_of(mapped)
        if not names:
            return self
        if self.columns is None:
            raise BenchmarkError(f"benchmark {self.name} reads no data set: it has no use for columns")
        roles = {key: old for key, old in self.columns if key != "fields"}
        _refuse_unknown(names, (*roles, *self.fields), f"columns of benchmark {self.name}")
        here = {**{name: (name,) for name in self.fields}, **self.columns.fields, **roles}
        lists = [new for key, given in names.items() if set(here[key]) & set(self.lists) for new in given]
        fields = {**self.columns.fields, **{key: given for key, given in names.items() if key in self.fields}}
        known = {key: given for key, given in names.items() if key in roles}
        columns = self.columns.model_copy(update={**known, "fields": fields})
        return self.model_copy(update={"columns": columns, "lists": (*self.lists, *lists)})

    def with_options(self, options: Mapping[str, Any]) -> Benchmark:
        """A copy whose generator has other options (`evals.data.generated.Generate`).

        Raises BenchmarkError for an unknown or wrong option, and if the problems are not generated.
        """
        if self.generate is None:
            raise BenchmarkError(f"benchmark {self.name} has no options: its problems are not generated")
        try:
            changed = Generate(**{**self.generate.model_dump(), **options})
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {self.name}: {error}") from None
        return self.model_copy(update={"generate": changed})


def _refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise BenchmarkError(f"{what}: none is called {name!r}{near} There are {', '.join(known) or 'none'}")


def benchmark_names() -> list[str]:
    """Names of the benchmarks that come with the package."""
    return resources.names("benchmarks")


def load_benchmark(name: str | Path) -> Benchmark:
    """The benchmark of that name, or of a TOML file by its path.

    Raises BenchmarkError if there is none (naming the nearest and all names), and for a file that is wrong.
    """
    try:
        path = resources.find("benchmarks", str(name) if isinstance(name, Path) else name)
        table = read_toml(path, ConfigError)
    except ConfigError as error:
        raise BenchmarkError(str(error)) from None
    try:
        for key in ("name", "questions"):
            if key in table:
                raise BenchmarkError(f"unknown key {key!r}: a benchmark's file is its name and has no questions")
        benchmark = Benchmark(name=path.stem, **table)
    except BenchmarkError as error:
        raise BenchmarkError(f"benchmark {name}: {error}") from None
    task, data = path.parent / benchmark.task, benchmark.data
    beside = {
        **({"task": str(task)} if task.suffix == ".toml" else {}),
        **({"data": path.parent / path_named(data, BenchmarkError)} if data is not None else {}),
    }
    return benchmark.model_copy(update=beside)
