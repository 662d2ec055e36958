"""Data sets of the Hub: which files are fetched, what stands in for what, and what happens without a network.

The Hub itself is played by folders: `huggingface_hub`'s two calls are replaced, but for the last tests, which use its
real cache, offline.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet
import pytest
from huggingface_hub import errors

from evals.data.benchmarks import Benchmark, Source, load_benchmark
from evals.data.open import open_data
from evals.data.shard import Shard, interleaved
from evals.errors import DataError

COMMIT = "c94da77eb22bbd6439e62a323bec18493a421302"
COLUMNS = {"problem": "problem", "gold": "answer"}


def lines(*problems: str) -> str:
    return "".join(json.dumps({"problem": problem, "answer": 1}) + "\n" for problem in problems)


def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    """As the Hub's client raises it."""
    answer: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("refused\nat length", response=answer)


class Hub:
    """Data sets by id: files, or the error that asking for them meets. Keeps what was asked and fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.online = folder, True
        self.sets: dict[str, dict[str, str] | Exception] = {}
        self.asked: list[str] = []
        self.fetched: list[str] = []

    def dataset_info(self, hub: str, *, revision: str | None, timeout: float) -> SimpleNamespace:
        self.asked.append(hub)
        if not self.online:
            raise ConnectionError("no route")
        files = self.sets.get(hub, refusal(errors.RepositoryNotFoundError, 404))
        if isinstance(files, Exception):
            raise files
        siblings = [SimpleNamespace(rfilename=name) for name in files]
        return SimpleNamespace(sha=revision or COMMIT, siblings=siblings)

    def snapshot_download(
        self, hub: str, *, repo_type: str, revision: str | None, allow_patterns: Sequence[str], local_files_only: bool
    ) -> str:
        assert repo_type == "dataset"
        folder = self.folder / hub / (revision or COMMIT)
        if local_files_only:
            if folder.is_dir():
                return str(folder)
            raise errors.LocalEntryNotFoundError("nothing here")
        files = self.sets[hub]
        assert not isinstance(files, Exception)
        for name, text in files.items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                self.fetched.append(name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
        return str(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    played = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", played.dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", played.snapshot_download)
    return played


def benchmark(*sources: dict[str, Any]) -> Benchmark:
    return Benchmark(name="made-up", metric="integer", columns=COLUMNS, sources=sources)


def problems(of: Benchmark) -> list[str]:
    return [question.problem for question in open_data(of)]


def test_only_the_files_of_the_split_are_fetched(hub: Hub) -> None:
    hub.sets["a/b"] = {
        "README.md": "",
        "data/train-00000-of-00001.jsonl": lines("no"),
        "data/test-00001-of-00002.jsonl": lines("two"),
        "data/test-00000-of-00002.jsonl": lines("one"),
    }
    data = open_data(benchmark({"hub": "a/b", "split": "test", "rows": 2}))
    assert [question.problem for question in data] == ["one", "two"]
    assert sorted(hub.fetched) == ["data/test-00000-of-00002.jsonl", "data/test-00001-of-00002.jsonl"]
    assert data.info.model_dump(exclude={"options"}) == {
        "kind": "hub",
        "name": "a/b",
        "config": None,
        "split": "test",
        "revision": COMMIT,
        "rows": 2,
        "selected": 2,
        "columns": {},
    }
    assert data.warnings == ()


def test_configurations_and_several_ids_are_read_in_their_order(hub: Hub) -> None:
    hub.sets["a/b"] = {f"{name}/test-0.jsonl": lines(name) for name in ("Art", "Biology", "Chemistry")}
    hub.sets["a/c"] = {f"{name}/test-0.jsonl": lines(f"{name} of c") for name in ("Art", "Biology")}
    source = {"hub": ["a/b", "a/c"], "config": ["Biology", "Art"], "split": "test", "revision": ["1" * 40, "2" * 40]}
    data = open_data(benchmark(source))
    assert [question.problem for question in data] == ["Biology", "Art", "Biology of c", "Art of c"]
    assert (data.info.name, data.info.config) == ("a/b + a/c", "Biology, Art")
    assert data.info.revision == f"{'1' * 40} + {'2' * 40}"


def test_another_source_stands_in_and_says_so(hub: Hub) -> None:
    hub.sets["a/gated"] = refusal(errors.GatedRepoError, 403)
    hub.sets["a/old"] = refusal(errors.RevisionNotFoundError, 404)
    hub.sets["a/other"] = {"stuff.jsonl": lines("x")}
    hub.sets["a/good"] = {"test.jsonl": lines("x")}
    ids = ("a/none", "a/gated", "a/old", "a/other", "a/good")
    sources = [{"hub": one, "split": "test", "files": "test.jsonl", "revision": COMMIT} for one in ids]
    data = open_data(benchmark(*sources))
    assert data.info.name == "a/good"
    assert data.warnings == (
        "the data come from a/good, because a/none: the Hub has no such data set, or it is private",
        "the data come from a/good, because a/gated: access must be asked for on its page, then `hf auth login`",
        f"the data come from a/good, because a/old: has no revision {COMMIT}",
        "the data come from a/good, because a/other: no file is called test.jsonl; it has stuff.jsonl",
    )
    with pytest.raises(DataError, match=r"cannot be loaded: a/none: .*; a/gated: .* given as `data`"):
        open_data(benchmark(*sources[:2]))


def test_a_data_set_with_other_rows_than_expected(hub: Hub) -> None:
    hub.sets["a/b"] = {"data/test-0.jsonl": lines("one", "two")}
    with pytest.raises(DataError, match="a/b has 2 rows where 3 are expected: it is not whole"):
        open_data(benchmark({"hub": "a/b", "split": "test", "rows": 3}))
    (warning,) = open_data(benchmark({"hub": "a/b", "split": "test", "rows": 1})).warnings
    assert warning == "a/b has 2 rows where 1 are expected"


def test_a_revision_of_ones_own(hub: Hub) -> None:
    hub.sets["a/b"] = {"data/test-0.jsonl": lines("one")}
    pinned = benchmark({"hub": "a/b", "split": "test", "revision": "1" * 40})
    assert open_data(pinned).info.revision == "1" * 40
    assert open_data(pinned, revision="2" * 40).info.revision == "2" * 40
    with pytest.raises(DataError, match="a revision says nothing about it"):
        open_data(pinned, revision="2" * 40, data=Path("x.jsonl"))


def test_a_layout_of_its_own_is_looked_up_by_datasets(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.sets["a/b"] = {"odd/questions.jsonl": lines("one"), "odd/training.jsonl": lines("no")}
    asked: list[tuple[str, str | None, str]] = []

    def builder(path: str, name: str | None, *, revision: str, cache_dir: str) -> SimpleNamespace:
        asked.append((path, name, revision))
        file = f"hf://datasets/{path}@{revision}/odd/questions.jsonl"
        return SimpleNamespace(config=SimpleNamespace(data_files={"test": [file]}))

    monkeypatch.setattr("datasets.load_dataset_builder", builder)
    assert problems(benchmark({"hub": "a/b", "config": "main", "split": "test"})) == ["one"]
    assert asked == [("a/b", "main", COMMIT)]
    assert hub.fetched == ["odd/questions.jsonl"]
    with pytest.raises(DataError, match=r"a/b: has no split 'dev'; its files are odd/questions.jsonl, odd/training"):
        problems(benchmark({"hub": "a/b", "split": "dev"}))


def test_without_a_network_a_whole_copy_will_do(hub: Hub) -> None:
    hub.sets["a/b"] = {"data/test-0.jsonl": lines("one")}
    of = benchmark({"hub": "a/b", "split": "test"}, {"hub": "a/c", "split": "test"})
    here = open_data(of)
    hub.online, hub.asked = False, []
    there = open_data(of)
    assert there.info == here.info
    assert list(there) == list(here)
    assert hub.asked == ["a/b"]


def test_without_a_network_or_a_copy_it_says_how_to_bring_one(hub: Hub, tmp_path: Path) -> None:
    hub.online = False
    aime = load_benchmark("aime25")
    with pytest.raises(DataError, match="benchmark aime25 cannot be loaded: the Hub cannot be reached") as caught:
        open_data(aime)
    assert hub.asked == ["MathArena/aime_2025"], "the Hub is not waited for again"
    command = "hf download MathArena/aime_2025 --repo-type dataset --revision {} --include 'data/train-*'"
    assert f"`{command.format(COMMIT)} --local-dir aime25`" in str(caught.value)
    assert "folder aime25 here and give it as `data`; or give a .jsonl" in str(caught.value)

    folder = tmp_path / "aime25"  # as that command fills it
    for name in ("data/train-00000-of-00001.jsonl", ".cache/huggingface/download/data/train-0.metadata"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(lines("one"))
    data = open_data(aime, data=folder)
    assert [question.id for question in data] == ["aime25-I-01"]
    assert (data.info.kind, data.info.name, data.info.split) == ("file", "aime25", "train")


def test_a_folder_of_two_data_sets(hub: Hub, tmp_path: Path) -> None:
    hub.online = False
    of = benchmark({"hub": ["a/I", "a/II"], "split": "train"})
    with pytest.raises(DataError, match=r"--local-dir made-up/1 && hf download a/II .* --local-dir made-up/2`"):
        open_data(of)
    for place, problem in (("1", "one"), ("2", "two")):
        (tmp_path / "copy" / place / "data").mkdir(parents=True)
        (tmp_path / "copy" / place / "data" / "train-0.jsonl").write_text(lines(problem))
    assert [question.problem for question in open_data(of, data=tmp_path / "copy")] == ["one", "two"]


@pytest.mark.parametrize("name", ["mmmu", "vqav2"])
def test_the_command_names_the_files_of_a_large_set(name: str, hub: Hub) -> None:
    hub.online = False
    with pytest.raises(DataError, match=r"--include '(\*|data)/validation-\*' --local-dir"):
        open_data(load_benchmark(name))


def test_the_real_cache_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    of = benchmark({"hub": "a/b", "split": "test", "revision": COMMIT})
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, and no whole copy is on this machine"):
        open_data(of)
    folder = tmp_path / "datasets--a--b" / "snapshots" / COMMIT / "data"
    folder.mkdir(parents=True)
    (folder / "test-0.jsonl").write_text(lines("one"))
    data = open_data(of)
    assert [question.problem for question in data] == ["one"]
    assert data.info.revision == COMMIT


# ---------------------------------------------------------------- read where it is


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Benchmark, list[int]]:
    """VQAv2 in miniature: 3 files of 4 groups of 10 rows, and the first rows of the groups that are read."""
    files = []
    for number in range(3):
        rows = [
            {
                "question_id": index,
                "question": f"{index}?",
                "image_id": index // 5,
                "answers": [{"answer": "a"}] * 10,
                "image": {"bytes": b"\x89PNG", "path": None},
            }
            for index in range(number * 40, number * 40 + 40)
        ]
        files.append(str(tmp_path / f"{number}.parquet"))
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), files[-1], row_group_size=10)
    groups: list[int] = []

    def find(name: str, sources: Sequence[Source], revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(source=sources[0], files=files, revisions=(COMMIT,), skipped=())

    read = pyarrow.parquet.ParquetFile.read_row_group

    def counted(self: Any, index: int, columns: list[str] | None = None) -> Any:
        table = read(self, index, columns)
        if columns is None:
            groups.append(table["question_id"][0].as_py())
        return table

    monkeypatch.setattr("evals.data.hub.find", find)
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", counted)
    source = load_benchmark("vqav2").sources[0].model_copy(update={"rows": 120})
    return load_benchmark("vqav2").model_copy(update={"sources": (source,)}), groups


def test_a_sample_of_a_remote_set_fetches_few_groups(remote: tuple[Benchmark, list[int]]) -> None:
    benchmark, groups = remote
    data = open_data(benchmark, limit=20, seed=5)
    assert (data.info.rows, data.info.selected, data.ids) == (120, 20, None)
    assert groups == []
    drawn = [question.id for question in data]
    assert len(groups) == 3, "8 rows of a group"
    assert drawn == sorted(set(drawn), key=int)
    assert len(drawn) == 20
    assert [question.id for question in data] == drawn
    assert set(drawn) < {question.id for question in open_data(benchmark, limit=100, seed=5)}
    assert drawn != [question.id for question in open_data(benchmark, limit=20, seed=6)]
    assert {question.cluster for question in data} == {str(int(one) // 5) for one in drawn}


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (8, 8), (119, 119), (120, 120), (500, 120), (None, 120)])
def test_every_row_of_a_remote_set_can_be_had_once(
    limit: int | None, count: int, remote: tuple[Benchmark, list[int]]
) -> None:
    benchmark, _ = remote
    data = open_data(benchmark, limit=limit)
    assert len({question.id for question in data}) == len(data) == count


def test_ids_of_a_remote_set(remote: tuple[Benchmark, list[int]]) -> None:
    benchmark, groups = remote
    assert [question.id for question in open_data(benchmark, ids=["57", "3", "51"])] == ["3", "51", "57"]
    assert groups == [0, 50], "only the groups they are in"
    with pytest.raises(DataError, match="`ids`: lmms-lab-encoder/VQAv2 has no problem 500"):
        list(open_data(benchmark, ids=["57", "500"]))


@pytest.mark.parametrize("choice", [{}, {"limit": 20, "seed": 5}, {"ids": ["57", "3", "51"]}])
def test_shards_of_a_remote_set(choice: dict[str, Any], remote: tuple[Benchmark, list[int]]) -> None:
    benchmark, _ = remote
    shards = [open_data(benchmark, **choice, shard=Shard(index, 3)) for index in (1, 2, 3)]
    parts = [[question.id for question in data] for data in shards]
    assert interleaved(parts) == [question.id for question in open_data(benchmark, **choice)]
    assert list(map(len, parts)) == list(map(len, shards))


def test_a_remote_set_without_a_column(remote: tuple[Benchmark, list[int]]) -> None:
    benchmark, _ = remote
    assert benchmark.columns is not None
    columns = benchmark.columns.model_copy(update={"gold": ("best_answer",)})
    with pytest.raises(DataError, match="no column 'best_answer' for the gold answer; there are answers, image"):
        open_data(benchmark.model_copy(update={"columns": columns}), limit=1)
