"""Correlation on data whose correlation is known, and intervals that cover as often as they say."""

from __future__ import annotations

import math
from statistics import correlation as library_pearson
from statistics import linear_regression
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nsysmoe.metrics.statistics.correlation import correlate, ranks, within_fences

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

POINTS = st.lists(
    st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=4, max_size=30
)


def floats(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(values), dtype=np.float64)


def test_a_line_by_hand() -> None:
    """y = 3x - 2 exactly."""
    x = floats([1.0, 2, 4, 8])
    found = correlate(x, 3 * x - 2)
    for estimate, value in ((found.pearson, 1), (found.spearman, 1), (found.slope, 3)):
        assert estimate is not None
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value,) * 3)


def test_five_points_by_hand() -> None:
    """x - mean = -2..2; y = 2, 1, 4, 3, 5 with mean 3: Σ xy = 8, Σ x² = Σ y² = 10.

    r = 0.8 by values and by ranks; slope 0.8; residuals squared Σ y² - 0.8·8 = 3.6, so the error
    is √(3.6 / 3 / 10) and t for 3 degrees of freedom is 3.182446.
    """
    found = correlate(floats(range(5)), floats([2.0, 1, 4, 3, 5]))
    assert found.pearson is not None
    assert found.spearman is not None
    assert found.slope is not None
    assert found.pearson.value == pytest.approx(0.8)
    reach = 1.959964 / math.sqrt(2)
    assert found.pearson.low == pytest.approx(math.tanh(math.atanh(0.8) - reach), abs=1e-6)
    assert found.spearman.value == pytest.approx(0.8)
    ranked = 1.959964 * math.sqrt((1 + 0.32) / 2)
    assert found.spearman.high == pytest.approx(math.tanh(math.atanh(0.8) + ranked), abs=1e-6)
    assert found.slope.value == pytest.approx(0.8)
    assert found.slope.high == pytest.approx(0.8 + 3.182446 * math.sqrt(0.12), abs=1e-5)


def test_equal_values_share_ranks() -> None:
    assert ranks(floats([5.0, 1, 5, 3])).tolist() == [3.5, 1, 3.5, 2]


@settings(max_examples=150)
@given(POINTS)
def test_agrees_with_the_standard_library(points: list[tuple[int, int]]) -> None:
    xs, ys = zip(*points, strict=True)
    assume(len(set(xs)) > 1 and len(set(ys)) > 1)
    found = correlate(floats(xs), floats(ys))
    assert found.pearson is not None
    assert found.slope is not None
    assert found.pearson.value == pytest.approx(library_pearson(xs, ys), abs=1e-12)
    assert found.slope.value == pytest.approx(linear_regression(xs, ys).slope, abs=1e-9)


@settings(max_examples=60)
@given(POINTS)
def test_ranks_survive_what_keeps_order(points: list[tuple[int, int]]) -> None:
    xs, ys = (floats(axis) for axis in zip(*points, strict=True))
    first, second = correlate(xs, ys), correlate(xs**3, np.exp(ys / 500))
    assert first.spearman == second.spearman


def test_what_does_not_vary_has_no_correlation() -> None:
    flat, rising = np.ones(6, dtype=np.float64), floats(range(6))
    assert correlate(flat, rising).pearson is None
    assert correlate(flat, rising).slope is None
    level = correlate(rising, flat)
    assert level.spearman is None
    assert level.slope is not None
    assert (level.slope.value, level.slope.low) == (0, 0)
    assert correlate(rising[:0], flat[:0]).points == 0


def test_fences_by_hand() -> None:
    """1..5 and 100: quartiles 2.25 and 4.75, so the fences are -1.5 and 8.5."""
    axis = floats([1.0, 2, 3, 4, 5, 100])
    flat = floats(range(6))
    expected = [True] * 5 + [False]
    assert within_fences(axis, flat).tolist() == expected
    assert within_fences(flat, axis).tolist() == expected
    on_the_fence = floats([1.0, 2, 3, 4, 5, 8.5])
    assert within_fences(on_the_fence, flat).all()


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.9])
def test_intervals_cover_what_they_say(rho: float) -> None:
    """1500 samples of 16 points, the size of the paper's grid, from a known bivariate normal."""
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((2, 1500, 16))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    covered = {"pearson": 0, "slope": 0}
    for one, other in zip(x, y, strict=True):
        found = correlate(one, other)
        for name in covered:
            estimate = getattr(found, name)
            covered[name] += estimate.low <= rho <= estimate.high
    assert all(0.935 <= number / 1500 <= 0.965 for number in covered.values()), covered
