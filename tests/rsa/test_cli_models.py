"""`rsa models` and `rsa convert`: what goes where, and what a mistake is told."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import rsa
from rich.console import Console

from engine.errors import ModelError
from engine.files.checkpoint import FileProgress, OnProgress
from engine.files.hub import Fetched
from rsa.command.terminal import bars

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


# ---- info


def test_the_names() -> None:
    done = rsa("models", "list")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["nano", "zaya1-8b", "zaya1-vl-8b"]


def test_info_for_people() -> None:
    done = rsa("models", "info", GOLDEN / "tiny_jang")
    assert done.code == 0
    lines = [line.split(maxsplit=1) for line in done.out.splitlines()]
    facts = {line[0]: line[1] for line in lines if len(line) > 1}
    assert facts["layout"] == "community 4-bit bundle (JANG)"
    assert facts["parameters"] == "263,212"
    assert "images  yes" in facts["sees"]
    assert ["experts", "4-bit affine, groups of 32      98,304  0.1"] in lines
    assert lines[-1] == ["ok", "nothing is missing"]


def test_info_for_programs() -> None:
    done = rsa("models", "info", "nano", "--json")
    report = json.loads(done.out)
    assert (report["layout"], report["thinks"], report["problems"]) == ("native", True, [])
    assert done.err == ""


def test_info_about_a_folder_that_is_not_whole(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "tiny_hf", tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00002-of-00003.safetensors")
    (folder / "tokenizer.json").unlink()
    done = rsa("models", "info", folder)
    assert done.code == 4
    problems = [line for line in done.out.splitlines() if line.startswith("!! ")]
    assert problems[0].startswith("!! 2 of 3 weight files are not there: model-00001-of-00003.safetensors, model-00003")
    assert problems[1].startswith("!! no tokenizer")
    assert json.loads(rsa("models", "info", folder, "--json").out)["problems"][0] in problems[0]


def test_info_about_what_is_not_here() -> None:
    done = rsa("models", "info", "zaya1-vl-8b")
    assert (done.code, done.out) == (4, "")
    assert "`rsa models pull Zyphra/ZAYA1-VL-8B` fetches it" in done.err
    done = rsa("models", "info", "zaya1-vl")
    assert done.code == 2
    assert "did you mean 'zaya1-vl-8b'" in done.err


# ---- pull


def test_pull_prints_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    def fetch(hub_id: str, *, to: Path | None, on_progress: OnProgress) -> Fetched:
        asked.append((hub_id, to))
        on_progress(FileProgress("fetching", 0, 19_400_000_000))
        on_progress(FileProgress("fetching", 19_400_000_000, 19_400_000_000))
        return Fetched(tmp_path / "there", "0123abcd")

    monkeypatch.setattr("engine.files.hub.fetch", fetch)
    done = rsa("models", "pull", "zaya1-vl-8b", "--to", "there")
    assert (done.code, done.out) == (0, f"{tmp_path / 'there'}\n")
    assert done.err.splitlines() == ["fetching 19,400.0 MB", "zaya1-vl-8b at revision 0123abcd"]
    done = rsa("models", "pull", "owner/name", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert asked == [("Zyphra/ZAYA1-VL-8B", Path("there")), ("owner/name", None)]


def test_pull_without_a_network_and_of_what_is_no_hubs(tmp_path: Path) -> None:
    done = rsa("models", "pull", "zaya1-8b")
    assert (done.code, done.out) == (4, "")
    assert "`hf download Zyphra/ZAYA1-8B --local-dir ZAYA1-8B`" in done.err
    for name, words in (("nano", "nano is part of the package"), (str(tmp_path), "is a folder")):
        done = rsa("models", "pull", name)
        assert done.code == 2
        assert words in done.err


def test_an_interrupted_pull_tells_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> Fetched:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.files.hub.fetch", fetch)
    done = rsa("models", "pull", "owner/name", "--to", "my models")
    assert done.code == 130
    assert done.err == ("interrupted; what is done is kept, go on with: rsa models pull owner/name --to 'my models'\n")


def test_solving_fetches_first_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetch(hub_id: str, *, on_progress: OnProgress) -> Fetched:
        on_progress(FileProgress("fetching", 0, 2_000_000))
        raise ModelError(f"{hub_id}: no more")

    monkeypatch.setattr("engine.files.hub.fetch", fetch)
    (tmp_path / "problem.txt").write_text("Say something.")
    done = rsa("solve", "problem.txt", "--model", "zaya1-vl-8b")
    assert done.code == 4
    assert done.err.splitlines() == ["fetching 2.0 MB", "error: Zyphra/ZAYA1-VL-8B: no more"]


# ---- convert


def test_convert(tmp_path: Path) -> None:
    words = ["convert", GOLDEN / "tiny_hf", "to", "--bits", "8", "--group-size", "32", "--dtype", "f32"]
    done = rsa(*words)
    assert (done.code, done.out) == (0, "to\n")
    first, second, last = done.err.splitlines()
    assert first.startswith("converting 0.")
    assert second.startswith("verifying 0.")
    assert "17 matrices quantised, verified: 0.4" in last
    assert "% off on average, at worst 0.4" in last
    assert rsa(*words).err == f"{last}\n", "it is done already"
    config = json.loads((tmp_path / "to" / "config.json").read_text())
    assert config["quantization"] == {"bits": 8, "group_size": 32, "mode": "affine"}
    done = rsa("models", "info", "to", "--json")
    assert json.loads(done.out)["layout"] == "ours"


def test_convert_refuses(tmp_path: Path) -> None:
    for words, code, told in (
        (("convert", GOLDEN / "tiny_jang", "to"), 4, "is quantised already"),
        (("convert", "nano", "to", "--bits", "7"), 2, "no affine quantisation has 7 bits"),
        (("convert", "nano", "to", "--group-size", "0"), 2, "in groups of 0"),
        (("convert", "nano", "to", "--mode", "mxfp4", "--bits", "8"), 2, "no mxfp4 quantisation has 8 bits"),
        (("convert", "nano", "to", "--mode", "awq"), 2, "'awq' is not one of"),
        (("convert", "nanno", "to"), 2, "did you mean 'nano'"),
        (("convert", tmp_path, "to"), 4, "it has no config.json"),
    ):
        done = rsa(*words)
        assert (done.code, done.out) == (code, "")
        assert told in " ".join(done.err.replace("│", " ").split())


# ---- bars


def test_bars_on_a_terminal_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    consoles: list[Console] = []

    def console(**_: object) -> Console:
        consoles.append(Console(record=True, force_terminal=True, width=100, file=io.StringIO()))
        return consoles[-1]

    with monkeypatch.context() as patch:
        patch.setattr("rich.console.Console", console)
        with bars() as show:
            show(FileProgress("converting", 0, 1_000_000))
            show(FileProgress("converting", 500_000, 1_000_000))
            show(FileProgress("verifying", 0, None))
        text = consoles[0].export_text()
    assert "converting" in text
    assert "0.5/1.0 MB" in text


def test_bars_tell_a_log_when_work_begins(capfd: pytest.CaptureFixture[str]) -> None:
    with bars() as show:
        show(FileProgress("fetching", 0, None))
        show(FileProgress("fetching", 0, 3_000_000))
        show(FileProgress("fetching", 1_000_000, 4_000_000))
        show(FileProgress("converting", 5, 5))
    assert capfd.readouterr() == ("", "fetching 3.0 MB\n")
    with bars(quiet=True) as show:
        show(FileProgress("fetching", 0, 3_000_000))
    assert capfd.readouterr() == ("", "")
