"""Experts that go together: in one token's choice, and from one layer to the next."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nsysmoe.metrics.routed_load.token_sample import Routes

    Floats = NDArray[np.float64]

_HALVINGS = 200
_CHUNK = 1 << 22
# Below it the mean deviation is exact, from there on the normal limit.
_EXACT = 20
_FEWEST = 10


def pair_counts(routes: Routes, experts: int) -> Floats:
    """Count the tokens that chose both experts of a pair.

    Returns:
        Shape [layers, experts, experts], symmetric; 0 on the diagonal, also where a token chose
        one expert twice.
    """
    counts = _Cells(len(routes.layers), experts)
    for one, other in combinations(range(routes.experts.shape[1]), 2):
        counts.add(routes.layer, routes.experts[:, one], routes.experts[:, other])
    found = counts.cells
    found += found.transpose(0, 2, 1).copy()
    found[:, np.arange(experts), np.arange(experts)] = 0
    return found


def expected_pairs(pairs: Floats) -> Floats:
    """Return the pairs of a router that has favourites but no favourite pairs.

    Quasi-independence (Goodman 1968) of a symmetric table without its diagonal: cell (i, j) is
    u_i u_j with the sums of the rows as observed. Plain products of shares would not do: a token
    chooses different experts, so that pairs of an even router come out at
    (k - 1) E / (k (E - 1)) of them.

    Args:
        pairs: What ``pair_counts`` returned.
    """
    weights = np.stack([_weights(rows) for rows in pairs.sum(axis=-1)])
    expected: Floats = weights[:, :, None] * weights[:, None, :]
    experts = pairs.shape[-1]
    expected[:, np.arange(experts), np.arange(experts)] = 0
    return expected


def transition_counts(routes: Routes, experts: int) -> Floats:
    """Count choices of an expert in a layer with choices of an expert in the next, by one token.

    Returns:
        Shape [layers - 1, experts, experts]: from the expert of layer l (as the log has them) to
        that of layer l + 1.
    """
    follows = np.flatnonzero(
        (routes.token[1:] == routes.token[:-1]) & (routes.layer[1:] == routes.layer[:-1] + 1)
    )
    counts = _Cells(max(0, len(routes.layers) - 1), experts)
    top_k = routes.experts.shape[1]
    for one in range(top_k):
        for other in range(top_k):
            counts.add(
                routes.layer[follows],
                routes.experts[follows, one],
                routes.experts[follows + 1, other],
            )
    return counts.cells


def expected_transitions(transitions: Floats) -> Floats:
    """Return what independent layers would give: row sums x column sums / total."""
    total = transitions.sum(axis=(-2, -1), keepdims=True)
    products = transitions.sum(axis=-1, keepdims=True) * transitions.sum(axis=-2, keepdims=True)
    expected: Floats = np.divide(products, total, out=np.zeros_like(products), where=total > 0)
    return expected


def strength(observed: Floats, expected: Floats) -> tuple[Floats, Floats]:
    """Return how far counts are from what is expected, and how far chance alone takes them.

    The first is the total variation distance, the share of counts that would have to move; the
    second its mean where every cell is Poisson: a floor, since tokens of a prompt choose alike.

    Args:
        observed: Shape [..., experts, experts].
        expected: The same shape.

    Returns:
        Two of shape [...]; NaN without counts.
    """
    total = 2 * observed.sum(axis=(-2, -1))
    far = np.abs(observed - expected).sum(axis=(-2, -1))
    noise = poisson_deviation(expected).sum(axis=(-2, -1))
    nothing = np.full(total.shape, np.nan)
    return (
        np.divide(far, total, out=nothing.copy(), where=total > 0),
        np.divide(noise, total, out=nothing.copy(), where=total > 0),
    )


def strongest(observed: Floats, expected: Floats, count: int) -> list[dict[str, Any]]:
    """Return the cells that stand out most above what is expected, by (O - E) / √E.

    Args:
        observed: Shape [layers, experts, experts].
        expected: The same.
        count: How many.

    Returns:
        ``place`` (of the layer), ``one``, ``other``, ``tokens``, ``expected``, ``lift``
        (observed / expected), ``z``. Cells with fewer than ten tokens are left out.
    """
    scores = np.zeros_like(observed)
    is_large = (observed >= _FEWEST) & (expected > 0)
    np.divide(observed - expected, np.sqrt(expected), out=scores, where=is_large)
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    found = []
    for place, one, other in zip(*np.unravel_index(order, scores.shape), strict=True):
        tokens, even = float(observed[place, one, other]), float(expected[place, one, other])
        if scores[place, one, other] > 0:
            found.append(
                {"place": int(place), "one": int(one), "other": int(other), "tokens": round(tokens),
                 "expected": even, "lift": tokens / even, "z": float(scores[place, one, other])}
            )  # fmt: skip
    return found


def poisson_deviation(mean: Floats) -> Floats:
    """Return the mean absolute deviation of a Poisson count from its mean.

    2 exp(-m) m^(f + 1) / f!, f the floor of m (de Moivre; Diaconis and Zabell 1991); above 20
    √(2 m / π), which is then within 0.5 %.
    """
    floor = np.minimum(np.floor(mean), _EXACT).astype(np.int64)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, _EXACT + 1)]))
    small = np.minimum(mean, _EXACT)
    exact = 2 * np.exp(-small) * small ** (floor + 1) / factorials[floor]
    large = np.maximum(mean, _EXACT)
    found: Floats = np.where(mean < _EXACT, exact, np.sqrt(2 * large / np.pi))
    return found


class _Cells:
    """Counts of pairs of experts by layer."""

    def __init__(self, layers: int, experts: int) -> None:
        self.cells: Floats = np.zeros((layers, experts, experts))

    def add(
        self, layer: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> None:
        _, experts, _ = self.cells.shape
        flat = self.cells.reshape(-1)
        for first in range(0, len(layer), _CHUNK):
            part = slice(first, first + _CHUNK)
            index = (layer[part] * experts + one[part]) * experts + other[part]
            flat += np.bincount(index, minlength=flat.size)


def _weights(sums: Floats) -> Floats:
    """Return u with u_i (Σ u - u_i) equal to the sums of the rows.

    With S = Σ u each u_i is a root of u (S - u) = r_i: the smaller one, but for the largest where
    one expert is in most pairs. S is found by halving.
    """
    if not sums.any():
        return np.zeros_like(sums)
    largest = int(sums.argmax())
    lowest = 2 * float(np.sqrt(sums[largest]))

    def excess(total: float) -> float:
        roots = _smaller_roots(sums, total)
        return float(roots.sum()) - total if is_even else _of_others(roots, largest)

    is_even = True
    is_even = excess(lowest) >= 0
    low, high = lowest, 1e9 * lowest
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        # The one falls through 0 as S grows, the other rises.
        if (excess(middle) > 0) == is_even:
            low = middle
        else:
            high = middle
    roots = _smaller_roots(sums, high)
    if not is_even:
        roots[largest] = sums[largest] / roots[largest]
    return roots


def _smaller_roots(sums: Floats, total: float) -> Floats:
    # 2 r / (S + √(S² - 4 r)): no difference of nearly equal numbers.
    inside = np.maximum(total * total - 4 * sums, 0)
    roots: Floats = 2 * sums / (total + np.sqrt(inside))
    return roots


def _of_others(roots: Floats, largest: int) -> float:
    return float(roots.sum() - 2 * roots[largest])
