"""How sure a relative change is: intervals over runs, and over the steps of one run.

Both kinds are percentile bootstraps of the logarithm of candidate / baseline, each arm resampled
on its own, with one remedy for small samples (``_interval``). An interval over runs speaks of what
another run would bring. One over steps speaks of other steps of the same two runs: what differs
from start to start (placement, clocks, neighbours) is not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Totals = Mapping[str, Floats]

MIN_RUNS = 3
MIN_STEPS = 8
CHUNK_BYTES = 64 * 2**20
POWER = 0.8
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a relative change, candidate / baseline - 1 (0.01 is 1 %)."""

    low: float
    high: float
    level: float
    over: Literal["runs", "steps"]
    baseline_n: int
    candidate_n: int

    def excludes_zero(self) -> bool:
        """Tell whether "no change" lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Steps:
    """What was measured in each step of one run, in order of time; float64, one value a step.

    Attributes:
        strata: The phase of each step.
        sums: What adds up over steps (launches, ns, ns²), by name. A NaN leaves no interval.
        highs: The maximum within each step, by name; NaN for a step without launches.
        lows: The minimum within each step, likewise. A name stands in one of the three only.
    """

    strata: tuple[str, ...]
    sums: Mapping[str, Floats] = field(default_factory=dict)
    highs: Mapping[str, Floats] = field(default_factory=dict)
    lows: Mapping[str, Floats] = field(default_factory=dict)


def interval_over_runs(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Return the interval of mean(candidate) / mean(baseline) - 1; the run is the unit.

    Args:
        baseline: One value a run, in any unit; positive.
        candidate: The same of the other arm.
        level: The part of intervals that are to hold the truth.
        resamples: Bootstrap resamples of each arm.
        seed: Of a generator of its own: the same input gives the same interval.

    Returns:
        The percentile bootstrap, stretched as ``_interval`` says. Of 4000 simulated pairs of arms
        of n runs (noise of 0.5 and 10 %, normal and lognormal) this part held the truth, in %, and
        the intervals were this wide relative to Welch's t:

        ==============================  =======  =======  =======  =======  =======
        method                          n = 3    4        5        8        10
        ==============================  =======  =======  =======  =======  =======
        percentile                      80       85       88       91       92
        expanded levels, Hesterberg     88-90    95       96       96       96
        bootstrap-t                     98       96       95-96    95       95
        stretched percentile (this)     96       95-96    95-96    95       95
        width: bootstrap-t, this        1.5, 1   1.1, 1   1.1, 1   1.0, 1   1.0, 1
        ==============================  =======  =======  =======  =======  =======

        Expanded levels (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section
        5.1) cannot reach beyond the runs' own range: at n = 3 that covers 90 % at most. Arms that
        differ in n or noise get 93-96 % from this method, 80-98 % from expanded levels.

        None where there is no interval to give: fewer than 3 runs in an arm (two have one degree
        of freedom, where t is 12.7, and three distinct resamples), a value that is not finite or
        not positive (its logarithm is not defined). Arms without any spread give [change,
        change], and so does a candidate that is 0 in every run.
    """
    arms = [np.asarray(arm, dtype=np.float64) for arm in (baseline, candidate)]
    if min(len(arm) for arm in arms) < MIN_RUNS:
        return None
    # An overflowing mean is not finite either, and is refused by _interval.
    with np.errstate(over="ignore", invalid="ignore"):
        means = [float(arm.mean()) for arm in arms]
    if not (np.isfinite(means).all() and means[0] > 0 and _are_positive_or_all_zero(arms[1])):
        return None
    rng = np.random.default_rng(seed)
    drawn = [arm[rng.integers(0, len(arm), (resamples, len(arm)))].mean(axis=1) for arm in arms]
    change = means[1] / means[0] - 1
    bounds = (
        _interval(drawn[0], drawn[1], change, (len(baseline), len(candidate)), level)
        if arms[0].min() > 0
        else None
    )
    return bounds and Interval(*bounds, level, "runs", len(baseline), len(candidate))
