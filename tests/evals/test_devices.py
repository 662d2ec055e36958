"""`--devices`: what may be asked for, what is there, and what a worker is shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.workers.devices import Devices, visible_gpus
from rsa import ConfigError
from rsa.command.cli import app


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are looked for: there are none, and no variable of CUDA is set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def with_gpus(machine: Path, said: str, code: int = 0) -> None:
    """An nvidia-smi that says so."""
    program = machine / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --query-gpu=index ] || exit 9\nprintf '{said}'\nexit {code}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "0,1,0", "1,1", "1.5", "all,1", ",", "a,b", "99999"])
def test_what_is_no_devices(text: str) -> None:
    with pytest.raises(ConfigError, match="`devices` = "):
        Devices.read(text)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("all", ["0", "1", "2", "3"]), ("2", ["0", "1"]), ("4", ["0", "1", "2", "3"]), ("1,3", ["1", "3"]), ("2,", ["2"])],
)
@pytest.mark.thorough
def test_each_worker_sees_a_gpu_of_its_own(machine: Path, asked: str, shown: list[str]) -> None:
    with_gpus(machine, r"0\n1\n2\n3\n")
    found = Devices.read(asked).found()
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in found] == shown
    assert [device.name for device in found] == [f"GPU {name}" for name in shown]
    assert {device.environment["CUDA_DEVICE_ORDER"] for device in found} == {"PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("2,5", ["2", "5"]),
        ("GPU-8f3a, GPU-1b2c", ["GPU-8f3a", "GPU-1b2c"]),
        ("MIG-1", ["MIG-1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_only_those_that_this_process_sees_count(
    machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus
    if gpus:
        found = Devices.read("all").found()
        assert [dict(device.environment) for device in found] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]


@pytest.mark.thorough
@pytest.mark.parametrize(("said", "code"), [("", 0), ("No devices were found", 6)])
def test_an_nvidia_smi_without_gpus(machine: Path, said: str, code: int) -> None:
    with_gpus(machine, said, code)
    assert visible_gpus() == []


def test_without_gpus_a_number_of_workers_share_the_machine(machine: Path) -> None:
    found = Devices.read("3").found()
    assert [(device.name, dict(device.environment)) for device in found] == [("this machine", {})] * 3


@pytest.mark.parametrize(
    ("gpus", "asked", "says"),
    [
        ("", "all", "error: --devices = all: there is no NVIDIA GPU here. A number, like 2, starts so many workers"),
        ("", "0,1", "error: --devices = 0,1: there is no NVIDIA GPU here"),
        ("4,5", "3", "error: --devices = 3: there is no GPU 2 here, but 2 GPUs, counted from 0"),
        ("4,5", "0,2", "error: --devices = 0,2: there is no GPU 2 here, but 2 GPUs"),
        ("4,5", "x", "error: --devices = x: should be all, a number of GPUs like 2, or which ones, like 0,1"),
        ("4,5", "1,1", "error: --devices = 1,1: a GPU is named twice"),
    ],
)
def test_devices_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, asked: str, says: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    words = ["eval", "countdown", "--limit", "2", "--devices", asked, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--executor", "rey"], "error: no executor is called 'rey'; did you mean 'ray'? There are local, ray"),
        (["--address", "here:1"], "error: --address goes with the executor ray: leave it out"),
        (["--executor", "ray", "--devices", "2"], "error: --devices goes with the executor local"),
    ],
)
def test_executors_that_cannot_be(words: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["eval", "countdown", "--limit", "2", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
