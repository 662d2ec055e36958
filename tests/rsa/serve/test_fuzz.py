"""A few hundred hostile requests of benchmarks/serve_fuzz.py, which sends a hundred thousand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import processes

ROOT = Path(__file__).resolve().parents[3]
FUZZ = ROOT / "benchmarks" / "serve_fuzz.py"


def test_hostile_requests_are_refused_in_form_and_stop_nothing() -> None:
    done = processes.run([sys.executable, FUZZ, "--requests", 300, "--seed", 3], cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    assert found["well"]
    assert found["statuses"]["400"] > 100
    assert found["statuses"]["200"] > 10
