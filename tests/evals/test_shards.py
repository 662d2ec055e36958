"""Shards: whatever the list, each problem is in one of them, and merged they are the evaluation of all."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import started
from sealed import content, rewrite

from engine.scripted import ScriptedEngine
from evals.comparison import compare
from evals.data.benchmarks import load_benchmark
from evals.data.open import open_data
from evals.data.shard import Shard, interleaved
from evals.errors import DataError, OtherEvalError, ResultsError
from evals.folder import read_eval, read_results
from evals.merging import merge
from evals.report import write_report
from evals.results import EvalTimings
from rsa import RunLockedError
from rsa.folders import lock_folder

CHILD = Path(__file__).with_name("eval_child.py")
_CHILD = runpy.run_path(str(CHILD))
script, benchmark, run, written = (_CHILD[name] for name in ("script", "benchmark", "run", "written"))
FAILING, problem_of = _CHILD["FAILING"], _CHILD["problem_of"]


def sharded(folder: Path, of: int, **more: Any) -> list[Path]:
    """An evaluation in parts, each by itself."""
    folders = [folder / f"shard-{index}" for index in range(1, of + 1)]
    for index, part in enumerate(folders, 1):
        run(part, shard=f"{index}/{of}", **{"epochs": 2, **more})
    return folders


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of all problems in one; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("evals") / "whole"
    run(folder, epochs=2)
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same evaluation in four shards; tests leave them as they are."""
    return sharded(tmp_path_factory.mktemp("evals"), 4)


# ---- which problems


@given(st.lists(st.integers(), min_size=1, max_size=40), st.data())
def test_the_parts_of_a_list_make_up_the_list(problems: list[int], data: st.DataObject) -> None:
    of = data.draw(st.integers(1, len(problems)))
    shards = [Shard(index, of) for index in range(1, of + 1)]
    parts = [shard.part(problems) for shard in shards]
    assert interleaved(parts) == problems
    for place, problem in enumerate(problems):
        (holder,) = [number for number, shard in enumerate(shards) if shard.holds(place)]
        assert parts[holder][place // of] == problem
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_only_the_parts_of_one_list_can_be_interleaved(sizes: list[int]) -> None:
    parts = [[(number, place) for place in range(size)] for number, size in enumerate(sizes)]
    fits = sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
    if fits:
        assert len(interleaved(parts)) == sum(sizes)
    else:
        with pytest.raises(ValueError, match="no list has parts of"):
            interleaved(parts)


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "2/4/8", "1.0/2", "2 / 4", "a/b", "1/²"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(DataError, match=r"should be like 2/4, the second of four"):
        Shard.read(text)


def _file(folder: Path, rows: int) -> dict[str, Any]:
    lines = [json.dumps({"problem": f"{i}?", "answer": i, "problem_idx": i + 1}) for i in range(rows)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return {"data": folder / "data.jsonl"}


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("chain", {"limit": 11, "seed": 3}),
        ("chain", {"ids": [f"chain-0-000{i}" for i in (7, 2, 5, 3)]}),
        ("aime25", {}),
        ("aime25", {"limit": 7}),
        ("aime25", {"ids": [f"aime25-I-0{i}" for i in (9, 1, 4, 2)]}),
        ("sampled", {"limit": 9, "seed": 8}),
    ],
)
def test_shards_have_the_problems_of_every_kind_of_data(tmp_path: Path, name: str, choice: dict[str, Any]) -> None:
    of = load_benchmark("aime25").model_copy(update={"limit_takes": "sample"})
    of = of if name == "sampled" else load_benchmark(name)
    given = {**choice, **(_file(tmp_path, 14) if name != "chain" else {})}
    everything = list(open_data(of, **given))
    for count in (2, 3, 4):
        opened = [open_data(of, **given, shard=Shard(index, count)) for index in range(1, count + 1)]
        assert interleaved([list(data) for data in opened]) == everything
        for index, data in enumerate(opened, 1):
            assert len(data) == len(list(data)) == len(data.ids or ())
            assert data.info.options["shard"] == f"{index}/{count}"


def test_more_shards_than_problems_are_refused_at_each_of_them(tmp_path: Path) -> None:
    for index in (1, 9):
        with pytest.raises(DataError, match=f"`shard` {index}/9: there are only 8 problems"):
            run(tmp_path / "out", shard=f"{index}/9")
    assert not (tmp_path / "out").exists()


# ---- merged


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_merged_shards_are_the_evaluation_of_all_problems_to_the_byte(whole: Path, tmp_path: Path, of: int) -> None:
    folders = sharded(tmp_path, of)
    results = merge(folders[::-1], tmp_path / "merged")
    assert written(tmp_path / "merged") == written(whole)
    assert results == read_results(whole)
    assert {path.name for path in (tmp_path / "merged" / "runs").iterdir()} == {
        path.name for path in (whole / "runs").iterdir()
    }


