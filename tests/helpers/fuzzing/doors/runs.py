"""Run folders, harmed, then gone on with, read and reported: the result is that of the unharmed one, or an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import Case, DifferentError, Door
from fuzzing.edits import apply, edits
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rsa import MarkovianRSA, NoCandidatesError, Problem, Tool, ToolCall, Turn, read_events, read_run
from rsa.command.job import SolveJob
from rsa.settings.config import RSAConfig

PLAY = '''
from hashlib import sha256
from engine.errors import OutOfMemoryError
from engine.script import Script

def script(request):
    """Answers that depend on all that was asked, and a candidate that fails."""
    if request.id == "r0-c02":
        return Script("abc", error=OutOfMemoryError("no room: lower n"), fail_after=2)
    asked = repr([(turn.role, turn.text) for turn in request.messages]) + str(request.sampling.seed)
    digit = int(sha256(asked.encode()).hexdigest(), 16) % 3
    return Script(f"in {request.id} it is {digit}, \u00e9", f"so \\\\boxed{{{digit}}}")
'''
SIZES = {"n": 4, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}
TIMES = {"at_s", "started_s", "finished_s", "wall_s", "started_at", "used"}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cff00c0003060180"
    "1a2bb8080000000049454e44ae426082"
)
Read = Callable[[Path, bool], Any]
"""What a reader makes of a folder, whose changes it may be told to trust."""


def timeless(value: Any) -> Any:
    """A JSON value without what clocks say."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def _gone_on_with(folder: Path, trust: bool) -> Any:
    """As `rsa solve --resume` goes on."""
    job = SolveJob.resumed(folder, None, None, None, {}, None, None, {}, None, trust=trust)
    try:
        return timeless(job.run(lambda event: None).model_dump(mode="json"))
    except NoCandidatesError as error:
        return str(error)


def _reported(folder: Path, trust: bool) -> bytes:
    from evals.report import write_report

    return write_report(folder, trust=trust).read_bytes()


def _read(folder: Path, trust: bool) -> Any:
    record, problem = read_run(folder, trust=trust)
    events = read_events(folder, trust=trust)
    return record.identity(), problem, [event.model_dump(mode="json") for event in events]


READERS: dict[str, Read] = {"resume": _gone_on_with, "report": _reported, "read": _read}


def problems() -> dict[str, tuple[Problem, dict[str, Any]]]:
    """What the runs are of, by name, and their settings."""
    tool = Tool(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
    called = [
        Turn("assistant", "", calls=[ToolCall(id="1", name="add", arguments='{"a": 1}')]),
        Turn("tool", "2", answers="1"),
    ]
    talk = Problem("why?", images=[PIXEL], system="Be short.", earlier=[Turn("user", "so"), Turn("assistant", "no")])
    return {
        "plain": (Problem("why?"), {}),
        "aggregate": (Problem("why?"), {"select": "aggregate", "answers": "every", "carry": "answer_or_reasoning"}),
        "limited": (Problem("why?"), {"limits": {"total_tokens": 150}}),
        "talk": (talk, {"task": "general"}),
        "tools": (Problem("why?", tools=[tool], later=called), {"t": 1}),
    }


class Runs(Door):
    name = "runs"
    share = 12

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        (scratch / "play.py").write_text(PLAY)
        self._folders: dict[str, Path] = {}
        self._right: dict[tuple[str, str], Any] = {}
        for name, (problem, settings) in problems().items():
            whole = scratch / "whole" / name
            self._solve(problem, RSAConfig(**{**SIZES, **settings}), whole)
            self._folders[name] = whole
            self._folders[f"{name}, broken off"] = broken = scratch / "whole" / f"{name}-broken"
            shutil.copytree(whole, broken)
            (broken / "result.json").unlink()
            log = (broken / "events.jsonl").read_bytes()
            (broken / "events.jsonl").write_bytes(log[: len(log) * 2 // 3])
        self.files = sorted({path.name for folder in self._folders.values() for path in folder.iterdir()} - {"images"})
        for name in self._folders:
            for reader, read in READERS.items():
                self._right[name, reader] = read(self._copy(name), False)

    def _solve(self, problem: Problem, config: RSAConfig, folder: Path) -> None:
        async def main() -> None:
            async with MarkovianRSA(f"scripted:{self.scratch / 'play.py'}", config=config) as rsa:
                await rsa.solve(problem, out=folder)

        anyio.run(main)

    def _copy(self, name: str) -> Path:
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self._folders[name], here)
        return here

    @property
    def cases(self) -> SearchStrategy[Case]:
        files = [*2 * ["run.json", "events.jsonl", "result.json"], *self.files]
        return st.fixed_dictionaries(
            {
                "run": st.sampled_from(list(self._folders)),
                "then": st.sampled_from(list(READERS)),
                "trust": st.sampled_from((False, False, False, True)),
                "edits": edits(files),
            }
        )

    def enter(self, case: Case) -> str:
        folder = self._copy(case["run"])
        apply(folder, case["edits"])
        found = READERS[case["then"]](folder, case["trust"])
        if found == self._right[case["run"], case["then"]]:
            return "right"
        if case["trust"]:
            return "taken on trust"
        if case["then"] != "resume" and self._as_if_killed(folder, self._folders[case["run"]], case["then"]):
            return "as if killed"
        raise DifferentError(f"{case['then']} of a harmed run folder")

    @staticmethod
    def _as_if_killed(folder: Path, whole: Path, then: str) -> bool:
        """Whether the run might have been broken off so, at an earlier moment: nothing can tell this from harm.
        Who reads the events alone does not look whether there is a result."""
        ended = then != "read" and (folder / "result.json").exists()
        if ended or (folder / "run.json").read_bytes() != (whole / "run.json").read_bytes():
            return False
        log = (folder / "events.jsonl").read_bytes() if (folder / "events.jsonl").exists() else b""
        return (whole / "events.jsonl").read_bytes().startswith(log[: log.rfind(b"\n") + 1])
