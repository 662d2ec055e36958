"""Run folders: complete at any moment, resumed to the very same result."""

from __future__ import annotations

import errno
import io
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import started
from sealed import content

from engine.api import GenerationRequest
from engine.errors import EngineClosedError, OutOfMemoryError
from engine.scripted import Script, ScriptedEngine
from rsa import (
    ConfigError,
    MarkovianRSA,
    NoCandidatesError,
    Problem,
    ResumeMismatchError,
    RSAConfig,
    RunFolderError,
    RunLockedError,
    RunResult,
    RunWriteError,
    read_events,
    read_run,
    runlog,
)
from rsa.events import CandidateFinished, LimitHit, RunStarted
from rsa.folders import write_atomically, write_record
from rsa.runlog import RunLog

CHILD = Path(__file__).with_name("run_a_child.py")
_CHILD = runpy.run_path(str(CHILD))
SETTINGS, script = _CHILD["SETTINGS"], _CHILD["script"]
TIMES = {"at_s", "started_s", "finished_s", "wall_s", "started_at", "used"}


def timeless(value: Any) -> Any:
    """A JSON value without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(result: RunResult) -> Any:
    return timeless(result.model_dump(mode="json"))


def mixed(request: GenerationRequest) -> Script:
    """Failures, loops and plain candidates."""
    if request.id == "r0-c01":
        return Script("abc", error=OutOfMemoryError("lower n"), fail_after=2)
    if request.id == "r1-c00":
        return Script("x", never_ends=True)
    return Script(reasoning=f"é in {request.id}", answer=rf"\boxed{{{request.sampling.seed % 3}}}")


def run(folder: Path, engine: ScriptedEngine | None = None, *, resume: bool = False, **settings: Any) -> RunResult:
    rsa = MarkovianRSA(engine or ScriptedEngine(mixed), config=RSAConfig(**{**SETTINGS, **settings}))
    return rsa.solve_sync("why?", out=folder, resume=resume)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run(tmp_path / "run")
    return tmp_path / "run"


def cut(folder: Path, copy: Path, length: int) -> Path:
    """A copy of a finished run folder as it was when its log had this many bytes."""
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    log = copy / "events.jsonl"
    log.write_bytes(log.read_bytes()[:length])
    return copy


class FullDisk(io.FileIO):
    """A file on a disk that has room for so many bytes; what fits of a write is written."""

    room = 0

    def write(self, data: Any, /) -> int:
        fitting = memoryview(data)[: max(FullDisk.room - self.tell(), 0)]
        if not fitting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fitting)


@pytest.mark.thorough
def test_wherever_the_disk_is_full_a_line_says_so_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the log tried to write what was left once more, and its OSError took the place of the error."""
    whole = run(tmp_path / "whole")
    size = (tmp_path / "whole" / "events.jsonl").stat().st_size
    opened = Path.open

    def on_a_full_disk(path: Path, mode: str = "r", *options: Any, **more: Any) -> Any:
        if mode == "ab" and path.name == runlog.EVENTS:
            return FullDisk(path, mode)
        return opened(path, mode, *options, **more)

    for room in range(0, size - size // 25, size // 25):  # clocks take a few digits more or fewer
        folder, FullDisk.room = tmp_path / f"{room}", room
        with monkeypatch.context() as full:
            full.setattr(Path, "open", on_a_full_disk)
            with pytest.raises(RunWriteError, match=f"cannot write the log in {folder}: No space left on device"):
                run(folder)
        assert (folder / "events.jsonl").stat().st_size == room
        assert outcome(run(folder, resume=True)) == outcome(whole)


def test_a_result_that_does_not_fit_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *record: Any, **options: Any) -> str:
        if path.name == runlog.RESULT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_record(path, *record, **options)

    with monkeypatch.context() as patched:
        patched.setattr("rsa.runlog.write_record", full)
        with pytest.raises(RunWriteError, match=r"cannot write the result in .*: No space left on device"):
            run(tmp_path / "run")
    assert outcome(run(tmp_path / "run", resume=True)) == outcome(run(tmp_path / "whole"))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 600},
        {"n": 2, "c": 1, "t": 3},
        {"n": 3, "select": "aggregate", "answers": "every"},
        {"n": 3, "select": "pooled", "parents": "distinct"},
        {"n": 5, "t": 1, "select": "tournament"},
        {"n": 3, "stop": "consensus:.3"},
        {"n": 3, "limits": {"total_tokens": 120}},
    ],
    ids=["degenerate", "markovian", "aggregate", "pooled", "tournament", "consensus", "limit"],
)
def test_resumed_at_any_line_it_ends_as_if_never_broken(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = run(tmp_path / "whole", **settings)
    data = (tmp_path / "whole" / "events.jsonl").read_bytes()
    ends = [0, *(at + 1 for at, byte in enumerate(data) if byte == ord("\n"))]
    for number, end in enumerate(ends):
        # At the end of each line, and inside the next one.
        for length in {end, min(end + 7, len(data))}:
            copy = cut(tmp_path / "whole", tmp_path / f"cut-{number}-{length - end}", length)
            engine = ScriptedEngine(mixed)
            assert outcome(run(copy, engine, resume=True, **settings)) == outcome(whole)
            logged = [event for event in read_events(copy) if isinstance(event, CandidateFinished)]
            keys = [(event.kind, event.candidate.round, event.candidate.index) for event in logged]
            assert len(keys) == len(set(keys)), "each candidate is logged once"
            before = data[:end].count(b'"type":"candidate_finished"')
            assert len(engine.requests) == len(keys) - before, "what was finished is not generated again"


@pytest.mark.thorough
def test_a_log_cut_at_any_byte_is_repaired_to_its_whole_lines(finished: Path) -> None:
    log = finished / "events.jsonl"
    data, events = log.read_bytes(), read_events(finished)
    for length in range(min(len(data), 3000), -1, -1):
        log.write_bytes(data[:length])
        whole = data[: data.rfind(b"\n", 0, length) + 1]
        assert read_events(finished) == events[: whole.count(b"\n")]
        if length % 50 == 0 or whole == data[:length]:  # each repair waits for the disk
            read_events(finished, repair=True)
            assert log.read_bytes() == whole


def test_killed_in_the_middle_of_a_round(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with started([sys.executable, CHILD, tmp_path / "run"], env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match="another process is working in"):
            run(tmp_path / "run", ScriptedEngine(script), resume=True)
        child.kill()
        child.wait()
    done = [event.candidate for event in read_events(tmp_path / "run") if isinstance(event, CandidateFinished)]
    assert {(c.round, c.index) for c in done} == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 3)}
    engine = ScriptedEngine(script)
    resumed = run(tmp_path / "run", engine, resume=True)
    assert [request.id for request in engine.requests] == ["r1-c02", *(f"r2-c0{index}" for index in range(4))]
    assert outcome(resumed) == outcome(run(tmp_path / "other", ScriptedEngine(script)))


