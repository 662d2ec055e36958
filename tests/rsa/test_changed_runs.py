"""Run folders that were changed: refused in a line that names file and line, or taken on trust, and said so."""

from __future__ import annotations

import json
import runpy
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed import content, contents, copy_of, leaves, replaced, reseal

from engine.scripted import ScriptedEngine
from evals.report import write_report
from rsa import MarkovianRSA, RSAError, RunFolderError, RunResult, read_events, read_result, read_run
from rsa.digests import seal
from rsa.events import Warned

_CHILD = runpy.run_path(str(Path(__file__).with_name("run_a_child.py")))
SETTINGS, script = _CHILD["SETTINGS"], _CHILD["script"]
CASES = json.loads((Path(__file__).parents[1] / "data" / "tampered_runs.json").read_text())
FILES = ("run.json", "events.jsonl", "result.json")


def go_on(folder: Path, *, trust: bool = False, engine: ScriptedEngine | None = None) -> RunResult:
    rsa = MarkovianRSA(engine or ScriptedEngine(script), **SETTINGS)
    return rsa.solve_sync("why?", out=folder, resume=True, trust=trust)


def told(result: RunResult) -> dict[str, Any]:
    """What a result says, but for how long it took."""
    return json.loads(result.model_dump_json(include={"answer", "votes", "text", "usage", "stopped_because"}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended; tests work on copies."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    go_on(folder)
    return folder


@pytest.fixture(scope="module")
def half(whole: Path) -> Path:
    """The same run, killed in the middle."""
    folder = whole.with_name("half")
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(lines[: 2 * len(lines) // 3]))
    return folder


def line_of(folder: Path, event: str) -> int:
    """The number of the line with an event: its type, its round, its candidate."""
    kind, number, *index = event.split()
    for line, said in enumerate(map(json.loads, contents(folder / "events.jsonl")), 1):
        place = said.get("candidate", said)
        if (said["type"], f"r{place.get('round')}") == (kind, number) and all(int(i) == place["index"] for i in index):
            return line
    raise AssertionError(event)


def tamper(folder: Path, case: dict[str, Any]) -> int | None:
    """Change what a case says, and leave the digest as it was; the line where that is."""
    path, line = folder / case["file"], None
    data = [path.read_bytes()]
    if "event" in case:
        line = line_of(folder, case["event"])
        data = path.read_bytes().splitlines()
    at = (line or 1) - 1
    was = json.loads(data[at])
    data[at] = json.dumps(replaced(was, tuple(case["place"]), case["new"]), separators=(",", ":")).encode()
    path.write_bytes(b"".join(each + b"\n" for each in data) if line else data[0])
    return line


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
@pytest.mark.parametrize("forged", [False, True], ids=["plain", "forged"])
def test_what_was_changed_is_refused_by_its_name(whole: Path, case: dict[str, Any], forged: bool) -> None:
    folder = copy_of(whole)
    line = tamper(folder, case)
    if forged:
        reseal(folder)
        if case["file"] != "result.json":
            (folder / "result.json").unlink()
    before = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
    says = case["forged"] if forged else case["says"]
    if says is None:
        go_on(folder)
        return
    with pytest.raises(RunFolderError) as caught:
        go_on(folder)
    assert says.replace("LINE", str(line)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name: (folder / name).read_bytes() for name in before} == before, "nothing is touched"


def refused_or_the_same(folder: Path, whole: Path) -> None:
    """Going on is refused in one line that names the folder, or ends as the unchanged run did."""
    try:
        result = go_on(folder)
    except RunFolderError as error:
        said = str(error)
    else:
        assert told(result) == told(read_result(whole))
        return
    assert str(folder) in said
    assert "\n" not in said


@settings(max_examples=30)
@given(data=st.data())
def test_any_changed_byte_is_refused_or_changes_nothing(whole: Path, half: Path, data: st.DataObject) -> None:
    folder = copy_of(data.draw(st.sampled_from([whole, half]), label="folder"))
    path = folder / data.draw(st.sampled_from([name for name in FILES if (folder / name).exists()]), label="file")
    was = path.read_bytes()
    at = data.draw(st.integers(0, len(was) - 1), label="at")
    new = data.draw(st.binary(max_size=2), label="new")
    path.write_bytes(was[:at] + new + was[at + 1 :])
    refused_or_the_same(folder, whole)


@settings(max_examples=20)
@given(data=st.data())
def test_lines_that_are_moved_or_taken_out_are_refused_or_change_nothing(
    whole: Path, half: Path, data: st.DataObject
) -> None:
    folder = copy_of(data.draw(st.sampled_from([whole, half]), label="folder"))
    log = folder / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lines))), max_size=len(lines)), label="lines")
    kept = data.draw(st.integers(0, len(lines)), label="kept")
    log.write_bytes(b"".join([*lines[:kept], *(lines[at] for at in chosen)]))
    refused_or_the_same(folder, whole)


