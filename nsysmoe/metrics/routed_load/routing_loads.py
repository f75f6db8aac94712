"""From choices to counts: how many each expert was given, by run, step and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

KEY = ("run", "step", "layer", "expert")
SCHEMA: dict[str, Any] = {
    "run": pl.String,
    "step": pl.Int64,
    "layer": pl.Int32,
    "expert": pl.Int32,
    "padding": pl.Boolean,
    "phase": pl.String,
    "domain": pl.String,
    "tokens": pl.Int64,
}
# Counts that wait to be added up; a few hundred MB at most.
_PENDING_ROWS = 4_000_000


class ChoiceCounts:
    """Counts choices, or adds up counts, batch by batch, so that a log of any size fits.

    Args:
        key: Columns to count by, among those of ``SCHEMA`` and others of its types.
    """

    def __init__(self, key: Sequence[str] = KEY) -> None:
        self._key = tuple(key)
        self._parts: list[pl.DataFrame] = []
        self._pending = 0

    def add(self, batch: pl.DataFrame) -> None:
        """Count a batch: the columns of the key, and ``tokens`` where they are counts already."""
        self._parts.append(self._summed(batch))
        self._pending += self._parts[-1].height
        if self._pending > _PENDING_ROWS:
            self._parts = [self._summed(pl.concat(self._parts))]
            # What cannot be added up any further must not be added up again and again.
            self._pending = 0

    def counts(self) -> pl.DataFrame:
        """Return the key's columns and ``tokens``; sorted, one row a key."""
        if not self._parts:
            return pl.DataFrame(schema={name: SCHEMA[name] for name in (*self._key, "tokens")})
        return self._summed(pl.concat(self._parts)).sort(self._key)

    def _summed(self, frame: pl.DataFrame) -> pl.DataFrame:
        value = pl.col("tokens").sum() if "tokens" in frame.columns else pl.len().alias("tokens")
        return frame.group_by(self._key).agg(value.cast(pl.Int64))


def count_choices(batches: Iterable[pl.DataFrame], key: Sequence[str] = KEY) -> pl.DataFrame:
    """Count what ``ChoiceCounts`` counts, over batches that are at hand.

    Args:
        batches: ``run``, ``step`` (null where unknown), ``layer``, ``expert``, and ``tokens``
            where they are counts already.
        key: Columns to count by.

    Returns:
        The key's columns and ``tokens``; sorted, one row a key.
    """
    counter = ChoiceCounts(key)
    for batch in batches:
        counter.add(batch)
    return counter.counts()


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
