"""A run's story is its log, wherever the run was broken off: each event once, in the log's order and numbers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from engine.api import GenerationRequest
from engine.errors import EngineError
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, NoCandidatesError, read_events
from rsa.events import CandidateProgress, Event, RunFinished
from rsa.runlog import EVENTS, RESULT
from rsa.serve.following import Numbered, Story

pytestmark = pytest.mark.anyio
PROBLEM = "What is 2 + 2?"


def well(request: GenerationRequest) -> Script:
    return Script(reasoning=f"{request.id} thinks of it", answer=r"\boxed{4}")


def ill(request: GenerationRequest) -> Script:
    """The second round fails as a whole."""
    return Script(error=EngineError("it broke")) if request.id.startswith("r1") else well(request)


async def told(story: Story, folder: Path, script: object, sent: list[Event] | None = None) -> None:
    """Run it, or go on with it, and tell its story; a run that fails has one, too."""
    rsa = MarkovianRSA(ScriptedEngine(script), n=2, c=2, t=1, progress_every_s=0)  # type: ignore[arg-type]
    try:
        async with rsa.stream(PROBLEM, out=folder, resume=True, seed=3) as events:
            async for event in events:
                story.tell(event)
                if sent is not None:
                    sent.append(event)
    except NoCandidatesError:
        pass
    finally:
        story.end(folder)


async def numbered(story: Story, after: int = 0) -> list[Numbered]:
    return [each async for each in story.follow(after) if each.number is not None]


def in_log(folder: Path, finished: Sequence[Event] = ()) -> list[Numbered]:
    events = [*read_events(folder), *finished]
    return [Numbered(event, number) for number, event in enumerate(events, 1)]


@pytest.mark.parametrize("first", [well, ill], ids=["well", "a round failed"])
async def test_broken_off_at_any_line_it_goes_on_as_its_log_does(tmp_path: Path, first: object) -> None:
    whole = tmp_path / "whole"
    await told(Story(), whole, first)
    lines = (whole / EVENTS).read_bytes().splitlines(keepends=True)
    assert len(lines) > 10
    for kept in range(len(lines) + 1):
        for again in (well, ill):
            folder = tmp_path / f"{kept}-{again.__name__}"
            shutil.copytree(whole, folder, ignore=shutil.ignore_patterns(RESULT, "lock"))
            (folder / EVENTS).write_bytes(b"".join(lines[:kept]))
            story = Story(read_events(folder))
            sent: list[Event] = []
            await told(story, folder, again, sent)
            finished = [event for event in sent if isinstance(event, RunFinished)]
            assert await numbered(story) == in_log(folder, finished), (kept, again.__name__)
            assert await numbered(Story.told(folder)) == in_log(folder, finished), (kept, again.__name__)


async def test_a_slow_follower_misses_nothing_but_old_progress(tmp_path: Path) -> None:
    """A follower that reads while the run goes gets every event that is logged, in order, and the newest progress."""
    story = Story()
    eager: list[Numbered] = []
    slow: list[Numbered] = []

    async def follow(found: list[Numbered], pauses: int) -> None:
        async for each in story.follow(0):
            found.append(each)
            for _ in range(pauses):
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(follow, eager, 0)
        group.start_soon(follow, slow, 200)
        group.start_soon(told, story, tmp_path, well)
    whole = await numbered(story)
    assert whole[-1].event.type == "run_finished"
    for found in (eager, slow):
        assert [each for each in found if each.number is not None] == whole
    progress = [[each.event for each in found if each.number is None] for found in (eager, slow)]
    assert all(isinstance(event, CandidateProgress) for events in progress for event in events)
    assert len(progress[0]) > 0
    assert len(progress[1]) <= len(progress[0])
