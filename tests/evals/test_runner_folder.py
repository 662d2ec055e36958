"""Results folders: what may go on in them, and what is scored again from them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import EngineClosedError
from engine.scripted import ScriptedEngine
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.errors import BenchmarkError, DataError, OtherEvalError, ResultsError
from evals.folder import read_eval, read_results, run_name
from evals.job import evaluate
from evals.rescoring import rescore
from rsa import ConfigError, RunLockedError
from rsa.errors import RSAError
from rsa.folders import lock_folder

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
script, benchmark, questions = (_CHILD[name] for name in ("script", "benchmark", "questions"))
Exactly, Dying, problem_of, FAILING = (_CHILD[name] for name in ("Exactly", "Dying", "problem_of", "FAILING"))
run, written, records = (_CHILD[name] for name in ("run", "written", "records"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that is done; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("evals") / "finished"
    run(folder, epochs=2)
    return folder


# ---- the folder


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"n": 5, "seed": 6}, ("config.n", "config.seed")),
        ({"method": "markovian", "c": 1}, ("method", "config.c")),
        ({"epochs": 3}, ("epochs",)),
        ({"limit": 2}, ("data.limit", "data.selected")),
        ({"of": benchmark(5)}, ("data.rows", "data.selected")),
        ({"of": benchmark().model_copy(update={"settings": {"threshold": 1}})}, ("metric settings",)),
    ],
    ids=["settings", "method", "epochs", "limit", "data", "metric"],
)
@pytest.mark.parametrize("resume", [False, True])
def test_another_evaluation_is_refused(
    finished: Path, change: dict[str, Any], keys: tuple[str, ...], resume: bool
) -> None:
    with pytest.raises(OtherEvalError) as caught:
        run(finished, **{"epochs": 2, "resume": resume, **change})
    assert caught.value.keys == keys
    assert all(key in str(caught.value) for key in keys)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, r"by an older version \(format 1\), which this one cannot read: start a new evaluation"),
        (99, r"by a newer version \(format 99\): update"),
    ],
)
def test_a_folder_of_another_version_is_refused_in_words(tmp_path: Path, number: int, said: str) -> None:
    (tmp_path / "eval.json").write_text(json.dumps({"format": number, "what": "nobody knows any more"}))
    with pytest.raises(ResultsError, match=said):
        read_eval(tmp_path)


def test_another_model_is_refused(finished: Path) -> None:
    with pytest.raises(OtherEvalError, match="model fingerprint: 'scripted-1', now 'other'"):
        run(finished, ScriptedEngine(script, fingerprint="other"), epochs=2, resume=True)


def test_the_same_evaluation_goes_on_only_if_it_is_asked_to(finished: Path) -> None:
    with pytest.raises(ResultsError, match=f"already holds this evaluation; go on with: rsa eval --resume {finished}"):
        run(finished, epochs=2)


def test_folders_that_cannot_be_used(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot use results folder"):
        run(tmp_path / "file")
    (tmp_path / "half" / "runs").mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"holds runs/ but no eval\.json"):
        run(tmp_path / "half")
    with pytest.raises(ResultsError, match="holds no evaluation"):
        read_eval(tmp_path)
    with pytest.raises(ResultsError, match="holds no finished evaluation"):
        read_results(tmp_path)
    with pytest.raises(ResultsError, match="there is no folder"):
        read_eval(tmp_path / "nowhere")
    with lock_folder(finished), pytest.raises(RunLockedError, match="another process is working in"):
        run(finished, epochs=2, resume=True)


@pytest.mark.parametrize("name", ["candidates.jsonl", "results.json", "timings.json", "progress.json"])
def test_what_cannot_be_written_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "in the way").mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"cannot (write into|read) .*: Is a directory"):
        run(tmp_path)


def test_resume_starts_an_evaluation_where_there_is_none(tmp_path: Path) -> None:
    assert run(tmp_path / "new", resume=True).mean.problems == 7


@pytest.mark.parametrize("name", ["p/0", "p-0", "P/0", "../..", "a" * 300, "é ü", "CON", "", ".", "x\ud800"])
def test_names_of_run_folders_are_safe(name: str) -> None:
    made = run_name(name, 3)
    assert made == Path(made).name
    assert made.isascii()
    assert len(made) < 64
    assert made.endswith("-e3")
    others = {run_name(other, 3).casefold() for other in ("p/00", "P-0", "p.0", "é u") if other != name}
    assert made.casefold() not in others


def test_problems_of_one_id_and_none_at_all_are_refused(tmp_path: Path) -> None:
    twice = [*questions(2), questions(1)[0]]
    with pytest.raises(DataError, match="'p/0'"):
        run(tmp_path / "twice", of=Benchmark(name="twice", metric=Exactly(), questions=twice))
    with pytest.raises(DataError, match="no problem"):
        run(tmp_path / "none", of=Benchmark(name="none", metric=Exactly(), questions=[]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "vots"}, "no method is called 'vots'; did you mean 'vote'"),
        ({"method": "single", "t": 2}, "t = 2 contradicts method = single"),
        ({"epochs": 0}, "epochs = 0: should be 1 to 10000"),
        ({"epochs": 10**9}, "epochs = 1000000000: should be 1 to 10000"),
        ({"epochs": "3"}, "epochs = '3': should be 1 to 10000"),
        ({"in_flight": 0}, "in_flight = 0: should be 1 to 65536"),
        ({"betta": 3}, "unknown setting 'betta'; did you mean 'beta'"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"benchmark": 5}, "benchmark = 5: should be a name"),
        ({"benchmark": "a\0.toml"}, "cannot use 'a.x00.toml' as a path"),
        ({"engine": 5}, "engine = 5: should be an engine or the name of a model"),
        ({"method": []}, r"no method is called \[\]"),
        ({"out": ""}, "cannot use '' as a path: it is empty"),
        ({"profile": 5}, "no profile is called 5"),
        ({"columns": 5}, "columns is 5: should be a mapping"),
        ({"columns": {"problem": 5}}, "columns: problem should be the name of a column"),
        ({"limit": "x"}, "limit = 'x': should be a valid integer"),
        ({"ids": "1,2"}, "ids = '1,2': should be a list of ids"),
        ({"ids": [5]}, "ids.0 = 5: should be a valid string"),
        ({"data_seed": None}, "data_seed = None: should be a valid integer"),
        ({"revision": 5}, "revision = 5: should be a valid string"),
        ({"shard": 5}, "`shard` 5: should be like 2/4"),
        ({"executor": 5}, "executor = 5: should be an Executor"),
        ({"engine_options": 5}, "engine_options = 5: should be a mapping"),
        ({"on_event": 5}, "on_event = 5: should be a function"),
        ({"questions": [5]}, "benchmark told: a question is 5: should be a Question"),
        ({"questions": lambda: 5}, "benchmark told: its questions are 5"),
    ],
)
def test_faults_of_arguments_are_told_in_a_line(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"benchmark": "sums", "engine": "nano", "out": tmp_path / "out", **arguments}
    if "questions" in asked:
        asked["benchmark"] = Benchmark(name="told", metric="integer", questions=asked.pop("questions"))
        asked["engine"] = ScriptedEngine("no answer")
    with pytest.raises(RSAError, match=says) as caught:
        anyio.run(lambda: evaluate(**asked))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", [{"id": ""}, {"id": 5}, {"problem": 5}, {"gold": object()}, {"images": [5]}])
def test_a_question_that_is_none(field: dict[str, Any]) -> None:
    with pytest.raises(BenchmarkError):
        Question(**{"id": "1", "problem": "2 + 3?", "gold": 5, **field})


# ---- scored again


def test_scored_again_it_is_the_same(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", epochs=2)
    for path in (tmp_path / "out").rglob("scores.json"):
        path.write_text(path.read_text().replace('"scored"', '"too_hard"'))
    (tmp_path / "out" / "candidates.jsonl").unlink()
    results = anyio.run(lambda: rescore(tmp_path / "out", benchmark=benchmark()))
    assert written(tmp_path / "out") == written(finished)
    assert results == read_results(finished)


def test_scored_by_another_metric(tmp_path: Path) -> None:
    class Generous(Exactly):  # type: ignore[valid-type, misc]
        async def score(self, answer: str, gold: Any, fields: Any) -> Any:
            score = await super().score(answer, gold, fields)
            return score.model_copy(update={"value": 1.0}) if score.status == "scored" else score

    run(tmp_path / "out")
    other = benchmark().model_copy(update={"metric": Generous()})
    results = anyio.run(lambda: rescore(tmp_path / "out", benchmark=other))
    assert (results.metric, read_eval(tmp_path / "out").metric) == ("Generous", "Generous")
    by_id = {problem.id: problem.value for problem in results.problems}
    assert by_id == {f"p/{i}": {4: None, 5: 0.0}.get(i, 1.0) for i in range(8)}
    engine = ScriptedEngine(script)
    run(tmp_path / "out", engine, of=other, resume=True)
    assert {problem_of(request) for request in engine.requests} == {FAILING}


def test_what_cannot_be_scored_again(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="a program gave the problems"):
        anyio.run(lambda: rescore(finished))
    with pytest.raises(ResultsError, match="holds no evaluation"):
        anyio.run(lambda: rescore(tmp_path, benchmark=benchmark()))
    with pytest.raises(OtherEvalError, match=r"data\.rows"):
        anyio.run(lambda: rescore(finished, benchmark=benchmark(3)))
    with pytest.raises(EngineClosedError):
        run(tmp_path / "broken", Dying(20), in_flight=1)
    with pytest.raises(ResultsError, match="is not finished; go on with: rsa eval --resume"):
        anyio.run(lambda: rescore(tmp_path / "broken", benchmark=benchmark()))


def test_a_gold_answer_that_was_mended_counts_when_it_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "out")
    mended = [question.model_copy(update={"gold": "1"}) for question in questions()]
    engine = ScriptedEngine(script)
    results = run(
        tmp_path / "out", engine, of=Benchmark(name="thirds", metric=Exactly(), questions=mended), resume=True
    )
    assert {problem_of(request) for request in engine.requests} == {FAILING}
    rows = [record for record in records(tmp_path / "out") if record.score.status == "scored"]
    assert all(row.score.value == float(row.score.extracted == "1") for row in rows)
    assert results.mean.problems == 7
