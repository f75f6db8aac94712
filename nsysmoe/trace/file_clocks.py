"""The clocks of files that are one run, put on one by the ends of collectives that ranks share.

All ranks of an all-reduce, all-gather, reduce-scatter or all-to-all end it within microseconds of
one another, whatever their clocks say: how far the ends are apart is how far the clocks are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    Series = Mapping[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]]

# Files of one machine share its clock: only what is more than a ring takes is a clock that is off.
SAME_CLOCK_NS = 25_000
# Ends of one collective stay this close to a line of time; those of two that never met do not.
CLOSEST_NS = 100_000
FEWEST_MEETINGS = 20
_FEWEST_OF_A_SERIES = 4
# The residual holds this part of the ends.
_PART = 0.95
# Ends of neighbouring collectives differ alike (one phase, one load), so that counting each would
# make any drift sure. Runs of them are taken as one observation each.
_BLOCKS = 8
# Student's t, 99 % both ways, of seven degrees of freedom.
_QUANTILE = 3.499
# With these many clocks that are known already a file is compared, those that share most first.
_MOST_TRIED = 32


@dataclass(frozen=True)
class FileClock:
    """How a file's clock is put on that of the run.

    Attributes:
        file: Number of the file.
        reference: The file whose collectives told; None for the first, and where none did.
        meetings: Collectives that the fit rests on.
        zero_ns: The file's own time (UTC, less the run's zero) at which the offset holds.
        offset_ns: What its clock is ahead by at ``zero_ns``, beyond UTC.
        drift_ppm: Change of the offset, us for each second of its own time.
        residual_ns: 95 % of ends lie within this of the fit, that of ``reference`` added: a skew
            below it is not evidence. None where UTC alone is known.
        is_applied: Whether times of the file are corrected by the fit.
    """

    file: int
    reference: int | None = None
    meetings: int = 0
    zero_ns: int = 0
    offset_ns: float = 0.0
    drift_ppm: float = 0.0
    residual_ns: float | None = None
    is_applied: bool = False

    def corrected(self, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return times of the file as the run's clock would have told them, ns."""
        if not self.is_applied:
            return times.astype(np.float64)
        return times - (self.offset_ns + self.drift_ppm / 1e6 * (times - self.zero_ns))


def align_files(ends: pl.DataFrame, machines: Sequence[int]) -> list[FileClock]:
    """Fit the clock of every file to that of the first, through others where they never meet.

    Args:
        ends: Collectives, some of each series: ``file``, ``rank``, ``series`` (kernels of one
            name and communicator), ``launches`` (of the rank in the series), ``ordinal`` (place
            in it), ``end_ns`` (UTC, less the run's zero).
        machines: Number of the machine of each file; files of one share its clock.

    Returns:
        One clock a file, in order. A file that shares no collective with any that is known keeps
        UTC: its ``residual_ns`` is None.
    """
    ranks = _by_rank(ends)
    known = {0: FileClock(0, residual_ns=0.0)}
    waiting = [file for file in range(len(machines)) if file]
    while waiting:
        found = None
        for file in waiting:
            if found := _fitted(file, ranks, known, machines):
                break
        if found is None:
            break
        known[found.file] = found
        waiting.remove(found.file)
    return [known.get(file, FileClock(file)) for file in range(len(machines))]


def _by_rank(ends: pl.DataFrame) -> dict[int, dict[int, Series]]:
    """Return file to rank to (series, launches) to ordinals and ends, in order."""
    found: dict[int, dict[int, dict[tuple[int, int], tuple[NDArray[np.int64], ...]]]] = {}
    keys = ["file", "rank", "series", "launches"]
    for (file, rank, *series), part in ends.sort(*keys, "ordinal").group_by(
        keys, maintain_order=True
    ):
        place = found.setdefault(file, {}).setdefault(rank, {})
        place[series[0], series[1]] = (part["ordinal"].to_numpy(), part["end_ns"].to_numpy())
    return found  # type: ignore[return-value]


