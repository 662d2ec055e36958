"""examples/my_benchmark.py: a benchmark of one's own, for real."""

import os
import re
import sys
from pathlib import Path

import pytest
from processes import run

from evals import read_results

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "engine" / "weights" / "nano" / "model.safetensors"


@pytest.mark.skipif(not NANO.is_file(), reason="nano's weights are not there")
@pytest.mark.timeout(300)
def test_it_runs_and_says_what_came_out(tmp_path: Path) -> None:
    program = ROOT / "examples" / "my_benchmark.py"
    assert len(program.read_text().splitlines()) < 30
    done = run([sys.executable, program, tmp_path / "mine"], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    for line, method in zip(done.stdout.splitlines(), ("single", "rsa"), strict=True):
        results = read_results(tmp_path / "mine" / method)
        assert [problem.id for problem in results.problems] == ["make-24", "make-36", "make-17"]
        assert re.match(rf"{method}: {results.mean.value:.3f} of [\d,]+ tokens; ", line)
