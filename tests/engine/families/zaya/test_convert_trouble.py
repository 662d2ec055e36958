"""Conversion in trouble: a crash costs one file, what was changed is noticed, what cannot be converted is refused."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from processes import run

from engine.errors import CheckpointError, ModelError, RequestError
from engine.families.zaya import load
from engine.families.zaya import shards as shards_module
from engine.families.zaya.convert import convert
from engine.families.zaya.shards import Settings
from engine.files.checkpoint import FileProgress
from engine.files.conversion import Conversion
from engine.loader import NANO, convert_model
from engine.mlx.quantised import Quantised, Scheme

FOUR, EIGHT = Scheme(4, 32), Scheme(8, 64)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a tiny model has several."""
    monkeypatch.setattr(shards_module, "_SHARD_BYTES", 100_000)


@pytest.fixture(scope="module")
def unbroken(vl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Conversion, list[FileProgress]]:
    """A conversion in several shards, its result, and all that it reported."""
    folder, reports = tmp_path_factory.mktemp("converted") / "unbroken", list[FileProgress]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "_SHARD_BYTES", 100_000)
        return folder, convert(vl, folder, Settings(FOUR), reports.append), reports


def shard_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("model*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    """All tensors of a folder, and its other files; where a shard lies in its file does not matter."""
    tensors: dict[str, mx.array] = {}
    for name in shard_names(folder):
        tensors |= mx.load(str(folder / name))
    found = {name: np.array(x.view(mx.uint8)).tobytes() for name, x in tensors.items()}
    return found | {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".safetensors"}


# ---- broken off ------------------------------------------------------------------------------------------------


def test_progress_counts_to_the_end_twice(unbroken: tuple[Path, Conversion, list[FileProgress]]) -> None:
    folder, result, seen = unbroken
    for stage in ("converting", "verifying"):
        done = [report.done_bytes for report in seen if report.stage == stage]
        (total,) = {report.total_bytes for report in seen if report.stage == stage}
        assert done == sorted(done)
        assert done[-1] == total
        assert 0 < result.nbytes - total < 0.2 * result.nbytes, "but for the headers"
    assert result.nbytes == sum((folder / name).stat().st_size for name in shard_names(folder))
    assert len(shard_names(folder)) > 3


class Crash(BaseException):
    pass


def crash_in(call: int) -> Any:
    """A progress report that crashes the conversion at its nth call."""
    calls = iter(range(10_000))

    def report(_: FileProgress) -> None:
        if next(calls) == call:
            raise Crash

    return report


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.49, 0.7, 0.99])
def test_a_conversion_that_was_cut_off_goes_on(
    vl: Path, tmp_path: Path, small_shards: None, unbroken: tuple[Path, Conversion, list[FileProgress]], part: float
) -> None:
    """Wherever: before the first shard, in the middle of one, in the last, while verifying."""
    whole, result, reports = unbroken
    target = tmp_path / "to"
    with pytest.raises(Crash):
        convert(vl, target, Settings(FOUR), crash_in(int(part * len(reports))))
    kept = {name: (target / name).stat().st_ino for name in shard_names(target)}
    assert (target / "config.json").is_file() == (part > 0.5), "a folder without all its shards is no model"
    assert (len(kept) == len(shard_names(whole))) == (part > 0.5)
    assert convert(vl, target, Settings(FOUR)) == result
    assert contents(target) == contents(whole)
    assert {name: (target / name).stat().st_ino for name in kept} == kept, "finished shards are kept"


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.families.zaya import convert as module, shards
from engine.mlx.quantised import Scheme

shards._SHARD_BYTES = 100_000
settled = module.settle

def settle(file):
    if file.name.startswith("model-00003"):
        os.kill(os.getpid(), signal.SIGKILL)  # the file is written and has not got its name
    settled(file)

module.settle = settle
module.convert(Path(sys.argv[1]), Path(sys.argv[2]), shards.Settings(Scheme(4, 32)))
"""


def test_killed_in_the_middle_of_a_file(
    vl: Path, tmp_path: Path, small_shards: None, unbroken: tuple[Path, Conversion, list[FileProgress]]
) -> None:
    target = tmp_path / "to"
    died = run([sys.executable, "-c", KILLED, vl, target])
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [name[:11] for name in shard_names(target)] == ["model-00001", "model-00002"]
    assert [file.name[:20] for file in target.glob(".writing-*")] == [".writing-model-00003"]
    assert not (target / "config.json").exists()
    convert(vl, target, Settings(FOUR))
    assert contents(target) == contents(unbroken[0])
    assert not list(target.glob(".writing-*"))


def test_a_finished_conversion_is_not_done_again(vl: Path, tmp_path: Path) -> None:
    first = convert(vl, tmp_path / "to", Settings(FOUR))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "to").iterdir()}
    assert convert(vl, tmp_path / "to", Settings(FOUR), crash_in(0)) == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "to").iterdir()} == before


