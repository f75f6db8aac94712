"""View ``clocks``: offsets and drifts that were put in come back within their own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nsysmoe
from fixtures.builder import TraceBuilder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Times = NDArray[np.float64]
    Clocks = Callable[["list[Callable[[Times], Times]]"], "list[dict[str, Any]]"]

REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
US, MS, SECOND = 1e3, 1e6, 1e9
MEETINGS, LASTS, NOISE = 64, 20 * SECOND, 2 * US
# The difference of two ends.
SCATTER = NOISE * 2**0.5
TRUE = (np.arange(MEETINGS) + np.random.default_rng(4).uniform(size=MEETINGS)) * LASTS / MEETINGS


@pytest.fixture
def fitted(written: Callable[[TraceBuilder], Path]) -> Clocks:
    """Return the rows of the view for clocks that tell TRUE and, a rank, what they are told to."""

    def fit(clocks: list[Callable[[Times], Times]]) -> list[dict[str, Any]]:
        chance, build = np.random.default_rng(9), TraceBuilder()
        for device, clock in enumerate([lambda at: at, *clocks]):
            for end in np.rint(clock(TRUE) + chance.normal(0, NOISE, MEETINGS)).astype(int):
                build.kernel(REDUCE, int(end) - 50_000, 50_000, device=device, pid=1000 + device)
        with nsysmoe.open(written(build)) as trace:
            return trace.frame("clocks").sort("rank").to_dicts()

    return fit


def fit_at(row: dict[str, Any], told: Times) -> Times:
    """Return how far ahead the fit takes a clock for that tells these times."""
    fit: Times = row["offset_ns"] + row["drift_ppm"] / 1e6 * (told - row["zero_ns"])
    return fit


PLANTED = [(5 * MS, 50.0), (-3 * MS, -35.0), (0.2 * MS, 5.0), (900 * MS, 0.0), (-40 * US, 0.5)]


def test_an_offset_and_a_drift_are_found_within_the_error_of_the_fit(fitted: Clocks) -> None:
    found = fitted(
        [
            lambda at, ahead=ahead, drift=drift: at * (1 + drift / 1e6) + ahead  # type: ignore[misc]
            for ahead, drift in PLANTED
        ]
    )
    # Of least squares, by the textbook: s / sqrt(sum of squares), s sqrt(1 / n + mean^2 / sum).
    squares = float(((TRUE - TRUE.mean()) ** 2).sum())
    of_drift = SCATTER / squares**0.5 * 1e6
    of_offset = SCATTER * (1 / MEETINGS + (TRUE.mean() - TRUE[0]) ** 2 / squares) ** 0.5
    assert of_drift < 0.07
    assert [row["rank"] for row in found] == list(range(len(PLANTED) + 1))
    for row, (ahead, drift) in zip(found[1:], PLANTED, strict=True):
        # A drift is told for each second of the clock that drifts.
        slope = drift / 1e6 / (1 + drift / 1e6)
        assert row["drift_ppm"] == pytest.approx(slope * 1e6, abs=4 * of_drift)
        at_zero = ahead + slope * (row["zero_ns"] - ahead)
        assert row["offset_ns"] == pytest.approx(at_zero, abs=4 * of_offset)
        # 95 % of what is normal lies within 1.96 deviations.
        assert row["residual_ns"] == pytest.approx(1.96 * SCATTER, rel=0.35)
        assert row["is_applied"]
        told = TRUE * (1 + drift / 1e6) + ahead
        assert np.abs(fit_at(row, told) - (told - TRUE)).max() <= row["residual_ns"]


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
def test_a_clock_that_was_set_midway_is_not_applied(fitted: Clocks, part: float) -> None:
    """NTP sets a clock that is off by more than 128 ms at once; less is never set, but slewed."""

    def stepped(step: float) -> Callable[[Times], Times]:
        return lambda at: at + 5 * MS + np.where(at >= part * LASTS, step, 0.0)

    sizes = [0.2 * MS, 2 * MS, 130 * MS, -130 * MS]
    for row, size in zip(fitted([stepped(size) for size in sizes])[1:], sizes, strict=True):
        assert not row["is_applied"]
        assert row["residual_ns"] > min(abs(size) / 10, 25 * US)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("step", [20 * US, 60 * US])
def test_what_a_small_step_leaves_is_in_the_residual(
    fitted: Clocks, part: float, step: float
) -> None:
    def told(at: Times) -> Times:
        set_: Times = at + 5 * MS + np.where(at >= part * LASTS, step, 0.0)
        return set_

    (_, row) = fitted([told])
    off = np.abs(fit_at(row, told(TRUE)) - (told(TRUE) - TRUE))
    assert (off <= row["residual_ns"]).mean() >= 0.9
    assert row["is_applied"] == (row["residual_ns"] <= 25 * US)


def test_a_clock_that_is_slewed_is_followed_to_its_residual(fitted: Clocks) -> None:
    """NTP slews by 500 ppm: 20 us are gone after 40 ms, 2 ms after 4 s of these 20."""

    def told(at: Times) -> Times:
        slewed: Times = at + 5 * MS - np.minimum(at * 500e-6, 2 * MS)
        return slewed

    (_, row) = fitted([told])
    off = np.abs(fit_at(row, told(TRUE)) - (told(TRUE) - TRUE))
    assert (off <= row["residual_ns"]).mean() >= 0.9
    assert not row["is_applied"]


def test_a_clock_that_moves_as_far_as_collectives_that_never_met_is_refused(
    fitted: Clocks,
) -> None:
    """From one of these meetings to the next 200 ppm are 60 us."""
    assert [row["rank"] for row in fitted([lambda at: at * 1.0002, lambda at: at])] == [0, 2]
