"""Improvements over ReLU in Table 2, which the paper's Figures 1 and 5 show."""

import math
from collections.abc import Sequence

from tools.paper.numbers import Place
from tools.tables.numbers import Number, Numbers, TableNumbers

TABLE = 2
BASELINE = "ReLU"
Improvements = dict[str, dict[str, Number | None]]  # by activation function and network


def difference(number: Number, baseline: Number) -> Number:
    """Return how much `number` is above `baseline`, with the runs of both.

    The spread is the root of the sum of both variances, as for independent runs; None if either has none.
    """
    spread = None
    if number.spread is not None and baseline.spread is not None:
        spread = math.hypot(number.spread, baseline.spread)
    return Number(number.mean - baseline.mean, spread, (*number.runs, *baseline.runs))


def over_relu(places: Sequence[Place], numbers: Numbers) -> Improvements:
    """Return the improvements in percentage points; None where the number or that of ReLU is missing."""
    found: Improvements = {}
    for place in places:
        if place.row != BASELINE:
            number = numbers.get(place)
            baseline = numbers.get(Place(TABLE, BASELINE, place.column, place.metric))
            improvement = difference(number, baseline) if number and baseline else None
            found.setdefault(place.row, {})[place.column] = improvement
    return found


def sides(numbers: TableNumbers) -> dict[str, Improvements]:
    """Return the improvements of the paper and ours, by the title of their panels."""
    return {title: over_relu(numbers.places, side) for title, side in numbers.sides.items()}