def test_a_merged_folder_is_like_any_other(whole: Path, four: list[Path], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merge(four, merged)
    assert read_eval(merged).identity() == read_eval(whole).identity()
    again = ScriptedEngine(script)
    run(merged, again, epochs=2, resume=True)
    assert {problem_of(request) for request in again.requests} == {FAILING}, "what failed gets another try, as ever"
    assert written(merged) == written(whole)
    assert compare(whole, merged).headline.difference.value == 0
    timings = [EvalTimings.model_validate_json(content(part / "timings.json")) for part in (*four, merged)]
    assert len(timings[-1].problems) == sum(len(part.problems) for part in timings[:-1])


@pytest.mark.thorough
def test_reports_of_the_merged_and_the_whole_are_the_same_but_for_clocks(
    whole: Path, four: list[Path], tmp_path: Path
) -> None:
    merge(four, tmp_path / "merged")
    shutil.copytree(whole, tmp_path / "whole")
    pages = []
    for folder in (tmp_path / "merged", tmp_path / "whole"):
        (folder / "timings.json").unlink()
        pages.append(write_report(folder).read_bytes())
    assert pages[0] == pages[1]


def test_a_shard_that_is_killed_and_resumed_changes_nothing(whole: Path, four: list[Path], tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    root = str(Path(__file__).resolve().parents[2])
    words = [sys.executable, CHILD, killed, "2/4"]
    with started(words, env={**os.environ, "PYTHONPATH": root, "HOLD_AFTER": "5"}) as child:
        assert child.stdout is not None
        for _ in range(5):
            child.stdout.readline()
        child.kill()
        child.wait()
    folders = [four[0], killed, *four[2:]]
    with pytest.raises(ResultsError, match=f"1 shard not finished: {killed}; go on with: rsa eval --resume {killed}"):
        merge(folders, tmp_path / "merged")
    engine = ScriptedEngine(script)
    run(killed, engine, epochs=2, resume=True, shard="2/4")
    assert 0 < len(engine.requests) < 2 * 2 * 8, "what was done was not done again"
    merge(folders, tmp_path / "merged")
    assert written(tmp_path / "merged") == written(whole)


# ---- what cannot be merged


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ([], "there is nothing to merge"),
        ([1, 2, 4], "1 shard missing: 3/4"),
        ([4], "3 shards missing: 1/4, 2/4, 3/4"),
        ([1, 2, 2, 3, 4], r"shard-2 and .*shard-2 are both shard 2/4: leave one of them out"),
    ],
)
def test_shards_missing_or_twice_are_named(four: list[Path], tmp_path: Path, chosen: Sequence[int], says: str) -> None:
    with pytest.raises(ResultsError, match=says) as caught:
        merge([four[index - 1] for index in chosen], tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_do_not_belong_together(whole: Path, four: list[Path], tmp_path: Path) -> None:
    other, unequal = tmp_path / "other", tmp_path / "unequal"
    run(other, shard="2/4", epochs=2, n=5)
    run(unequal, shard="2/3", epochs=2)
    with pytest.raises(OtherEvalError, match=r"of different evaluations. Different: config.n: 4, now 5"):
        merge([four[0], other, *four[2:]], tmp_path / "merged")
    with pytest.raises(ResultsError, match=r"shard-1 is shard 1/4, .*unequal is shard 2/3: all must be of one number"):
        merge([four[0], unequal, *four[2:]], tmp_path / "merged")
    with pytest.raises(ResultsError, match="whole is no shard: it holds a whole evaluation"):
        merge([*four, whole], tmp_path / "merged")
    with pytest.raises(ResultsError, match="holds no evaluation"):
        merge([tmp_path], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_shards_whose_data_differ_overlap(four: list[Path], tmp_path: Path) -> None:
    """A program may give other problems at another time: their number alone tells nothing."""
    turned = benchmark().model_copy(update={"questions": benchmark().questions[::-1]})
    run(tmp_path / "turned", shard="2/4", epochs=2, of=turned)
    with pytest.raises(ResultsError, match=r"both have the problem 'p/\d': their data differ"):
        merge([four[0], tmp_path / "turned", *four[2:]], tmp_path / "merged")


def test_where_it_may_be_written(four: list[Path], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(ResultsError, match=f"{name} is not empty: name a new folder"):
            merge(four, tmp_path / name)
    with pytest.raises(ResultsError, match=r"cannot use results folder .*file is a file"):
        merge(four, tmp_path / "file" / "merged")
    with lock_folder(four[2]), pytest.raises(RunLockedError, match=r"another process is working in .*shard-3"):
        merge(four, tmp_path / "empty")
    merge(four, tmp_path / "empty")
    assert (tmp_path / "empty" / "results.json").is_file()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"full", "file", "empty"}, "nothing of it lies about"


def test_a_run_that_was_deleted_is_named_and_nothing_is_left(four: list[Path], tmp_path: Path) -> None:
    folders = [tmp_path / path.name for path in four]
    for path, copy in zip(four, folders, strict=True):
        shutil.copytree(path, copy)
    gone = next((folders[1] / "runs").iterdir())
    shutil.rmtree(gone)
    with pytest.raises(ResultsError, match=f"{gone.name} has no scores: it was changed or deleted"):
        merge(folders, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_shard_that_was_changed_is_named_or_taken_on_trust(four: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(four[1], tmp_path / "shard-2"))
    scores = min(copy.glob("runs/*/scores.json"))
    scores.write_text(scores.read_text().replace('"gold":', '"gold": ', 1))
    folders = [four[0], copy, *four[2:]]
    with pytest.raises(ResultsError, match=f"{scores} is not what was written there"):
        merge(folders, tmp_path / "merged")
    results = merge(folders, tmp_path / "merged", trust=True)
    assert f"taken on trust: {scores.relative_to(copy)} is not what was written there" in results.warnings
    assert read_results(tmp_path / "merged") == results, "it is recorded"


def test_shards_of_other_versions_are_told(four: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "shard-2"
    shutil.copytree(four[1], copy)
    rewrite(copy / "eval.json", lambda was: {**was, "versions": {**was["versions"], "pydantic": "0.1"}})
    results = merge([four[0], copy, *four[2:]], tmp_path / "merged")
    assert any(
        warning.startswith("shard 2/4 ran with other versions than shard 1/4: pydantic: ")
        for warning in results.warnings
    )
