"""How often a run's log waits for the disk, what its candidates say of their requests, and prompts read once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest, ImagePart, Message
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RunResult, controller
from rsa.prompts import load_prompts, prompt_sha256
from rsa.runlog import Sync

SETTINGS: dict[str, Any] = {"n": 4, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 32}
SYNCS: tuple[Sync, ...] = ("candidate", "round", "end")


def script(request: GenerationRequest) -> Script:
    return Script(f"in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}")


def solve(folder: Path, sync: Sync, *, resume: bool = False) -> RunResult:
    return MarkovianRSA(ScriptedEngine(script), sync=sync, **SETTINGS).solve_sync("why?", out=folder, resume=resume)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every wait for the disk."""
    waits: list[int] = []
    fsync = os.fsync

    def counting(file: int) -> None:
        waits.append(file)
        fsync(file)

    monkeypatch.setattr(os, "fsync", counting)
    return waits


def test_the_disk_is_waited_for_as_often_as_asked(tmp_path: Path, synced: list[int]) -> None:
    counts = []
    for sync in SYNCS:
        synced.clear()
        solve(tmp_path / sync, sync)
        counts.append(len(synced))
    whole_files = 2 + 2 + 1  # run.json and result.json with their folder, and the log once before the result
    assert counts == [8 + 2 + 2 + whole_files, 2 + whole_files, whole_files]


@pytest.mark.parametrize("sync", SYNCS)
def test_every_event_is_in_the_file_at_once_whatever_is_waited_for(tmp_path: Path, sync: Sync) -> None:
    """A process that is killed loses nothing: what is logged is the system's to keep."""
    folder = tmp_path / "run"
    finished: list[int] = []

    def watching(request: GenerationRequest) -> Script:
        log = folder / "events.jsonl"
        finished.append(log.read_text().count('"type":"candidate_finished"'))
        return script(request)

    engine = ScriptedEngine(watching)
    MarkovianRSA(engine, sync=sync, **SETTINGS).solve_sync("why?", out=folder)
    assert finished == [0, 0, 0, 0, 4, 4, 4, 4]


@pytest.mark.parametrize("sync", SYNCS)
def test_it_is_resumed_to_the_same_result(tmp_path: Path, sync: Sync) -> None:
    whole = solve(tmp_path / "whole", sync)
    data = (tmp_path / "whole" / "events.jsonl").read_bytes()
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (cut / "result.json").unlink()
    (cut / "events.jsonl").write_bytes(data[: len(data) // 2])
    again = solve(cut, sync, resume=True)
    assert (again.answer, again.votes) == (whole.answer, whole.votes)
    assert [c.tail for c in again.rounds[1].candidates] == [c.tail for c in whole.rounds[1].candidates]


def test_candidates_know_their_prompt_and_sampling(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    result = MarkovianRSA(engine, **SETTINGS).solve_sync("why?", out=tmp_path / "run")
    for candidate, request in zip([c for r in result.rounds for c in r.candidates], engine.requests, strict=True):
        assert candidate.sampling == request.sampling
        assert candidate.prompt_sha256 == prompt_sha256(request.messages)
    first, second = ({c.prompt_sha256 for c in played.candidates} for played in result.rounds)
    assert len(first) == 1, "all of round 0 read the same"
    assert first.isdisjoint(second)


def test_the_digest_of_a_prompt_changes_with_all_of_it() -> None:
    picture, other = ImagePart(data=b"\x89PNG1"), ImagePart(data=b"\x89PNG2")

    def digest(
        role: Any = "user",
        text: str = "why?",
        images: tuple[ImagePart, ...] = (picture,),
        before: tuple[Message, ...] = (),
    ) -> str:
        return prompt_sha256((*before, Message(role=role, text=text, images=images)))

    changed = [digest(), digest(role="system"), digest(text="how?"), digest(images=()), digest(images=(picture, other))]
    changed += [digest(images=(other, picture)), digest(before=(Message(role="system", text="Be brief."),))]
    assert len(set(changed)) == len(changed)
    assert digest() == digest()


def test_prompts_are_read_once_for_many_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(task: str) -> Any:
        read.append(task)
        return load_prompts(task)

    monkeypatch.setattr(controller, "load_prompts", counting)
    rsa = MarkovianRSA(ScriptedEngine(script), **SETTINGS)
    assert rsa.solve_sync("why?").problem_id != rsa.solve_sync("how?").problem_id
    assert read == ["math"]
