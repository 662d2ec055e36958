"""Workers: whatever becomes of them, an evaluation ends in the bytes that one process writes."""

from __future__ import annotations

import runpy
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_requests import png

from engine.api import GenerationRequest, ImagePart
from engine.errors import EngineClosedError, EngineError, ModelError, RequestError
from engine.scripted import Script, ScriptedEngine
from evals.events import EvalStarted, PlaceLost, RunEnded
from evals.workers import serving
from evals.workers.messages import Happened, Job, Load, Message, Task, portable
from evals.workers.outbox import Outbox
from rsa import ConfigError
from rsa.errors import NoCandidatesError, ResumeMismatchError, RunFolderError
from rsa.events import CandidateFinished

CHILD = Path(__file__).with_name("eval_child.py")
_CHILD = runpy.run_path(str(CHILD))
SETTINGS, script, benchmark, questions = (_CHILD[name] for name in ("SETTINGS", "script", "benchmark", "questions"))
run, written, Dying = (_CHILD[name] for name in ("run", "written", "Dying"))


@dataclass
class Team:
    """An executor whose workers share the process of the test. `lost_after[i]`: worker i is lost after so many of its
    messages; None: never.

    delivered  seeds of the candidates that the driver has been told of.
    """

    lost_after: Sequence[int | None]
    delivered: set[int] = field(default_factory=set)
    elsewhere = False

    @asynccontextmanager
    async def channels(self, model: str) -> AsyncIterator[Sequence[TeamChannel]]:
        group = anyio.create_task_group()
        await group.__aenter__()
        try:
            yield [TeamChannel(f"worker {i}", self, most, group) for i, most in enumerate(self.lost_after)]
        finally:  # what is raised must not come out of the group wrapped
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)


