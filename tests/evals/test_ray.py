"""`--executor ray`: a cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from processes import run

from evals.job import evaluate
from rsa import ConfigError

CHILD = Path(__file__).with_name("ray_child.py")
ROOT = Path(__file__).resolve().parents[2]
_CHILD = runpy.run_path(str(CHILD))
SETTINGS, PROBLEMS, IN_FLIGHT = _CHILD["SETTINGS"], _CHILD["PROBLEMS"], _CHILD["IN_FLIGHT"]
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install ray")
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
"""Nothing of Ray's goes to the home folder, or anywhere else."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of a few problems."""
    rows = [{"problem": f"what is number {i}?", "answer": i % 3, "problem_idx": i + 1} for i in range(PROBLEMS)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@with_ray
@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_killed_node_loses_nothing(tmp_path: Path, data: Path) -> None:
    """What its workers had begun is taken up by the other node at the candidate where it stood."""
    (tmp_path / "asked").touch()
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary"), **QUIET}
    done = run([sys.executable, CHILD, tmp_path, data], env=environment)
    assert done.returncode == 0, done.stderr
    (lost,) = [line for line in done.stdout.splitlines() if line.startswith("worker ")]
    assert lost.endswith(" 1"), "one is left"
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert len(left) <= 1, "those of the killed node"
    anyio.run(partial(evaluate, "aime25", f"scripted:{CHILD}", out=tmp_path / "here", data=data, **SETTINGS))
    for name in ("results.json", "candidates.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    dead = (tmp_path / "dies").read_text()
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    begun = {problem for node, problem, *_ in asked if node == dead}
    assert len(begun) == IN_FLIGHT
    times = Counter((problem, request, seed) for _, problem, request, seed in asked)
    for (problem, request, _), count in times.items():
        assert count == (2 if problem in begun and request.startswith("r1") else 1)
    assert len(times) == PROBLEMS * 4 * 2


@with_ray
@pytest.mark.thorough
def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    words = ["eval", "countdown", "--limit", "2", "--executor", "ray", "--address", "127.0.0.1:1", "--out", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **QUIET}
    done = run([sys.executable, "-m", "rsa", *words], env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Ray cluster answers at 127.0.0.1:1 (")
    assert "start one with `ray start --head`, or say where it is with --address" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from evals.workers.executor import executor_named

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'markovian-rsa\[ray\]'"):
        executor_named("ray")
