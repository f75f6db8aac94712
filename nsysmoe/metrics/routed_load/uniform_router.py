"""Arithmetic against pathology: the imbalance that a perfectly uniform router would show.

Each token chooses k different experts of E with equal chance. Few choices are lumpy even then:
a decode batch looks imbalanced whatever the router does.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.routed_load.load_balance import MEASURES, mean_known

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_DRAWS = 64
# Random numbers of one simulation at most (a quarter of a second); larger batches are drawn from
# the normal distribution that their counts approach.
_LARGEST = 1 << 23
_CHUNK = 1 << 20
# Batch sizes that are simulated where a log has more; between them lies a line over 1 / sqrt.
_SIZES = 24
# Simulations that are held: every measure of a log, and every size of a sweep, asks for the same.
_HELD = 64


def expected_cv(tokens: float, top_k: int, experts: int) -> float | None:
    """Return the root mean square of the CV over experts: sqrt((E / k - 1) / tokens), exact.

    An expert's count is binomial (tokens, k / E): its variance over its squared mean.
    """
    if tokens <= 0 or not 0 < top_k <= experts:
        return None
    return math.sqrt((experts / top_k - 1) / tokens)


@lru_cache(maxsize=_HELD)
def simulate(tokens: int, top_k: int, experts: int, draws: int = _DRAWS) -> NDArray[np.float64]:
    """Return loads of a uniform router; shape [draws, experts], read-only.

    Exact draws of k different experts a token, or beyond ``_LARGEST`` random numbers the normal
    limit with the same variances and correlations (their sum is fixed). Equal arguments give
    equal draws.
    """
    random = np.random.default_rng([tokens, top_k, experts])
    if tokens * experts * draws > _LARGEST:
        loads = _normal(tokens, top_k, experts, draws, random)
    else:
        loads = _exact(tokens, top_k, experts, draws, random)
    loads.flags.writeable = False
    return loads


def _exact(
    tokens: int, top_k: int, experts: int, draws: int, random: np.random.Generator
) -> NDArray[np.float64]:
    loads = np.zeros(draws * experts)
    for first in range(0, draws * tokens, max(1, _CHUNK // experts)):
        count = min(max(1, _CHUNK // experts), draws * tokens - first)
        chosen = random.random((count, experts)).argpartition(top_k - 1, axis=1)[:, :top_k]
        draw = (first + np.arange(count)) // tokens
        # Several times as fast as add.at.
        cell = draw[:, None] * experts + chosen
        loads += np.bincount(cell.ravel(), minlength=loads.size)
    return loads.reshape(draws, experts)


def baseline(
    batches: Sequence[int] | NDArray[np.int64],
    top_k: int,
    experts: int,
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return the mean of a measure under a uniform router, for every batch.

    Args:
        batches: Tokens of each batch; 0 gives NaN.
        top_k: Experts a token.
        experts: Experts of a layer.
        measure: From loads [..., experts] to [...].

    Returns:
        Shape of ``batches``.
    """
    sizes = np.asarray(batches, dtype=np.int64)
    used = np.unique(sizes[sizes > 0])
    result: NDArray[np.float64] = np.full(sizes.shape, np.nan)
    if not used.size:
        return result
    if used.size > _SIZES:
        picked = np.geomspace(used[0], used[-1], _SIZES)
        used = np.unique(np.rint(picked).astype(np.int64))
    values = [mean_known(measure(simulate(int(size), top_k, experts))) for size in used]
    # Ascending, as interp wants it: from the largest batch to the smallest.
    roots, heights = 1 / np.sqrt(used[::-1]), np.array(values[::-1], dtype=np.float64)
    result[sizes > 0] = np.interp(1 / np.sqrt(sizes[sizes > 0]), roots, heights)
    return result


def sweep(batches: Sequence[int], top_k: int, experts: int) -> list[dict[str, float | int | None]]:
    """Return what a uniform router shows at each batch size.

    Returns:
        ``tokens``, ``expected_cv`` (exact, falls as 1 / sqrt(tokens)), and the mean of each of
        ``MEASURES`` over simulated batches.
    """
    return [
        {
            "tokens": tokens,
            "expected_cv": expected_cv(tokens, top_k, experts),
            **{name: mean_known(measure(loads)) for name, measure in MEASURES.items()},
        }
        for tokens in batches
        for loads in [simulate(tokens, top_k, experts)]
    ]


def _normal(
    tokens: int, top_k: int, experts: int, draws: int, random: np.random.Generator
) -> NDArray[np.float64]:
    chance = top_k / experts
    noise = random.standard_normal((draws, experts))
    # Counts add up to tokens x k, so deviations add up to 0; what that takes off is given back.
    noise -= noise.mean(axis=1, keepdims=True)
    scale = math.sqrt(tokens * chance * (1 - chance) * experts / max(experts - 1, 1))
    loads: NDArray[np.float64] = np.maximum(tokens * chance + scale * noise, 0)
    return loads
