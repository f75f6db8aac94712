"""Plans judged on steps that they were not made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

_DRAWS = 2000
_LEVEL = 95.0
# Numbers of a cube: 256 MB, and several times as much where plans are judged on it. Of more steps
# evenly spaced ones are taken.
LARGEST = 1 << 25


def step_cube(counts: pl.DataFrame, experts: int) -> NDArray[np.float64]:
    """Return the loads of every step; shape [steps, layers, experts].

    Args:
        counts: ``run``, ``step``, ``layer``, ``expert``, ``tokens``.
        experts: Logical experts of a layer.
    """
    layers = np.sort(counts["layer"].unique().to_numpy())
    ordered = counts.sort("run", "step", maintain_order=True)
    number = ordered.select("run", "step").to_struct("cell").rle_id().to_numpy()
    steps = int(number[-1]) + 1
    every = -(-steps * layers.size * experts // LARGEST)
    taken = number % every == 0
    cube = np.zeros((-(-steps // every), layers.size, experts))
    layer = np.searchsorted(layers, ordered["layer"].to_numpy())
    where = (number // every)[taken], layer[taken], ordered["expert"].to_numpy()[taken]
    np.add.at(cube, where, ordered["tokens"].to_numpy()[taken])
    return cube


def saved(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    strata: NDArray[np.object_] | None = None,
) -> tuple[float, tuple[float, float] | None]:
    """Return the share that is saved, 1 - sum after / sum before, and its 95 % interval.

    The interval is a bootstrap over steps (fixed draws); None with fewer than two steps.

    Args:
        before: Cost of each step now; their sum is above 0.
        after: Cost of the same steps under another placement.
        strata: Phase of each step; each is resampled by itself, so that every resample has as
            many steps of it as the run.
    """
    share = 1 - float(after.sum() / before.sum())
    if before.size < 2:
        return share, None
    random = np.random.default_rng(0)
    kinds = np.zeros(before.size) if strata is None else strata
    picked = np.empty((_DRAWS, before.size), dtype=np.int64)
    for kind in np.unique(kinds):
        inside = np.flatnonzero(kinds == kind)
        picked[:, inside] = random.choice(inside, (_DRAWS, inside.size))
    totals = before[picked].sum(axis=1)
    drawn = 1 - after[picked].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(drawn, [50 - _LEVEL / 2, 50 + _LEVEL / 2])
    return share, (float(low), float(high))