def _fitted(
    file: int,
    ranks: Mapping[int, Mapping[int, Series]],
    known: Mapping[int, FileClock],
    machines: Sequence[int],
) -> FileClock | None:
    """Fit a file to the first of the known ones that it shares enough collectives with."""
    for other in list(known)[:_MOST_TRIED]:
        pairs = [
            _differences(ours, theirs, known[other])
            for ours in ranks.get(file, {}).values()
            for theirs in ranks.get(other, {}).values()
        ]
        times = np.concatenate([pair[0] for pair in pairs]) if pairs else np.empty(0, np.int64)
        if times.size < FEWEST_MEETINGS:
            continue
        apart = np.concatenate([pair[1] for pair in pairs])
        own = _line(file, other, times, apart, known[other].residual_ns or 0.0)
        is_other_clock = machines[file] != machines[other] or known[other].is_applied
        edges = np.array([times.min(), times.max()]) - own.zero_ns
        furthest = float(np.abs(own.offset_ns + own.drift_ppm / 1e6 * edges).max())
        if is_other_clock or furthest > SAME_CLOCK_NS:
            return own
        return FileClock(**{**vars(own), "is_applied": False})
    return None


def _differences(
    ours: Series, theirs: Series, clock: FileClock
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return our ends, and how far theirs are before them, of the series that two ranks share."""
    times, apart = [], []
    for key in sorted(ours.keys() & theirs.keys()):
        ordinals, mine, yours = np.intersect1d(
            ours[key][0], theirs[key][0], assume_unique=True, return_indices=True
        )
        if ordinals.size < _FEWEST_OF_A_SERIES:
            continue
        at = ours[key][1][mine]
        between = at - clock.corrected(theirs[key][1][yours])
        if _spread(at, between) <= CLOSEST_NS:
            times.append(at)
            apart.append(between)
    if not times:
        return np.empty(0, np.int64), np.empty(0)
    return np.concatenate(times), np.concatenate(apart)


def _spread(times: NDArray[np.int64], apart: NDArray[np.float64]) -> float:
    """Return the median distance from the line through the differences, ns.

    The line is Theil's and Sen's (the median of all slopes), which late ends do not tilt.
    """
    at = (times - times[0]).astype(np.float64)
    first, second = np.triu_indices(at.size, 1)
    span = at[second] - at[first]
    slopes = (apart[second] - apart[first])[span > 0] / span[span > 0]
    rest = apart - (np.median(slopes) if slopes.size else 0.0) * at
    return float(np.median(np.abs(rest - np.median(rest))))


def _line(
    file: int,
    other: int,
    times: NDArray[np.int64],
    apart: NDArray[np.float64],
    others_residual: float,
) -> FileClock:
    """Fit offset and drift by least squares without outliers."""
    zero = int(times.min())
    at = (times - zero).astype(np.float64)
    kept = np.ones(at.size, bool)
    slope = offset = 0.0
    # One late end (a page fault, another kernel on the same GPU) must not tilt the line.
    for _ in range(3):
        slope, offset = _least_squares(at[kept], apart[kept])
        rest = np.abs(apart - offset - slope * at)
        kept = rest <= 10 * float(np.median(rest)) + 1000
    residual = float(np.quantile(rest, _PART)) + others_residual
    return FileClock(file, other, int(times.size), zero, offset, slope * 1e6, residual, True)


def _least_squares(at: NDArray[np.float64], apart: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and offset of a line; a drift that the ends cannot tell from none is none.

    Its interval must exclude 0, and what it moves ends by, from the middle of the capture to its
    edges, must be more than what they lie from the line.
    """
    middle, mean = float(at.mean()), float(apart.mean())
    slope = _slope(at, apart)
    scatter = float(np.quantile(np.abs(apart - mean - slope * (at - middle)), _PART))
    moved = abs(slope) * float(np.ptp(at)) / 2
    if moved <= scatter or abs(slope) <= _reach(at, apart):
        return 0.0, mean
    return slope, mean - slope * middle


def _slope(at: NDArray[np.float64], apart: NDArray[np.float64]) -> float:
    middle = at - at.mean()
    spread = float((middle**2).sum())
    return float((middle * (apart - apart.mean())).sum()) / spread if spread else 0.0


def _reach(at: NDArray[np.float64], apart: NDArray[np.float64]) -> float:
    """Return half of the slope's interval, by the jackknife over blocks of time (Künsch 1989).

    The blocks follow one another and hold as many ends each; the quantile is Student's.
    """
    if at.size < 2 * _BLOCKS:
        return math.inf
    kept = np.ones(at.size, bool)
    slopes = []
    for block in np.array_split(np.argsort(at, kind="stable"), _BLOCKS):
        kept[block] = False
        slopes.append(_slope(at[kept], apart[kept]))
        kept[block] = True
    error = math.sqrt((_BLOCKS - 1) * float(np.var(slopes)))
    return _QUANTILE * error
