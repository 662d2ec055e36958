"""Rules of `stop` tried on recorded runs: what each would have saved, and what it would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from evals.errors import ReplayError
from evals.replay.deciding import Remembering
from evals.replay.figures import Figures, Tally
from evals.replay.recording import RecordedRun
from evals.replay.replaying import RECORDED, Rerun
from evals.replay.variants import Variant
from rsa.answers.math_pool import MathWorkers
from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.results import Record
from rsa.settings.config import RSAConfig

RULES: Final = ("decided", "beta:.95", "consensus:.9", "bayes:.95")
"""The rules of `stop` that are tried unless told otherwise: each of those that need no number of candidates."""


class Tried(Record):
    """What a rule would have come to, in place of those that ran.

    rule     as the settings have it; empty for what ran.
    figures  None where the record of a run does not say: all runs or none, since those that say are no fair part.
    why      it is not known; empty where it is.
    """

    rule: str
    figures: Figures | None
    why: str = ""


class Trying:
    """Tries rules on runs that are fed one by one; what ran comes first.

    limited  runs that met a limit of tokens or time, and can be followed as far as that only.
    """

    def __init__(self, math: MathWorkers, rules: tuple[str, ...] = RULES) -> None:
        self._math = math
        self._recorded = Tally(RECORDED)
        self._tallies = [Tally(Variant(stop=(rule,))) for rule in rules]
        self._silent: Counter[str] = Counter()
        self._why: dict[str, str] = {}
        self._runs = self.limited = 0

    async def take(self, key: str, run: RecordedRun) -> None:
        """Try all rules on a run of the problem `key`."""
        self._runs += 1
        self.limited += bool(run.result.limits_hit)
        try:
            matcher = Remembering(run.result.config.task, self._math, run.result.rounds)
            rerun = await Rerun.of(run, matcher)
            self._recorded.runs[key].append(await rerun.by(RECORDED))
        except (ReplayError, ConfigError) as error:
            self._refuse(self._recorded, error)
            return
        for tally in self._tallies:
            try:
                _check_rounds(tally.variant, run.result.config)
                tally.runs[key].append(await rerun.by(tally.variant))
            except (ReplayError, ConfigError) as error:
                self._refuse(tally, error)

    def tried(self, clusters: Mapping[str, str | None]) -> tuple[Tried, ...]:
        """What ran, and each rule; what ran alone, where a run does not come to what was recorded.

        clusters  of the problems.
        """
        ran = self._told(self._recorded, clusters)
        return (ran, *(self._told(tally, clusters) for tally in self._tallies if ran.figures))

    def _refuse(self, tally: Tally, error: ReplayError | ConfigError) -> None:
        self._silent[tally.variant.name] += 1
        self._why.setdefault(tally.variant.name, error.why if isinstance(error, ReplayError) else str(error))

    def _told(self, tally: Tally, clusters: Mapping[str, str | None]) -> Tried:
        rule, silent = (tally.variant.stop or ("",))[0], self._silent[tally.variant.name]
        if not silent:
            return Tried(rule=rule, figures=tally.figures(self._recorded, clusters))
        why = self._why[tally.variant.name]
        if silent < self._runs:
            why = f"{silent:,} of {self._runs:,} runs do not say; the first of them: {why}"
        return Tried(rule=rule, figures=None, why=why)


def _check_rounds(variant: Variant, recorded: RSAConfig) -> None:
    """Raises ReplayError for a rule that has nothing to decide in a run of one round."""
    (rule,) = variant.stop or ("",)
    inside = registry.stop_policy(rule).inside
    if not inside and recorded.t == 0 and not registry.select_policy(recorded.select).goes_on:
        raise ReplayError("it ends runs between rounds, and there is only one")
