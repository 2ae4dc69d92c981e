"""Paired comparison of two configurations over seeds, and Holm's correction for several of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
_DIGITS = 9  # of a difference: what is beyond comes from rounding


@dataclass(frozen=True)
class Paired:
    """Differences over the seeds that both sides have: their mean, and what a paired t-test says of it.

    In the unit of the values. `spread` is the standard deviation of the differences, `low` and `high` bound
    the CONFIDENCE interval of the mean, `p` is two-sided; all four are None with fewer than two seeds, and
    `p` and the bounds also where all differences are equal, as the test then has nothing to go by.
    """

    seeds: tuple[int, ...]
    mean: float
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def compare_paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    """Return the comparison of first minus second, each values by seed.

    Raises:
        ValueError: they have no seed in common.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    differences = [round(first[seed] - second[seed], _DIGITS) for seed in seeds]
    mean = statistics.mean(differences)
    if len(seeds) < 2:
        return Paired(seeds, mean)
    spread = statistics.stdev(differences)
    if spread == 0:
        return Paired(seeds, mean, spread)
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return Paired(seeds, mean, spread, float(low), float(high), float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values of a family of tests, corrected by Holm's method (1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none becomes smaller than the one
    before it, nor larger than 1. A test that could not be made yet, None, stays None but belongs to the m: so
    what is shown is not withdrawn when it is made.
    """
    known = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, number) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[number] = largest
    return corrected
