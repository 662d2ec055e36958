"""Results folders that were changed: refused in a line that names the file, or taken on trust, and said so."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sealed import content, contents, copy_of, leaves, replaced

from evals.comparison import compare
from evals.export.writing import export
from evals.folder import read_results
from evals.replay.replaying import replay_folders
from evals.replay.variants import Variant
from evals.report import write_report
from evals.rescoring import rescore
from evals.results import EvalResults
from rsa import RSAError
from rsa.digests import seal

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
benchmark, run, written = (_CHILD[name] for name in ("benchmark", "run", "written"))
CASES = json.loads((Path(__file__).parents[1] / "data" / "tampered_results.json").read_text())
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]
"""What fails is a place in a file, which is none the clearer for being earlier, and each example takes a while."""
MARKS = ("is not what was written there", "has no digest", "cannot be read")


def scored_again(folder: Path, *, trust: bool = False) -> EvalResults:
    return anyio.run(partial(rescore, folder, benchmark=benchmark(5), trust=trust))


def gone_on(folder: Path, *, trust: bool = False) -> EvalResults:
    found: EvalResults = run(folder, of=benchmark(5), resume=True, trust=trust)
    return found


def decided_again(folder: Path, *, trust: bool = False) -> dict[str, Any]:
    found = anyio.run(partial(replay_folders, [folder], [Variant(stop=("decided",))], trust=trust))
    return found.model_dump(exclude={"replays": {"__all__": {"folders"}}})


READERS: dict[str, Callable[..., Any]] = {
    "resume": gone_on,
    "rescore": scored_again,
    "report": write_report,
    "replay": decided_again,
    "compare": lambda folder, *, trust=False: compare(folder, folder, trust=trust),
    "export": lambda folder, *, trust=False: export(folder, by="A lab", trust=trust).read_text(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that has ended, one of its problems failed; tests work on copies."""
    folder = tmp_path_factory.mktemp("evals") / "whole"
    run(folder, of=benchmark(5))
    (folder / "progress.json").write_bytes(seal(b'{"spent_s":1.5}').data)  # it took less than is worth noting
    write_report(folder)
    return folder


def tamper(folder: Path, case: dict[str, Any]) -> None:
    """Change what a case says, and leave the digest as it was."""
    (path,) = folder.glob(case["file"])
    data = path.read_bytes()
    if "text" in case:
        was, now = case["text"]
        path.write_text(data.decode().replace(was, now, 1))
    elif "bare" in case:
        path.write_bytes(content(path))
    elif "cut" in case:
        path.write_bytes(b"".join(data.splitlines(keepends=True)[: -case["cut"]]))
    elif "from" in case:
        (other,) = folder.glob(case["from"])
        shutil.copy(other, path)
    else:
        lines = data.splitlines() if "line" in case else [data]
        at = case.get("line", 1) - 1
        changed = replaced(json.loads(lines[at]), tuple(case["place"]), case["new"])
        lines[at] = json.dumps(changed, separators=(",", ":")).encode()
        path.write_bytes(b"".join(line + b"\n" for line in lines) if "line" in case else lines[0])


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_what_was_changed_is_refused_by_its_name(whole: Path, case: dict[str, Any]) -> None:
    for name, read in READERS.items():
        if name not in case:
            continue
        folder = copy_of(whole)
        tamper(folder, case)
        before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
        with pytest.raises(RSAError) as caught:
            read(folder)
        assert case[name] in str(caught.value)
        assert "\n" not in str(caught.value)
        changed = {path.name for path, was in before.items() if path.read_bytes() != was}
        assert changed <= {"progress.json", "scores.json", "events.jsonl"}, "what cannot be made again is not touched"


@settings(max_examples=15, phases=NO_SHRINKING)
@given(data=st.data())
def test_any_changed_byte_is_refused_or_changes_nothing(whole: Path, data: st.DataObject) -> None:
    folder = copy_of(whole)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.json*"))), label="file")
    was = path.read_bytes()
    at = data.draw(st.integers(0, len(was) - 1), label="at")
    path.write_bytes(was[:at] + data.draw(st.binary(max_size=2), label="new") + was[at + 1 :])
    name = data.draw(st.sampled_from(sorted(READERS)), label="reader")
    said = None
    try:
        found = READERS[name](folder)
    except RSAError as error:
        said = str(error)
    if said is not None:
        assert str(folder) in said
        assert "\n" not in said
    elif name in ("resume", "rescore"):
        assert written(folder) == written(whole)
    elif name in ("compare", "replay"):
        assert found == READERS[name](whole)
    elif name == "report":
        page = found.read_text()
        assert any(mark in page for mark in MARKS) or page == (whole / "report.html").read_text()


@settings(max_examples=5, phases=NO_SHRINKING)
@given(data=st.data())
def test_on_trust_a_changed_value_is_taken_or_refused_without_a_traceback(whole: Path, data: st.DataObject) -> None:
    folder = copy_of(whole)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.json*"))), label="file")
    lined = path.suffix == ".jsonl"
    said = contents(path) if lined else [content(path)]
    line = data.draw(st.integers(0, len(said) - 1), label="line")
    value = json.loads(said[line])
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, -1, 0, 7, 10**30, 0.5, "", "8", True, [], {}, [0, 0], float("inf"), float("nan")]
    )
    place = data.draw(st.sampled_from(leaves(value)), label="place")
    said[line] = json.dumps(replaced(value, place, data.draw(odd, label="new")), separators=(",", ":")).encode()
    sealed = [seal(each, data.draw(st.sampled_from(["", "0"]), label="digest")).data for each in said]
    path.write_bytes(b"".join(each + b"\n" * lined for each in sealed))
    for read in READERS.values():
        with suppress(RSAError):
            read(folder, trust=True)


def test_what_was_taken_on_trust_is_recorded_and_shown(whole: Path) -> None:
    folder = copy_of(whole)
    tamper(folder, next(case for case in CASES if case["what"] == "a flipped digit of a score"))
    (scores,) = folder.glob("runs/p-0-*/scores.json")
    note = f"taken on trust: {scores.relative_to(folder)} is not what was written there"
    results = gone_on(folder, trust=True)
    assert results.warnings[0] == note
    assert read_results(folder).warnings[0] == note, "it is recorded"
    assert note in write_report(folder, trust=True).read_text()
    with pytest.raises(RSAError, match=r"scores\.json is not what was written there"):
        gone_on(folder)
    tamper(folder, next(case for case in CASES if case["what"] == "the headline"))
    said = compare(folder, folder, trust=True).notes
    assert "the first: taken on trust: results.json is not what was written there" in said
    assert "taken on trust: results.json is not what was" in READERS["export"](folder, trust=True)
    scored_again(folder)
    assert written(folder) == written(whole), "scored again, nothing is left of it"
