"""From choices to counts: how many each expert was given, by run, step and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

KEY = ("run", "step", "layer", "expert")
# Counts that wait to be added up; a few hundred MB at most.
_PENDING_ROWS = 4_000_000


def count_choices(batches: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Count, or add up counts, batch by batch, so that a log of any size fits.

    Args:
        batches: ``run``, ``step`` (null where unknown), ``layer``, ``expert``, and ``tokens``
            where they are counts already.

    Returns:
        ``run``, ``step``, ``layer``, ``expert``, ``tokens``; sorted, one row a key.
    """
    parts: list[pl.DataFrame] = []
    pending = 0
    for batch in batches:
        parts.append(_summed(batch))
        pending += parts[-1].height
        if pending > _PENDING_ROWS:
            parts = [_summed(pl.concat(parts))]
            # What cannot be added up any further must not be added up again and again.
            pending = 0
    if not parts:
        return pl.DataFrame(schema={"run": pl.String, "step": pl.Int64, "layer": pl.Int32,
                                    "expert": pl.Int32, "tokens": pl.Int64})  # fmt: skip
    return _summed(pl.concat(parts)).sort(KEY)


def thinned(counts: pl.DataFrame, experts: int, largest: int) -> tuple[pl.DataFrame, int]:
    """Keep evenly spaced steps, so that no more than ``largest`` loads are looked at at once.

    Returns:
        The counts, and of how many steps one is kept.
    """
    steps = counts.select("run", "step").n_unique()
    every = max(1, -(-steps * counts["layer"].n_unique() * experts // largest))
    if every == 1:
        return counts, every
    number = counts.sort("run", "step").with_columns(number=pl.struct("run", "step").rle_id())
    return number.filter(pl.col("number") % every == 0).drop("number"), every


def layer_cubes(
    counts: pl.DataFrame, experts: int
) -> Iterator[tuple[int, pl.DataFrame, NDArray[np.float64]]]:
    """Yield for each layer its steps (``run``, ``step``) and their loads [steps, experts].

    Steps in which the layer counted nothing are left out.
    """
    for layer, part in counts.sort("layer", "run", "step").group_by("layer", maintain_order=True):
        steps = part.select("run", "step").unique(maintain_order=True)
        row = part.select(pl.struct("run", "step").rle_id())["run"].to_numpy()
        loads = np.zeros((steps.height, experts))
        loads[row, part["expert"].to_numpy()] = part["tokens"].to_numpy()
        used = np.flatnonzero(loads.any(axis=1))
        yield int(layer[0]), steps[used], loads[used]


def run_loads(counts: pl.DataFrame, experts: int) -> NDArray[np.float64]:
    """Return the loads of all steps together; shape [layers, experts], in the order of layers."""
    layers = np.sort(counts["layer"].unique().to_numpy())
    loads = np.zeros((layers.size, experts))
    row = np.searchsorted(layers, counts["layer"].to_numpy())
    np.add.at(loads, (row, counts["expert"].to_numpy()), counts["tokens"].to_numpy())
    return loads


def _summed(frame: pl.DataFrame) -> pl.DataFrame:
    value = pl.col("tokens").sum() if "tokens" in frame.columns else pl.len().alias("tokens")
    return frame.group_by(KEY).agg(value.cast(pl.Int64))
