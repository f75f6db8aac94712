"""How two measures go together: correlation, rank correlation, slope, and what the IQR rule drops.

Each comes with a 95 % interval, or is None where it is not defined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.statistics.uncertainty import student_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FENCE = 1.5
LEVEL = 0.95
# Fisher's transformation has a deviation of 1 / √(n - 3); a slope has n - 2 degrees of freedom.
MIN_FOR_INTERVAL = 4
MIN_FOR_SLOPE = 3


@dataclass(frozen=True)
class Estimate:
    """A value and the 95 % interval that it lies in; both ends None for too few points."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Correlation:
    """How y goes with x.

    Attributes:
        points: How many.
        pearson: Linear correlation, -1 to 1; None where x or y does not vary.
        spearman: Rank correlation.
        slope: Change of y with x by least squares, in units of y a unit of x.
    """

    points: int
    pearson: Estimate | None
    spearman: Estimate | None
    slope: Estimate | None


def correlate(x: Floats, y: Floats) -> Correlation:
    """Return how y goes with x; both finite and of one length."""
    if len(x) < 2 or _is_constant(x) or _is_constant(y):
        return Correlation(len(x), None, None, _slope(x, y))
    linear, ranked = _pearson(x, y), _pearson(ranks(x), ranks(y))
    return Correlation(
        points=len(x),
        pearson=_with_interval(linear, len(x), 1.0),
        # Bonett and Wright 2000, "Sample Size Requirements for Estimating Pearson, Kendall and
        # Spearman Correlations": ranks have the variance (1 + r²/2) / (n - 3).
        spearman=_with_interval(ranked, len(x), 1 + ranked**2 / 2),
        slope=_slope(x, y),
    )


def within_fences(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Return which points the paper keeps: on both axes within 1.5 IQR of the quartiles.

    Quartiles are of all points, by linear interpolation, and the rule is applied once (section
    6.3). A point on a fence stays.
    """
    return _is_within(x) & _is_within(y)


def ranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)


def _is_within(values: Floats) -> NDArray[np.bool_]:
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    low, high = np.quantile(values, [0.25, 0.75])
    reach = FENCE * (high - low)
    return np.asarray((values >= low - reach) & (values <= high + reach), dtype=bool)


def _is_constant(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _pearson(x: Floats, y: Floats) -> float:
    from_x, from_y = x - x.mean(), y - y.mean()
    # Each scaled on its own: products of small numbers would be lost.
    found = float((from_x / np.linalg.norm(from_x)) @ (from_y / np.linalg.norm(from_y)))
    return min(max(found, -1.0), 1.0)


def _with_interval(value: float, n: int, variance: float) -> Estimate:
    """Return the interval by Fisher's z (1921): tanh(artanh r ± 1.96 √(variance / (n - 3)))."""
    if n < MIN_FOR_INTERVAL:
        return Estimate(value, None, None)
    if abs(value) == 1:
        return Estimate(value, value, value)
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance / (n - 3))
    centre = math.atanh(value)
    return Estimate(value, math.tanh(centre - reach), math.tanh(centre + reach))


def _slope(x: Floats, y: Floats) -> Estimate | None:
    """Return the slope by least squares with Student's t; None where x does not vary."""
    n = len(x)
    if n < 2 or _is_constant(x):
        return None
    from_x, from_y = x - x.mean(), y - y.mean()
    squares = float(from_x @ from_x)
    slope = float(from_x @ from_y) / squares
    if n < MIN_FOR_SLOPE:
        return Estimate(slope, None, None)
    left = from_y - slope * from_x
    error = math.sqrt(float(left @ left) / (n - 2) / squares)
    reach = student_quantile((1 + LEVEL) / 2, n - 2) * error
    return Estimate(slope, slope - reach, slope + reach)
