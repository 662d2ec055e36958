"""`rsa eval` and `rsa compare` for real, on the built-in model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from processes import Done, run

from evals.comparison import Comparison
from evals.folder import read_results

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "engine" / "weights" / "nano" / "model.safetensors"


@pytest.mark.skipif(not NANO.is_file(), reason="nano's weights are not there")
@pytest.mark.timeout(600)
def test_nano_on_countdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the README, small: real processes, the real model, figures that agree wherever they stand."""
    monkeypatch.chdir(tmp_path)
    sizes = ["--n", "4", "--beta", "96", "--tau", "64"]
    methods = {"single": sizes, "rsa": [*sizes, "--c", "4", "--t", "1"]}
    for method, words in methods.items():
        done = _command(
            "eval", "countdown", "--model", "nano", "--limit", "2", "--method", method, *words, "--out", method
        )
        results = read_results(method)
        assert results.mean.value is not None
        assert done.stdout == f"{results.mean.value:.4f}\n"
        assert len(results.problems) == 2
        assert results.rounds[-1].present == 8
        report = Path(method, "report.html").read_text()
        assert f"{100 * results.mean.value:.1f}%" in report
        with capsys.disabled():
            print(f"\nrsa eval countdown --method {method}: {done.stdout.strip()}, {results.protocol}")
    comparison = Comparison.model_validate_json(_command("compare", "single", "rsa", "--json").stdout)
    single, whole = read_results("single"), read_results("rsa")
    assert single.rounds[0].mean == whole.rounds[0].mean, "the same seeds give the same first round"
    assert comparison.problems == 2
    assert comparison.headline.difference.value == pytest.approx((whole.mean.value or 0) - (single.mean.value or 0))
    assert comparison.tokens_ratio is not None
    assert comparison.tokens_ratio > 1


def _command(*words: str) -> Done:
    return run([sys.executable, "-m", "rsa", *words], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
