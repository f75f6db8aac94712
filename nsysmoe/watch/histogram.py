"""Prometheus's cumulative histograms: what came between two looks, and its quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Cumulative counts by upper bound, ascending, the last bound infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Observations."""
        return self.counts[-1] if self.counts else 0.0

    def since(self, earlier: Histogram | None) -> Histogram:
        """Return what came since an earlier look; all of it where the server began anew."""
        if earlier is None or earlier.bounds != self.bounds:
            return self
        counts = tuple(now - was for now, was in zip(self.counts, earlier.counts, strict=True))
        return self if min(counts, default=0) < 0 else Histogram(self.bounds, counts)

    def quantile(self, share: float) -> float | None:
        """Return a quantile, linear within its bucket, as Prometheus's histogram_quantile does.

        None without observations; the last finite bound where it lies above it: at least that.
        """
        if self.total <= 0:
            return None
        wanted = share * self.total
        lower, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= wanted and count > below:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * (wanted - below) / (count - below)
            if not math.isinf(bound):
                lower, below = bound, count
        return lower


def added(parts: list[Histogram]) -> Histogram | None:
    """Return the sum over engines with the same bounds; None without any."""
    if not parts:
        return None
    first = parts[0]
    alike = [one for one in parts if one.bounds == first.bounds]
    counts = tuple(sum(column) for column in zip(*(one.counts for one in alike), strict=True))
    return Histogram(first.bounds, counts)