class TeamChannel:
    """The way to a worker of a `Team`: lists instead of pipes."""

    def __init__(self, name: str, team: Team, most: int | None, group: anyio.abc.TaskGroup) -> None:
        self.name = name
        self._team, self._left, self._group = team, most, group
        self._scope = anyio.CancelScope()
        self._tasks, self._next_task = anyio.create_memory_object_stream[Task](100)
        self._messages: list[Message] = []
        self._news = anyio.Event()

    async def open(self, job: Job) -> None:
        async def work() -> None:
            with self._scope:
                await serving.serve(job, self._next_task.receive, self._put)

        self._group.start_soon(work)

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._news.set()

    async def send(self, task: Task) -> None:
        if self._left is not None and self._left <= 0:
            raise EngineClosedError("the pipe is closed")
        await self._tasks.send(task)

    async def receive(self) -> Sequence[Message]:
        await self._news.wait()
        self._news = anyio.Event()
        messages, self._messages = self._messages, []
        if self._left is not None:
            messages = messages[: self._left]
            self._left -= len(messages)
            if not messages:
                self._scope.cancel()
                raise EngineClosedError("it was killed")
            if self._left == 0:  # and the next call says that it is gone
                self._news.set()
        for message in messages:
            event = message.event if isinstance(message, Happened) else None
            if isinstance(event, CandidateFinished) and event.candidate.status != "failed":
                self._team.delivered.add(event.candidate.seed)
        return messages

    async def aclose(self) -> None:
        self._scope.cancel()
        self._tasks.close()
        self._next_task.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation in one process; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("evals") / "whole"
    run(folder, epochs=2)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first epoch of it alone."""
    folder = tmp_path_factory.mktemp("evals") / "once"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def patched() -> Iterator[Callable[[Callable[[GenerationRequest], Script]], None]]:
    """`patched(script)`: from now on workers open engines that play it."""
    patch = pytest.MonkeyPatch()
    yield lambda script: patch.setattr(serving, "open_engine", lambda model, **options: ScriptedEngine(script))
    patch.undo()


def run_by(team: Any, folder: Path, **more: Any) -> Any:
    """The evaluation of `whole`, by workers."""
    return run(folder, "scripted:any", executor=team, **{"epochs": 2, **more})


# ---- whatever happens to them


@pytest.mark.thorough
@settings(max_examples=12)
@given(
    lost=st.lists(st.integers(0, 60), max_size=3),
    survivors=st.integers(1, 2),
    in_flight=st.integers(1, 5),
    turn=st.randoms(use_true_random=False),
)
def test_workers_that_are_lost_change_nothing(
    once: Path, patched: Any, lost: list[int], survivors: int, in_flight: int, turn: Any
) -> None:
    """And no candidate that the driver knows of is generated again."""
    team = Team(turn.sample([*lost, *[None] * survivors], len(lost) + survivors))
    again: list[int] = []

    def watched(request: GenerationRequest) -> Script:
        again.extend({request.sampling.seed} & team.delivered)
        played: Script = script(request)
        return played

    patched(watched)
    events: list[Any] = []
    with TemporaryDirectory() as folder:
        run_by(team, Path(folder), in_flight=in_flight, on_event=events.append, epochs=1)
        assert written(Path(folder)) == written(once)
    assert again == []
    ended = [event.scores.problem_id for event in events if isinstance(event, RunEnded)]
    assert sorted(ended) == [f"p/{number}" for number in range(8)]
    told = [event for event in events if isinstance(event, PlaceLost)]
    assert len(told) <= len(lost)
    assert [event.left for event in told] == [len(team.lost_after) - 1 - i for i in range(len(told))]
    meter = next(event.meter for event in events if isinstance(event, EvalStarted))
    assert meter.running == 0


@pytest.mark.parametrize("lost_after", [[None], [None, None], [30, None, 60]])
def test_a_budget_of_all_problems_is_shared_out_alike(
    patched: Any, tmp_path: Path, lost_after: list[int | None]
) -> None:
    patched(script)
    shared = {"total_tokens": 4000, "t": 3, "beta": 128, "epochs": 1}
    run(tmp_path / "whole", **shared)
    results = run_by(Team(lost_after), tmp_path / "out", in_flight=2, **shared)
    assert written(tmp_path / "out") == written(tmp_path / "whole")
    assert results.budget.ended["set_tokens"] > 0


def test_the_deadline_of_all_problems_is_the_workers_as_well(patched: Any, tmp_path: Path) -> None:
    patched(lambda request: Script("x", r"\boxed{1}", held=True))
    results = run_by(Team([None, None]), tmp_path, deadline_s=0.5, in_flight=2, epochs=1)
    assert results.budget.ended == {"set_deadline_s": 4, "unbegun": 4}
    assert results.statuses == {"scored": 4 * SETTINGS["n"]}


def test_when_the_last_worker_is_lost_what_was_done_is_kept(whole: Path, patched: Any, tmp_path: Path) -> None:
    patched(script)
    with pytest.raises(EngineClosedError, match="it was killed"):
        run_by(Team([40, 60]), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()
    team = Team([None])
    run_by(team, tmp_path / "out", resume=True)
    assert written(tmp_path / "out") == written(whole)


@pytest.mark.parametrize("first", ["here", "workers"])
def test_what_one_process_began_workers_finish_and_the_other_way_round(
    whole: Path, patched: Any, tmp_path: Path, first: str
) -> None:
    patched(script)
    begin = partial(run, tmp_path, Dying(20)) if first == "here" else partial(run_by, Team([50]), tmp_path)
    go_on = partial(run_by, Team([None, None]), tmp_path) if first == "here" else partial(run, tmp_path)
    with pytest.raises(EngineClosedError):
        begin(epochs=2, in_flight=3)
    go_on(epochs=2, resume=True)
    assert written(tmp_path) == written(whole)


def test_images_go_with_a_problem_wherever_it_is_taken_up(patched: Any, tmp_path: Path) -> None:
    patched(script)
    part = ImagePart(data=png(1))
    asked = [question.model_copy(update={"images": (part,)}) for question in questions(3)]
    seeing = benchmark().model_copy(update={"questions": asked})
    run(tmp_path / "whole", of=seeing)
    for lost_after in (15, 25, 35):
        out = tmp_path / str(lost_after)
        run_by(Team([lost_after, None]), out, of=seeing, epochs=1)
        assert written(out) == written(tmp_path / "whole")
        assert {path.read_bytes() for path in out.glob("runs/*/images/*")} == {part.data}


# ---- workers that are no good


def opening(patch: pytest.MonkeyPatch, *results: ScriptedEngine | Exception) -> None:
    """What workers get that open an engine, so many of them; none before all have asked."""
    left, together = iter(results), threading.Barrier(len(results), timeout=30)

    def open_engine(model: str) -> ScriptedEngine:
        together.wait()
        result = next(left)
        if isinstance(result, Exception):
            raise result
        return result

    patch.setattr(serving, "open_engine", open_engine)


def test_a_worker_whose_engine_does_not_open_is_named_and_the_others_go_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(monkeypatch, ModelError("there is no model folder x"), ScriptedEngine(script))
    events: list[Any] = []
    run_by(Team([None, None]), tmp_path, on_event=events.append)
    (lost,) = [event for event in events if isinstance(event, PlaceLost)]
    assert (lost.why, lost.left) == ("there is no model folder x", 1)
    assert lost.name in {"worker 0", "worker 1"}
    assert written(tmp_path) == written(whole)


@pytest.mark.parametrize("error", [ModelError("no such folder"), RequestError("no such kind"), ConfigError("no name")])
def test_what_no_worker_can_open_is_said_as_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    opening(monkeypatch, error, error)
    with pytest.raises(type(error), match=str(error)):
        run_by(Team([None, None]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_workers_of_another_model_or_other_versions_are_not_used(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(monkeypatch, ScriptedEngine(script), ScriptedEngine(script, fingerprint="other"))
    events: list[Any] = []
    results = run_by(Team([None, None]), tmp_path / "model", on_event=events.append)
    (lost,) = [event for event in events if isinstance(event, PlaceLost)]
    first = results.model.fingerprint
    other = "other" if first == "scripted-1" else "scripted-1"
    assert lost.why == f"it is not like the first worker. Different: model: {first!r}, now {other!r}"
    versions = iter([{"mlx": "1"}, {"mlx": "2"}])
    monkeypatch.setattr(serving, "versions_of", lambda *packages: next(versions))
    opening(monkeypatch, ScriptedEngine(script), ScriptedEngine(script))
    events.clear()
    results = run_by(Team([None, None]), tmp_path / "versions", on_event=events.append)
    (lost,) = [event for event in events if isinstance(event, PlaceLost)]
    assert "Different: mlx: " in lost.why
    assert results.versions in ({"mlx": "1"}, {"mlx": "2"})


def test_an_error_that_no_other_worker_can_mend_ends_the_evaluation(tmp_path: Path, patched: Any) -> None:
    patched(script)
    (tmp_path / "out").mkdir()
    run(tmp_path / "out", epochs=2, limit=2)
    (broken,) = list((tmp_path / "out" / "runs").glob("p-0-*-e0"))
    (broken / "scores.json").unlink()
    (broken / "result.json").unlink()
    log = broken / "events.jsonl"
    whole = log.read_text().splitlines(keepends=True)
    log.write_text("".join(["{}\n", *whole[1:]]))
    with pytest.raises(RunFolderError, match=rf"{log}, line 1, is no event: the log is damaged"):
        run_by(Team([None, None]), tmp_path / "out", epochs=2, limit=2, resume=True)
    log.write_text("".join([whole[0].replace('"at_s":', '"at_s":1'), *whole[1:]]))
    with pytest.raises(RunFolderError, match=rf"{log}, line 1, is not what was written there"):
        run_by(Team([None, None]), tmp_path / "out", epochs=2, limit=2, resume=True)
    results = run_by(Team([None, None]), tmp_path / "out", epochs=2, limit=2, resume=True, trust=True)
    note = f"taken on trust: events.jsonl, line 1, is not what was written there, in runs/{broken.name} (1 of 4 runs)"
    assert note in results.warnings, "workers are told to trust, too"


def test_a_bug_in_a_worker_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(RuntimeError, match=r"(?s)a worker broke down:.*in open_engine.*ZeroDivisionError: a bug"):
        run_by(Team([None]), tmp_path)


def test_workers_need_the_name_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers open engines of their own: give the name of a model"):
        run(tmp_path, ScriptedEngine(script), executor=Team([None]))


# ---- what passes between them


class _OddError(ModelError):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("wrong"), ConfigError),
        (EngineClosedError("gone"), EngineClosedError),
        (ResumeMismatchError("another run", ("seed",)), RunFolderError),
        (_OddError(1, 2), ModelError),
        (NoCandidatesError("none", None), Exception),  # type: ignore[arg-type]
    ],
)
def test_errors_can_be_sent(error: Exception, kind: type[Exception]) -> None:
    error.add_note("(at problem 'p/0')")
    copy = portable(error)
    assert isinstance(copy, kind)
    assert isinstance(copy, EngineError) == isinstance(error, EngineError)
    assert (str(copy), copy.__notes__) == (str(error), ["(at problem 'p/0')"])


def test_an_outbox_keeps_the_order_and_sends_everything(anyio_backend: str) -> None:
    posted: list[list[Message]] = []

    async def main() -> None:
        async with Outbox(posted.append) as outbox:
            for tokens in range(50):
                outbox.put(Load(tokens, 0))
                if tokens % 7 == 0:
                    await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=anyio_backend)
    sent = [message for messages in posted for message in messages]
    assert sent == [Load(tokens, 0) for tokens in range(50)]
    assert all(posted)


def test_an_outbox_that_nobody_empties_raises_at_its_end(anyio_backend: str) -> None:
    def post(messages: list[Message]) -> None:
        raise BrokenPipeError

    async def main() -> None:
        async with Outbox(post) as outbox:
            outbox.put(Load(0, 0))

    with pytest.raises(BrokenPipeError):
        anyio.run(main, backend=anyio_backend)