@settings(max_examples=12)
@given(data=st.data())
def test_on_trust_a_changed_value_is_taken_or_refused_and_the_result_says_so(
    whole: Path, half: Path, data: st.DataObject
) -> None:
    folder = copy_of(data.draw(st.sampled_from([whole, half]), label="folder"))
    name = data.draw(st.sampled_from([name for name in FILES if (folder / name).exists()]), label="file")
    said = contents(folder / name) if name == "events.jsonl" else [content(folder / name)]
    line = data.draw(st.integers(0, len(said) - 1), label="line")
    value = json.loads(said[line])
    place = data.draw(st.sampled_from(leaves(value)), label="place")
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, -1, 0, 1, 7, 10**30, 0.5, "", "8", True, [], {}, [0, 0], float("inf"), float("nan")]
    )
    said[line] = json.dumps(replaced(value, place, data.draw(odd, label="new")), separators=(",", ":")).encode()
    write = data.draw(st.sampled_from(["as it was", "none", "forged"]), label="digest")
    sealed = [seal(each, "0").data if write == "as it was" else each for each in said]
    end = b"\n" if name == "events.jsonl" else b""
    (folder / name).write_bytes(b"".join(each + end for each in sealed))
    if write == "forged":
        reseal(folder)
    for read in (go_on, read_result, read_run, read_events):
        with suppress(RSAError):
            read(folder, trust=True)


def test_what_was_taken_on_trust_is_recorded_and_shown(whole: Path, half: Path) -> None:
    case = {
        "file": "events.jsonl",
        "event": "candidate_finished r0 1",
        "place": ["candidate", "finished_s"],
        "new": 7.0,
    }
    for folder in (copy_of(half), copy_of(whole)):
        line = tamper(folder, case)
        note = f"taken on trust: events.jsonl, line {line}, is not what was written there"
        result = go_on(folder, trust=True)
        assert note in result.warnings
        assert note in read_result(folder, trust=True).warnings
        assert note in write_report(folder, trust=True).read_text()
        for read in (go_on, read_result, read_events, write_report):
            with pytest.raises(RunFolderError, match=f"line {line}, is not what was written there: put it back"):
                read(folder)
        assert go_on(folder, trust=True).warnings == result.warnings, "said once"
        if folder == half:
            assert note in [event.message for event in read_events(folder, trust=True) if isinstance(event, Warned)]


def test_a_folder_without_digests_is_refused_and_taken_on_trust(half: Path, whole: Path) -> None:
    folder = copy_of(half)
    for name in ("run.json", "events.jsonl"):
        lines = contents(folder / name) if name == "events.jsonl" else [content(folder / name)]
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(RunFolderError, match=r"run\.json has no digest: put it back as it was, or .* `trust`$"):
        go_on(folder)
    result = go_on(folder, trust=True)
    assert told(result) == told(read_result(whole))
    assert list(result.warnings) == [
        "taken on trust: run.json has no digest",
        "taken on trust: events.jsonl, line 1, has no digest",
    ]
    assert go_on(folder, trust=True).answer == result.answer


def test_trust_is_for_folders_that_go_on(tmp_path: Path) -> None:
    with pytest.raises(RSAError, match="goes with resume"):
        MarkovianRSA(ScriptedEngine(script)).solve_sync("why?", out=tmp_path, trust=True)
