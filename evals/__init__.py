"""Measurement: benchmarks, scorers, statistics, runner and report.

    from evals import Benchmark, Question, evaluate
    results = await evaluate("chain", "nano", "rsa", out="runs/chain", limit=2, n=4, t=1, beta=256, tau=64)

Names are imported when they are first used, so that `import evals` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.comparison import Comparison, compare
    from evals.data.benchmarks import Benchmark, benchmark_names, load_benchmark
    from evals.data.question import Question
    from evals.errors import BenchmarkError, DataError, EvalError, GoldError, OtherEvalError, ResultsError
    from evals.folder import read_results
    from evals.job import evaluate
    from evals.merging import merge
    from evals.replay.replaying import replay_folders
    from evals.replay.variants import Variant
    from evals.report import write_report
    from evals.rescoring import rescore
    from evals.results import EvalResults
    from evals.scorers.protocol import Score, Scorer

__all__ = [
    "Benchmark",
    "BenchmarkError",
    "Comparison",
    "DataError",
    "EvalError",
    "EvalResults",
    "GoldError",
    "OtherEvalError",
    "Question",
    "ResultsError",
    "Score",
    "Scorer",
    "Variant",
    "benchmark_names",
    "compare",
    "evaluate",
    "load_benchmark",
    "merge",
    "read_results",
    "replay_folders",
    "rescore",
    "write_report",
]

_HOME = {
    **dict.fromkeys(("Benchmark", "benchmark_names", "load_benchmark"), "evals.data.benchmarks"),
    **dict.fromkeys(("Comparison", "compare"), "evals.comparison"),
    "evaluate": "evals.job",
    "rescore": "evals.rescoring",
    "merge": "evals.merging",
    "replay_folders": "evals.replay.replaying",
    "Variant": "evals.replay.variants",
    "Question": "evals.data.question",
    **dict.fromkeys(("Score", "Scorer"), "evals.scorers.protocol"),
    "EvalResults": "evals.results",
    "read_results": "evals.folder",
    "write_report": "evals.report",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evals' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "evals.errors")), name)


def __dir__() -> list[str]:
    return __all__