def test_a_shard_that_lost_its_end_is_written_again(
    vl: Path, tmp_path: Path, small_shards: None, unbroken: tuple[Path, Conversion, list[FileProgress]]
) -> None:
    whole, _, reports = unbroken
    target = tmp_path / "to"
    with pytest.raises(Crash):
        convert(vl, target, Settings(FOUR), crash_in(len(reports) // 3))
    shard = target / shard_names(target)[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    convert(vl, target, Settings(FOUR))
    assert contents(target) == contents(whole)


def test_what_was_written_is_held_against_the_source(vl: Path, tmp_path: Path) -> None:
    """Bytes that the disk changed; the verifying that follows a crash finds them."""
    target = tmp_path / "to"
    convert(vl, target, Settings(FOUR))
    record = json.loads((target / "conversion.json").read_text())
    del record["result"]
    (target / "conversion.json").write_text(json.dumps(record))
    shard = target / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(ModelError, match="is not what it was made of"):
        convert(vl, target, Settings(FOUR))


# ---- read again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.pop("quantization"), r"parameters? not part of this model|tensors not part of this model: .*s"),
        (lambda c, t: t.pop("model.layers.0.attn.self_attn.qkv.biases"), r"qkv\.scales is there without .*qkv\.biases"),
        (lambda c, t: t.pop("model.layers.0.attn.self_attn.qkv.scales"), r"codes without their scales, .*qkv\.weight"),
        (lambda c, t: c["quantization"].update(group_size="64"), "quantization has group_size '64'"),
        (
            lambda c, t: c["quantization"]["model.embed_tokens"].update(group_size=64),
            r"model\.embed_tokens\.weight \[128, 128\], expected \[128, 64\]",
        ),
        (lambda c, t: t.pop("model.layers.2.attn.self_attn.temp"), r"1 tensor missing: .*layers\.2.*temp \[2\]"),
    ],
)
def test_a_result_that_was_changed(
    unbroken: tuple[Path, Conversion, list[FileProgress]], tmp_path: Path, change: Any, message: str
) -> None:
    config = json.loads((unbroken[0] / "config.json").read_text())
    config["quantization"]["model.embed_tokens"] = {"group_size": 32, "bits": 8, "mode": "affine"}
    tensors: dict[str, mx.array] = {}
    for name in shard_names(unbroken[0]):
        tensors |= mx.load(str(unbroken[0] / name))
    change(config, tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_codes_under_the_names_of_the_hub_are_refused(vl: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(vl, tmp_path / "from"))
    tensors = dict(mx.load(str(vl / "model.safetensors")))
    name = "model.layers.0.attn.self_attn.o_proj"
    tensors |= Quantised.of(tensors[f"{name}.weight"], FOUR).tensors(name)
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"quantization": FOUR.as_config()}))
    with pytest.raises(CheckpointError, match=r"quantised matrices \(model\.layers\.0.*o_proj\) in the vl layout"):
        load(source)


# ---- refused ---------------------------------------------------------------------------------------------------