def test_a_finished_run_returns_its_result_at_once(finished: Path) -> None:
    engine = ScriptedEngine(mixed)
    again = run(finished, engine, resume=True)
    assert engine.requests == []
    assert again.model_dump_json().encode() == content(finished / "result.json")


def test_what_a_run_folder_holds(finished: Path) -> None:
    record, problem = read_run(finished)
    assert (record.problem, problem.text, record.problem_id) == ("why?", "why?", problem.id)
    assert record.config.n == SETTINGS["n"]
    assert record.model.fingerprint == "scripted-1"
    assert len(record.prompt_sha256) == 64
    assert {"python", "anyio", "markovian-rsa"} <= set(record.versions)
    assert isinstance(read_events(finished)[0], RunStarted)
    assert not [event for event in read_events(finished) if event.type == "candidate_progress"]
    assert {path.name for path in finished.iterdir()} == {"run.json", "events.jsonl", "result.json", "lock"}


def test_images_are_kept_beside_it(tmp_path: Path) -> None:
    picture = b"\x89PNG and so on"
    rsa = MarkovianRSA(ScriptedEngine(script), **SETTINGS, task="vision")
    whole = rsa.solve_sync(Problem("what?", images=[picture]), out=tmp_path / "run")
    _, problem = read_run(tmp_path / "run")
    assert [image.data for image in problem.images] == [picture]
    (tmp_path / "run" / "result.json").unlink()
    again = rsa.solve_sync(problem, out=tmp_path / "run", resume=True)
    assert outcome(again) == outcome(whole)


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"settings": {"n": 5, "seed": 3}}, ("config.n", "config.seed")),
        ({"settings": {"limits": {"total_tokens": 5}}}, ("config.limits",)),
        ({"problem": "why not?"}, ("problem", "problem_id")),
        ({"fingerprint": "other"}, ("model fingerprint",)),
        ({"settings": {"task": "choice"}}, ("prompts", "config.task")),
    ],
)
def test_another_run_is_not_resumed(finished: Path, change: dict[str, Any], keys: tuple[str, ...]) -> None:
    engine = ScriptedEngine(mixed, fingerprint=change.get("fingerprint", "scripted-1"))
    rsa = MarkovianRSA(engine, config=RSAConfig(**{**SETTINGS, **change.get("settings", {})}))
    with pytest.raises(ResumeMismatchError) as caught:
        rsa.solve_sync(change.get("problem", "why?"), out=finished, resume=True)
    assert caught.value.keys == keys
    assert all(key in str(caught.value) for key in keys)


