"""Which experts are popular, how that shifts between domains, and what prefill tells of decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.statistics.correlation import ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DRAWS = 200


def js_distance(one: Floats, other: Floats) -> Floats:
    """Return the Jensen-Shannon distance of popularity: 0 is equal, 1 has no expert in common.

    The square root of the divergence with logarithms to base 2 (Endres and Schindelin 2003).

    Args:
        one: Loads, shape [..., experts].
        other: The same.

    Returns:
        Shape [...]; NaN where one has no load.
    """
    p, q = shares(one), shares(other)
    middle = (p + q) / 2
    divergence = (_divergence(p, middle) + _divergence(q, middle)) / 2
    distance: Floats = np.sqrt(np.clip(divergence, 0, 1))
    return distance


def shares(loads: Floats) -> Floats:
    """Return loads over their sum; NaN where that is 0."""
    total = np.asarray(loads, dtype=np.float64).sum(axis=-1, keepdims=True)
    nothing: Floats = np.full(np.shape(loads), np.nan)
    return np.asarray(np.divide(loads, total, out=nothing, where=total > 0))


def shifts(loads: Floats) -> Floats:
    """Return the distance of every pair of groups (i < j, in order) in every layer.

    Args:
        loads: Shape [groups, layers, experts].

    Returns:
        Shape [pairs, layers].
    """
    first, second = np.triu_indices(len(loads), 1)
    return js_distance(loads[first], loads[second])


def shifts_by_chance(units: Floats, group: NDArray[np.int64], draws: int = _DRAWS) -> Floats:
    """Return the mean distance over layers of every pair, with units dealt to groups at random.

    Groups keep their number of units. Tokens of one request choose alike, so that requests are
    dealt, not tokens: few requests look like domains of their own.

    Args:
        units: Loads of each unit, shape [units, layers, experts].
        group: Number of each unit's group, from 0, shape [units].
        draws: Permutations; equal arguments give equal ones.

    Returns:
        Shape [draws, pairs].
    """
    count, layers, experts = units.shape
    flat = units.reshape(count, -1)
    random = np.random.default_rng(count)
    numbers = np.arange(int(group.max()) + 1)[:, None]
    found = []
    for _ in range(draws):
        dealt = (random.permutation(group)[None] == numbers).astype(flat.dtype)
        summed = (dealt @ flat).reshape(-1, layers, experts)
        found.append(mean_over_layers(shifts(summed)))
    return np.array(found)


def mean_over_layers(values: Floats) -> Floats:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    nothing: Floats = np.full(count.shape, np.nan)
    return np.asarray(np.divide(total, count, out=nothing, where=count > 0))


def pearson(one: Floats, other: Floats) -> Floats:
    """Return the linear correlation over experts, [...]; NaN where one of the two is even."""
    x = one - one.mean(axis=-1, keepdims=True)
    y = other - other.mean(axis=-1, keepdims=True)
    below = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    nothing: Floats = np.full(below.shape, np.nan)
    found = np.divide((x * y).sum(axis=-1), below, out=nothing, where=below > 0)
    return np.asarray(np.clip(found, -1, 1))


def spearman(one: Floats, other: Floats) -> Floats:
    """Return the correlation of ranks over experts; equal loads share the mean of theirs."""
    return pearson(*(np.apply_along_axis(ranks, -1, loads) for loads in (one, other)))


def top_overlap(one: Floats, other: Floats, top: int) -> Floats:
    """Return the share of the ``top`` most popular experts that both have in common.

    Experts without load are in no top. Of equal loads the lower number comes first. By chance:
    top / experts.
    """
    both = _is_top(one, top) & _is_top(other, top)
    used = (one.sum(axis=-1) > 0) & (other.sum(axis=-1) > 0)
    return np.asarray(np.where(used, both.sum(axis=-1) / top, np.nan))


def agreement(top: int) -> dict[str, Callable[[Floats, Floats], Floats]]:
    """Return the three measures of how popularity in one phase goes with that in another.

    They answer different questions and disagree: shares (Pearson, which hot experts decide), order
    (Spearman, which cold ones decide as much), and who is hot (overlap).
    """
    return {
        "pearson": pearson,
        "spearman": spearman,
        "top_overlap": lambda one, other: top_overlap(one, other, top),
    }


def _is_top(loads: Floats, top: int) -> NDArray[np.bool_]:
    found = np.zeros(loads.shape, dtype=bool)
    order = np.argsort(-loads, axis=-1, kind="stable")[..., :top]
    np.put_along_axis(found, order, values=True, axis=-1)
    return found & (loads > 0)


def _divergence(p: Floats, middle: Floats) -> Floats:
    """Return Kullback and Leibler's divergence from the middle, in bits."""
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))
