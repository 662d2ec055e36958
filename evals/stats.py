"""Statistics over problems: what a benchmark's number is worth.

The unit is the problem. Candidates of one problem are not independent, so they are averaged first; a standard error
counts problems, or clusters of them where several ask about one image or document. Nothing is divided by
questions that do not exist.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import comb, cos, fsum, pi, sin, sqrt, tan
from statistics import NormalDist

from rsa.results import Record

CONFIDENCE = 0.95
Range = tuple[float, float]
SCORES: Range = (0.0, 1.0)
"""The range of scores, votes and best of k, and so of their means; see `evals.scorers.protocol.Score`."""
DIFFERENCES: Range = (-1.0, 1.0)
"""The range of differences of two scores."""


class Estimate(Record):
    """A mean over problems and how far to trust it.

    value      the mean; None if no problem has a value.
    se         its standard error over clusters; None with fewer than two.
    low, high  the Student-t interval at `CONFIDENCE`, cut off where no mean can lie: below 0 and above 1 for scores,
               beyond -1 and 1 for differences; None without a standard error. The true mean lies within the range
               too, so that the part cut off never held it: the interval is right as often as before. That it was
               cut says that there are too few problems for it to be sharp.
    problems   with a value; `clusters` of them: equal to it where every problem stands alone.
    """

    value: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    problems: int
    clusters: int

    @property
    def margin(self) -> float | None:
        """Half the width of the interval before it is cut off; None without a standard error."""
        return None if self.se is None else student_t(self.clusters - 1) * self.se


def estimate(
    values: Mapping[str, float | None],
    clusters: Mapping[str, str | None] | None = None,
    within: Range = SCORES,
) -> Estimate:
    """Mean over problems with its interval; `values` by problem id, None where a problem has no value.

    clusters  by problem id; problems of one cluster count as one observation in the standard error (cluster-robust
              variance with the factor G / (G - 1) for G clusters). Without clusters that is sd / sqrt(P).
    within    least and most that a value can be: SCORES, or DIFFERENCES of two.
    """
    known = {key: value for key, value in values.items() if value is not None}
    if not known:
        return Estimate(value=None, problems=0, clusters=0)
    mean = fsum(known.values()) / len(known)
    sums: dict[Hashable, list[float]] = {}
    for key, value in known.items():
        cluster = clusters.get(key) if clusters else None
        sums.setdefault(("alone", key) if cluster is None else ("cluster", cluster), []).append(value - mean)
    groups = len(sums)
    if groups < 2:
        return Estimate(value=mean, problems=len(known), clusters=groups)
    squares = fsum(fsum(deviations) ** 2 for deviations in sums.values())
    se = sqrt(groups / (groups - 1) * squares) / len(known)
    margin, (least, most) = student_t(groups - 1) * se, within
    low, high = max(least, mean - margin), min(most, mean + margin)
    return Estimate(value=mean, se=se, low=low, high=high, problems=len(known), clusters=groups)


def wilson(mean: float, observations: int) -> Range:
    """Wilson's interval at `CONFIDENCE` of a mean of so many independent values from 0 to 1, at least one.

    For values of 0 and 1; of values between these, which lie closer together, it is too wide. It has a width, too,
    where all values are the same, and stays within 0 and 1: for the few of a bin, where `estimate` would feign
    certainty.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    weight = 1 + z * z / observations
    middle = (mean + z * z / (2 * observations)) / weight
    margin = z / weight * sqrt(max(0.0, mean * (1 - mean)) / observations + z * z / (4 * observations**2))
    return max(0.0, min(mean, middle - margin)), min(1.0, max(mean, middle + margin))


MAX_DF = 10_000
"""The most degrees of freedom that are told apart: more change no interval by a part in ten thousand."""


@lru_cache(maxsize=4096)
def student_t(df: int, confidence: float = CONFIDENCE) -> float:
    """The t with P(|T| <= t) = confidence for `df` degrees of freedom, at least 1."""
    df = min(df, MAX_DF)
    low, high = 0.0, pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if _central_probability(middle, df) >= confidence else (middle, high)
    return sqrt(df) * tan(middle)


def _central_probability(theta: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(theta)): the finite series for whole df, Abramowitz and Stegun 26.7.3 and 26.7.4."""
    sine, cosine = sin(theta), cos(theta)
    odd = df % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(2 + odd, df + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / pi * (theta + sine * total) if odd else sine * total


def best_of(values: Sequence[float], k: int) -> float | None:
    """Expected best of k of these values, drawn without replacement; None if there are fewer than k.

    For values of 0 and 1 this is pass@k = 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374).
    """
    if not 1 <= k <= len(values):
        return None
    ordered = sorted(values)
    return fsum(value * comb(rank, k - 1) for rank, value in enumerate(ordered)) / comb(len(ordered), k)


def majority(groups: Sequence[Sequence[int]], values: Sequence[float | None]) -> float | None:
    """Value of the largest group of equivalent answers, shared among groups of equal size.

    groups  indices into `values`, larger groups first; a group is worth what its members are on average, unscored
            members left out. 0 if nobody gave an answer; None if the largest groups have no scored member.
    """
    if not groups:
        return 0.0
    leading = [group for group in groups if len(group) == len(groups[0])]
    worths = [worth for group in leading if (worth := mean_of([values[index] for index in group])) is not None]
    return fsum(worths) / len(worths) if worths else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of those that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n itself: the k for which pass@k is told."""
    return sorted({n, *(2**e for e in range(n.bit_length()) if 2**e <= n)})