def test_folders_that_cannot_be_used(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="already holds a run: resume it"):
        run(finished)
    with pytest.raises(RunFolderError, match="is no run folder"):
        read_run(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot use run folder"):
        run(tmp_path / "file")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "events.jsonl").touch()
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        run(tmp_path / "half", resume=True)
    with pytest.raises(ConfigError, match="resume needs"):
        MarkovianRSA(ScriptedEngine(mixed)).solve_sync("why?", resume=True)
    (finished / "run.json").write_text("{}")
    with pytest.raises(RunFolderError, match="cannot be understood"):
        run(finished, resume=True)


def test_resume_starts_a_run_where_there_is_none(tmp_path: Path) -> None:
    assert run(tmp_path / "new", resume=True).answer is not None


def test_damage_before_the_last_line_is_named(finished: Path) -> None:
    log = finished / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    with pytest.raises(RunFolderError, match=r"events\.jsonl, line 2, is no event"):
        run(finished, resume=True)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    record, problem = read_run(tmp_path / "run")
    with (
        RunLog.open(tmp_path / "run", record, problem, resume=True),
        pytest.raises(RunLockedError, match="another process"),
    ):
        run(tmp_path / "run", resume=True)


def test_a_round_that_failed_as_a_whole_gets_another_try(tmp_path: Path) -> None:
    def failing(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("lower n") if request.id.startswith("r1") else None
        return Script(f"in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}", error=error)

    with pytest.raises(NoCandidatesError):
        run(tmp_path / "run", ScriptedEngine(failing))
    assert not (tmp_path / "run" / "result.json").exists()
    engine = ScriptedEngine(script)
    resumed = run(tmp_path / "run", engine, resume=True)
    assert len(engine.requests) == 8
    assert outcome(resumed) == outcome(run(tmp_path / "other", ScriptedEngine(script)))


@pytest.mark.anyio
async def test_what_an_engine_left_undone_that_was_closed_is_generated_by_the_next(tmp_path: Path) -> None:
    """Its candidates were recorded as failed, and a resumed run had fewer parents than an unbroken one."""
    unbroken = await MarkovianRSA(ScriptedEngine(script), **SETTINGS).solve("why?", out=tmp_path / "unbroken")
    engine = ScriptedEngine(script, hold=lambda request: request.id.endswith("2"))

    async def run_and_close() -> None:
        async with MarkovianRSA(engine, **SETTINGS).stream("why?", out=tmp_path / "broken") as stream:
            async for event in stream:
                if isinstance(event, CandidateFinished):
                    await engine.aclose()

    with pytest.raises(EngineClosedError):
        await run_and_close()
    resumed = await MarkovianRSA(ScriptedEngine(script), **SETTINGS).solve("why?", out=tmp_path / "broken", resume=True)
    assert outcome(resumed) == outcome(unbroken)


def test_time_before_a_resume_counts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    never = Script(" ".join(map(str, range(2000))), r"\boxed{1}", never_ends=True)
    run(folder, ScriptedEngine(never), beta=10**9, limits={"deadline_s": 0.3})
    hits = [event for event in read_events(folder) if isinstance(event, LimitHit)]
    assert hits[0].at_s >= 0.25
    (folder / "result.json").unlink()
    again = run(folder, ScriptedEngine(never), resume=True, beta=10**9, limits={"deadline_s": 0.3})
    assert (again.answer, again.stopped_because) == ("1", "deadline_s")
    assert again.timings.wall_s >= hits[0].at_s


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, b"1")
    write_atomically(path, b"22")
    assert path.read_bytes() == b"22"
    assert list(tmp_path.iterdir()) == [path]
