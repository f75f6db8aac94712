"""Two populations in one list of durations: the last resort for telling phases apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Below this ratio of geometric means two populations are one with a tail.
_LEAST_RATIO = 2.0
_FEWEST = 16
_BIN = 0.02
_ROUNDS = 200
_TOLERANCE = 1e-9


def split_durations(durations_ns: Floats, counts: Integers | None = None) -> float | None:
    """Return the duration that parts two populations, or None where there is one.

    Two normal distributions are fitted to the logarithm of the durations by expectation
    maximisation (Dempster, Laird & Rubin 1977), begun at the extremes; the parting is where a
    duration is as likely of one as of the other. Durations within 2 % of one another count
    once: a run is nearly all decode, and the rare prefills would be taken for its tail.

    Args:
        durations_ns: Shape (n,), ns; zeros are left out.
        counts: Shape (n,): how often each occurred; once where left out.

    Returns:
        The parting in ns; None with fewer than 16 durations or hardly any spread, where the
        geometric means differ by less than a factor of two, or where no point between them parts.
    """
    is_long = durations_ns > 0
    launches = durations_ns[is_long]
    if (launches.size if counts is None else counts[is_long].sum()) < _FEWEST:
        return None
    logs = np.log(launches)
    # Counted from the shortest, so that another unit of time parts in the same place.
    logs = np.unique(np.round((logs - logs.min()) / _BIN)) * _BIN + logs.min()
    if logs.size < 4 or float(logs.max() - logs.min()) < math.log(_LEAST_RATIO):
        return None
    means, deviations, weights = _fitted(logs)
    if means[1] - means[0] < math.log(_LEAST_RATIO):
        return None
    between = np.linspace(means[0], means[1], 512)
    upper = np.flatnonzero(
        _log_density(between, means[1], deviations[1], weights[1])
        > _log_density(between, means[0], deviations[0], weights[0])
    )
    return float(np.exp(between[upper[0]])) if upper.size else None


def _fitted(logs: Floats) -> tuple[Floats, Floats, Floats]:
    """Return means, deviations and weights of two normals, the lower mean first."""
    means = np.array([logs.min(), logs.max()])
    deviations = np.full(2, max(float(logs.std()), 1e-6))
    weights = np.array([0.5, 0.5])
    known = -math.inf
    for _ in range(_ROUNDS):
        densities = np.stack(
            [_log_density(logs, means[k], deviations[k], weights[k]) for k in (0, 1)]
        )
        total = np.logaddexp(densities[0], densities[1])
        parts = np.exp(densities - total)
        sizes = np.maximum(parts.sum(axis=1), 1e-12)
        means = parts @ logs / sizes
        spread = (parts * (logs - means[:, None]) ** 2).sum(axis=1) / sizes
        # A population of equal durations has no width, and would swallow the fit.
        deviations = np.sqrt(np.maximum(spread, 1e-4))
        weights = sizes / logs.size
        if abs(float(total.sum()) - known) < _TOLERANCE * logs.size:
            break
        known = float(total.sum())
    order = np.argsort(means)
    return means[order], deviations[order], weights[order]


def _log_density(logs: Floats, mean: float, deviation: float, weight: float) -> Floats:
    standard = (logs - mean) / deviation
    density: Floats = np.log(weight) - 0.5 * standard**2 - np.log(deviation)
    return density