def test_folders_that_hold_something_else(vl: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(ModelError, match="not empty and holds no conversion"):
        convert(vl, other, Settings(FOUR))
    assert [file.name for file in other.iterdir()] == ["mine.txt"]
    convert(vl, tmp_path / "to", Settings(FOUR))
    with pytest.raises(ModelError, match=r"holds another conversion \(scheme is {'bits': 4.*, {'bits': 8"):
        convert(vl, tmp_path / "to", Settings(EIGHT))
    with pytest.raises(ModelError, match=r"\(source is 'tiny_hf' there, 'nano' here; source_fingerprint is"):
        convert(NANO, tmp_path / "to", Settings(FOUR))
    with pytest.raises(ModelError, match="is the model itself"):
        convert(vl, vl / ".." / vl.name, Settings(FOUR))
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="file is a file: a conversion needs a folder"):
        convert(vl, tmp_path / "file", Settings(FOUR))
    with pytest.raises(ModelError, match=r"cannot write into .*: Not a directory"):
        convert(vl, tmp_path / "file" / "to", Settings(FOUR))


def test_two_at_once(vl: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def report(_: FileProgress) -> None:
        if not refused:
            with pytest.raises(ModelError) as caught:
                convert(vl, tmp_path / "to", Settings(FOUR))
            refused.append(str(caught.value))

    convert(vl, tmp_path / "to", Settings(FOUR), report)
    assert "another process is converting into" in refused[0]


def test_sources_that_cannot_be_converted(golden: Path, vl: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny_jang is quantised already \(8-bit affine, groups of 32\)"):
        convert(golden / "tiny_jang", tmp_path / "to", Settings(FOUR))
    source = Path(shutil.copytree(vl, tmp_path / "from"))
    tensors = dict(mx.load(str(vl / "model.safetensors")))
    del tensors["model.layers.1.attn.self_attn.o_proj.weight"]
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=r"1 tensor missing: model\.layers\.1\.attn\.self_attn\.o_proj"):
        convert(source, tmp_path / "to", Settings(FOUR))
    tensors["model.layers.1.attn.self_attn.o_proj.weight"] = mx.full((64, 64), mx.nan)
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    with pytest.raises(ModelError, match=r"o_proj\.weight is not what it was made of\. Are its numbers finite"):
        convert(source, tmp_path / "to", Settings(FOUR))


def test_codes_that_do_not_exist(vl: Path, tmp_path: Path) -> None:
    for scheme, message in (
        (Scheme(7, 32), "no affine quantisation has 7 bits in groups of 32: there are 2, 3, 4, 5, 6 or 8 bits"),
        (Scheme(4, 48), "groups of 32, 64 or 128"),
        (Scheme(8, 32, "mxfp4"), "no mxfp4 quantisation has 8 bits in groups of 32: there are 4 bits"),
        (Scheme(4, 32, "awq"), "mode 'awq' is none of affine, mxfp4"),
    ):
        with pytest.raises(RequestError, match=message):
            convert(vl, tmp_path / "to", Settings(scheme))
    with pytest.raises(RequestError, match="type 'int8' is none of bf16, f16, f32"):
        convert(vl, tmp_path / "to", Settings(FOUR, "int8"))
    assert not (tmp_path / "to").exists()


def test_a_disk_that_is_too_small(vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ModelError, match=r"writes 0\.00 GB into .*, where 0\.00 GB are free"):
        convert(vl, tmp_path / "to", Settings(FOUR))
    assert shard_names(tmp_path / "to") == []


def test_by_name_and_for_zaya_alone(tmp_path: Path, make_llama: Any) -> None:
    result = convert_model("nano", tmp_path / "to", bits=4, mode="mxfp4")
    assert isinstance(result, Conversion)
    with pytest.raises(ModelError, match=r"is a llama model; such models are converted by `mlx_lm"):
        convert_model(make_llama(tmp_path / "llama"), tmp_path / "other", bits=4)
