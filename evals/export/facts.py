"""What the formats share: a finished evaluation, and facts about it that stand in no field of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from evals.errors import ResultsError
from evals.eval_record import EvalRecord
from evals.folder import EVAL, read_eval, read_results
from evals.results import EvalResults
from evals.stats import Estimate
from rsa.words import plural, shown

PROGRAM = "markovian-rsa"
"""What measured, as its package is called."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Finished:
    """An evaluation that is finished and has a value.

    record   what was evaluated.
    results  its figures.
    began_s  when it began, in seconds since 1970.
    """

    record: EvalRecord
    results: EvalResults
    began_s: float

    @classmethod
    def read(cls, folder: Path, *, trust: bool = False) -> Self:
        """The evaluation of a results folder. Raises ResultsError if it is not finished, nothing was scored, nobody can
        say when it began, or it was changed and is not taken on `trust`."""
        record, results = read_eval(folder, trust=trust), read_results(folder, trust=trust)
        try:
            began_s = datetime.fromisoformat(record.created_at).timestamp()
        except (ValueError, OverflowError, OSError):
            raise ResultsError(
                f"{folder / EVAL}: created_at = {shown(record.created_at)}: should be a time of ISO 8601"
            ) from None
        found = cls(record, results, began_s)
        if found.results.mean.value is None:
            raise ResultsError(f"{folder} holds no value to export: none of its problems could be scored")
        return found

    @property
    def hub_id(self) -> str | None:
        """Of the model, where it was loaded from the hub."""
        source = str(self.results.model.details.get("source") or "")
        return source if _HUB_ID.fullmatch(source) else None

    @property
    def version(self) -> str:
        """Of the program that measured."""
        return self.results.versions.get(PROGRAM, "unknown")


def interval(estimate: Estimate) -> str:
    """An estimate for people: its interval, and how many problems it is of."""
    problems = plural(estimate.problems, "problem")
    if estimate.low is None or estimate.high is None:
        return f"no interval, {problems}"
    return f"95% interval [{estimate.low:.4f}, {estimate.high:.4f}], {problems}"


def texts(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts as formats keep them that know texts alone: numbers and lists as JSON, and what is not known left out."""
    known = {name: fact for name, fact in facts.items() if fact is not None and fact != {}}
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in known.items()}
