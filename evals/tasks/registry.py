"""The generated tasks by name: for benchmarks' `[generate]`, the metrics of these names, and nano's checker."""

from __future__ import annotations

from typing import Any

from evals.tasks import chain, countdown, sums
from evals.tasks.task import Task

TASKS: dict[str, Task[Any]] = {"countdown": countdown.TASK, "chain": chain.TASK, "sums": sums.TASK}
