"""The runner: whatever happens on the way, the same evaluation ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from processes import started
from sealed import content, rewrite

from engine.api import Completion, EngineEvent, GenerationRequest, ModelInfo
from engine.errors import EngineClosedError, OutOfMemoryError
from engine.scripted import Script, ScriptedEngine, ScriptedStream
from evals import display
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.display import result_lines
from evals.errors import GoldError, ResultsError
from evals.events import EvalEvent, EvalFinished, EvalStarted, RunEnded
from evals.folder import ResultsFolder, read_results, run_name
from evals.job import evaluate
from evals.rescoring import rescore
from evals.results import EvalTimings
from evals.solving import default_in_flight, epoch_seed
from rsa import ConfigError
from rsa.digests import seal

CHILD = Path(__file__).with_name("eval_child.py")
_CHILD = runpy.run_path(str(CHILD))
SETTINGS, script, benchmark, questions = (_CHILD[name] for name in ("SETTINGS", "script", "benchmark", "questions"))
Exactly, Dying, problem_of, FAILING = (_CHILD[name] for name in ("Exactly", "Dying", "problem_of", "FAILING"))
run, written, records = (_CHILD[name] for name in ("run", "written", "records"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing happened to; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("evals") / "finished"
    run(folder, epochs=2)
    return folder


# ---- killed and resumed


def test_killed_ten_times_and_resumed_it_ends_in_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    """Each process is killed right after a line that it wrote: it has generated, scored, or is about to write."""
    rng = random.Random(7)
    said: list[str] = []
    for _ in range(9):
        lines = rng.randint(1, 9)
        said += _killed(tmp_path / "out", lambda said, lines=lines: len(said) == lines)  # type: ignore[misc]
    said += _killed(tmp_path / "out", lambda said: said[-1] == "writing\n")
    assert not (tmp_path / "out" / "results.json").exists()
    assert {"generated\n", "scored\n", "writing\n"} == set(said)
    engine = ScriptedEngine(script)
    run(tmp_path / "out", engine, epochs=2, resume=True)
    assert written(tmp_path / "out") == written(finished)
    assert {problem_of(request) for request in engine.requests} == {FAILING}, "what was done was not done again"
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert len(runs) == 8 * 2


def _killed(folder: Path, enough: Callable[[list[str]], bool]) -> list[str]:
    """Start the child and kill it as soon as it has said enough; the lines it said."""
    root = str(Path(__file__).resolve().parents[2])
    with started([sys.executable, CHILD, folder], env={**os.environ, "PYTHONPATH": root}) as child:
        assert child.stdout is not None
        said: list[str] = []
        for line in child.stdout:
            said.append(line)
            if enough(said):
                child.kill()
                break
        child.wait()
    assert child.returncode == -9, "it ended before it was killed"
    return said


def test_scores_that_are_missing_are_made_again_from_the_run_and_broken_ones_refused(
    finished: Path, tmp_path: Path
) -> None:
    run(tmp_path / "out", epochs=2)
    (tmp_path / "out" / "runs" / run_name("p/0", 0) / "scores.json").unlink()
    broken = tmp_path / "out" / "runs" / run_name("p/1", 1) / "scores.json"
    broken.write_text("{")
    with pytest.raises(ResultsError, match=r"scores\.json cannot be understood.*or remove it: rsa eval --resume"):
        run(tmp_path / "out", epochs=2, resume=True)
    broken.unlink()
    for problem, groups in (("p/2", lambda groups: groups[:1]), ("p/3", lambda groups: [[[99]], groups[1]])):
        path = tmp_path / "out" / "runs" / run_name(problem, 0) / "scores.json"
        scores = json.loads(content(path))
        path.write_bytes(seal(json.dumps({**scores, "groups": groups(scores["groups"])}).encode()).data)
        with pytest.raises(ResultsError, match=r"scores\.json cannot be understood"):
            run(tmp_path / "out", epochs=2, resume=True)
        path.unlink()
    engine = ScriptedEngine(script)
    run(tmp_path / "out", engine, epochs=2, resume=True)
    assert written(tmp_path / "out") == written(finished)
    assert {problem_of(request) for request in engine.requests} == {FAILING}


# ---- what does not change the results


@pytest.mark.parametrize("in_flight", [1, 3, 8])
def test_problems_in_flight_change_nothing(finished: Path, tmp_path: Path, in_flight: int) -> None:
    engine = ScriptedEngine(script)
    run(tmp_path / "out", engine, epochs=2, in_flight=in_flight)
    assert written(tmp_path / "out") == written(finished)
    assert engine.max_active <= in_flight * SETTINGS["n"]
    assert engine.max_active > (in_flight - 1) * SETTINGS["n"] / 2, "the engine was kept busy"


def test_tokens_that_the_engine_had_cached_are_not_in_the_results(finished: Path, tmp_path: Path) -> None:
    class Caching(ScriptedStream):
        async def __anext__(self) -> EngineEvent:
            event = await super().__anext__()
            if isinstance(event, Completion):
                usage = event.usage.model_copy(update={"cached_tokens": 7})
                return event.model_copy(update={"usage": usage})
            return event

    class CachingEngine(ScriptedEngine):
        def generate(self, requests: Sequence[GenerationRequest]) -> ScriptedStream:
            return Caching(self, requests)

    results = run(tmp_path / "out", CachingEngine(script), epochs=2)
    assert results.usage.cached_tokens == 0
    assert written(tmp_path / "out") == written(finished)


def test_default_in_flight_asks_for_twice_the_rows_of_the_engine() -> None:
    def at_once(n: int, rows: int | None) -> int:
        return default_in_flight(n, ModelInfo(name="any", max_rows=rows))

    assert [at_once(n, 64) for n in (1, 8, 16, 64, 100, 1000)] == [128, 16, 8, 2, 2, 2]
    assert [at_once(16, rows) for rows in (1, 512, None)] == [2, 64, 8]


# ---- epochs


def test_the_first_epoch_is_the_evaluation_without_epochs(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "one")
    assert [record for record in records(finished) if record.epoch == 0] == records(tmp_path / "one")


def test_another_epoch_is_the_same_problems_with_another_seed(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", seed=epoch_seed(SETTINGS["seed"], 1))
    second = [record.model_copy(update={"epoch": 0}) for record in records(finished) if record.epoch == 1]
    assert second == records(tmp_path / "other")
    seeds = [record.seed for record in records(finished)]
    assert len(seeds) == len(set(seeds)), "no noise is used twice"


def test_candidates_are_in_order_of_problem_epoch_round_and_index(finished: Path) -> None:
    order = [question.id for question in questions()]
    places = [(order.index(r.problem_id), r.epoch, r.round, r.index) for r in records(finished)]
    assert places == sorted(places)
    assert len(places) == len(set(places))


def test_a_record_says_what_was_asked_and_how_it_ended(finished: Path) -> None:
    record = records(finished)[0]
    assert (record.problem_id, record.epoch, record.round, record.index) == ("p/0", 0, 0, 0)
    assert record.sampling["reasoning_budget"] == SETTINGS["beta"]
    assert (record.sampling["temperature"], record.sampling["top_p"]) == (0.7, 0.95)
    assert len(record.prompt_sha256) == 64
    assert (record.status, record.finish_reason, record.forced) == ("ok", "stop", False)
    assert record.completion_tokens > record.reasoning_tokens > 0
    assert len({r.prompt_sha256 for r in records(finished) if r.problem_id == "p/0" and r.round == 0}) == 1


# ---- failures


def test_a_problem_that_fails_is_recorded_and_the_others_go_on(finished: Path) -> None:
    results = read_results(finished)
    failing = next(problem for problem in results.problems if problem.id == f"p/{FAILING}")
    assert (failing.value, failing.answer, failing.final_vote) == (None, None, None)
    assert results.mean.problems == 7
    assert any("p/4: all 4 candidates of round 0 failed: OutOfMemoryError" in each for each in results.warnings)
    rows = [record for record in records(finished) if record.problem_id == failing.id]
    assert {(row.status, row.score.status, row.score.value) for row in rows} == {("failed", "failed", None)}
    assert results.statuses["failed"] == 2 + 2 * 4  # one candidate of the halting problem, all of the failing one


def test_failed_problems_get_another_try_when_it_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "out")

    def healthy(request: GenerationRequest) -> Script:
        return Script(request.id, rf"\boxed{{{request.sampling.seed % 3}}}")

    engine = ScriptedEngine(healthy)
    results = run(tmp_path / "out", engine, resume=True)
    assert {problem_of(request) for request in engine.requests} == {FAILING}
    assert results.mean.problems == 8
    assert not list((tmp_path / "out").rglob("failed.json"))


def test_problems_that_cannot_be_read_fail_alone(tmp_path: Path) -> None:
    bad = [
        Question(id="empty", problem=" ", gold="0"),
        Question(id="long", problem=f"what is number 1? {'x' * 3000}", gold="0"),
        Question(id="gold", problem="what is number 1?", gold=7),
    ]
    mixed = Benchmark(name="mixed", metric=Exactly(), questions=[*questions(2), *bad])
    engine = ScriptedEngine(script, context_tokens=2500)
    results = run(tmp_path / "out", engine, of=mixed, beta=128)
    assert [problem.value is None for problem in results.problems] == [False, False, True, True, True]
    (failed,) = (warning for warning in results.warnings if warning.startswith("problems that failed"))
    assert failed.startswith("problems that failed: 3; ")
    for reason in (
        "empty: the problem is empty",
        "long: the problem does not fit",
        "gold: the gold answer should be text",
    ):
        assert reason in failed
    assert {problem_of(request) for request in engine.requests} == {0, 1}
    assert results.rounds[0].present == 8
    assert results.rounds[0].asked == 20
    assert "the final rounds have 8 of the 20 candidates asked for" in results.warnings


def test_a_metric_that_does_not_fit_is_noticed_before_anything_runs(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    numbers = [Question(id=str(i), problem=f"what is number {i}?", gold=i) for i in range(3)]
    with pytest.raises(GoldError, match="problem '0': the gold answer should be text, not 0"):
        run(tmp_path / "out", engine, of=Benchmark(name="numbers", metric=Exactly(), questions=numbers))
    assert engine.requests == []


def test_an_engine_that_breaks_down_stops_it_and_nothing_is_lost(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineClosedError):
        run(tmp_path / "out", Dying(30), epochs=2, in_flight=2)
    assert not (tmp_path / "out" / "results.json").exists()
    engine = ScriptedEngine(script)
    run(tmp_path / "out", engine, epochs=2, resume=True)
    assert written(tmp_path / "out") == written(finished)
    total = 2 * (8 * 4 * 2 - 4)  # the failing problem has no second round
    again = 2 * 4 if {FAILING} <= {problem_of(request) for request in engine.requests} else 0
    assert len(engine.requests) <= total - 30 + again


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "single"},
        {"method": "vote"},
        {"method": "markovian", "c": 1},
        {"method": "full-rsa"},
        {"select": "aggregate"},
        {"stop": "consensus:.75"},
        {"limits": {"total_tokens": 700}},
        {"beta": 20},
    ],
    ids=str,
)
def test_with_any_settings_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"t": 0, "c": 1, **settings} if settings.get("method") in ("single", "vote") else settings
    whole = run(tmp_path / "whole", **settings)
    with pytest.raises(EngineClosedError):
        run(tmp_path / "broken", Dying(18), in_flight=2, **settings)
    run(tmp_path / "broken", resume=True, **settings)
    assert written(tmp_path / "broken") == written(tmp_path / "whole")
    assert anyio.run(lambda: rescore(tmp_path / "whole", benchmark=benchmark())) == whole


def test_settings_that_a_problem_contradicts_stop_it_and_name_the_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fit") as caught:
        run(tmp_path / "out", ScriptedEngine(script, context_tokens=1000), strict=True, in_flight=1)
    assert caught.value.__notes__ == ["(at problem 'p/0')"]


# ---- who watches, and what it took


def test_events_tell_the_whole_story(finished: Path, tmp_path: Path) -> None:
    events: list[EvalEvent] = []
    results = run(tmp_path / "out", epochs=2, on_event=events.append)
    assert isinstance(events[0], EvalStarted)
    assert (events[0].runs, events[0].meter.running) == (16, 0)
    spare = 2 * len(records(tmp_path / "out"))  # chunks lack the tags, and those that failed count
    assert abs(events[0].meter.tokens - results.usage.completion_tokens) <= spare
    ended = [event for event in events if isinstance(event, RunEnded)]
    assert sorted((event.scores.problem_id, event.scores.epoch) for event in ended) == sorted(
        (question.id, epoch) for question in questions() for epoch in range(2)
    )
    assert [event for event in events if isinstance(event, EvalFinished)] == [EvalFinished(results)] == events[-1:]
    again: list[EvalEvent] = []
    run(tmp_path / "out", epochs=2, resume=True, on_event=again.append)
    found = [event for event in again if isinstance(event, RunEnded)]
    assert sum(event.found for event in found) == 14, "all but the two runs of the failing problem"


def test_a_program_may_show_how_far_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "QUIET_S", 3600.0)  # a slow machine has nothing to say between the lines
    events: list[EvalEvent] = []
    results = run(tmp_path / "silent")
    assert capfd.readouterr() == ("", "")
    assert run(tmp_path / "shown", progress=True, on_event=events.append) == results
    out, error = capfd.readouterr()
    lines = error.splitlines()
    assert out == ""
    assert lines[0].startswith("thirds: 8 problems, method rsa with scripted: ")
    assert sum(line.startswith("  8 of 8 · ") for line in lines) == 1
    assert lines[-len(result_lines(results)) :] == result_lines(results)
    assert events[-1] == EvalFinished(results), "who watched is told all the same"


def test_seconds_are_kept_apart_and_add_up_over_processes(tmp_path: Path) -> None:
    with pytest.raises(EngineClosedError):
        run(tmp_path / "out", Dying(20), in_flight=1)
    rewrite(tmp_path / "out" / "progress.json", lambda was: {"spent_s": 100.0})
    results = run(tmp_path / "out", resume=True)
    timings = EvalTimings.model_validate_json(content(tmp_path / "out" / "timings.json"))
    assert timings.wall_s > 100.0
    assert timings.tokens_per_s == pytest.approx(results.usage.completion_tokens / timings.wall_s)
    assert [timing.problem_id for timing in timings.problems] == [question.id for question in questions()]
    assert all(timing.wall_s > 0 for timing in timings.problems)


# ---- on both event loops


@pytest.mark.anyio
async def test_inside_a_program(finished: Path, tmp_path: Path) -> None:
    await evaluate(benchmark(), ScriptedEngine(script), **{**SETTINGS, "out": tmp_path / "out", "epochs": 2})
    assert written(tmp_path / "out") == written(finished)


@pytest.mark.anyio
async def test_cancelled_it_frees_the_engine_and_can_go_on(finished: Path, tmp_path: Path) -> None:
    engine = ScriptedEngine(script, hold=lambda request: problem_of(request) == 6)
    settings = {**SETTINGS, "out": tmp_path / "out", "epochs": 2}
    ended: list[EvalEvent] = []
    enough = anyio.Event()

    def watch(event: EvalEvent) -> None:
        ended.append(event)
        if len(ended) == 1 + 14:  # the start, and all but the two runs that are held
            enough.set()

    async with anyio.create_task_group() as group:

        async def evaluating() -> None:
            await evaluate(benchmark(), engine, on_event=watch, **settings)

        group.start_soon(evaluating)
        await enough.wait()
        group.cancel_scope.cancel()
    assert engine.active == 0
    await evaluate(benchmark(), ScriptedEngine(script), **{**settings, "resume": True})
    assert written(tmp_path / "out") == written(finished)


@pytest.mark.anyio
async def test_an_error_of_the_folder_comes_out_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise ResultsError("cannot write the scores: no space left on device")

    monkeypatch.setattr(ResultsFolder, "write_scores", full)
    with pytest.raises(ResultsError, match="no space left"):
        await evaluate(benchmark(), ScriptedEngine(script), **{**SETTINGS, "out": tmp_path / "out"})


def test_out_of_memory_everywhere_is_a_result_without_a_number(tmp_path: Path) -> None:
    results = run(tmp_path / "out", ScriptedEngine(lambda request: Script("x", error=OutOfMemoryError("lower n"))))
    assert (results.mean.value, results.mean.problems, results.statuses) == (None, 0, {"failed": 32})
    assert results.rounds[0].mean.value is None
