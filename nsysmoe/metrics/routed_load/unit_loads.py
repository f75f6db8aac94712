"""Loads by the unit that repeats: a request, whose tokens choose alike, not a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# 512 MB of counts.
_LARGEST_CELLS = 1 << 27
_LARGEST_GROUPS = 64
_INDEX = ("_group", "_unit", "_layer", "expert")


class UnitLoads:
    """Counts choices by group, unit, layer and expert while batches of a log go by.

    The first ``single`` units of a log are kept apart. Those after them share as many places more,
    in turn: still units that do not depend on one another, whatever the log's size.

    Args:
        by: Columns whose values make a group; null is a value.
        single: Units that are kept apart.
        is_shared: Count units beyond them, in shared places.
    """

    def __init__(self, by: Sequence[str], single: int, *, is_shared: bool = True) -> None:
        self._by = tuple(by)
        self._single = single
        self._is_shared = is_shared
        self._groups: dict[tuple[object, ...], int] = {}
        self._units: dict[tuple[object, ...], int] = {}
        self._layers: dict[tuple[object, ...], int] = {}
        self._counts = np.zeros((1, 1, 1, 1), dtype=np.int32)

    @property
    def units(self) -> int:
        """Units of the log."""
        return len(self._units)

    @property
    def groups(self) -> list[tuple[object, ...]]:
        """Values of ``by``, in order of appearance."""
        return list(self._groups)

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers, ascending."""
        return sorted(int(str(layer)) for (layer,) in self._layers)

    def add(self, batch: pl.DataFrame) -> None:
        """Count a batch: ``run``, ``request``, ``step``, ``layer``, ``expert`` and ``by``.

        A row's unit is its request, or its step where the log names no requests.

        Raises:
            MissingDataError: There are more groups, or larger numbers, than can be counted.
        """
        unit = pl.coalesce("request", pl.col("step").cast(pl.String)).alias("_name")
        rows = batch.select("run", unit, "layer", "expert", *self._by)
        rows = rows.with_columns(
            _number(rows, ("run", "_name"), self._units).alias("_unit"),
            _number(rows, self._by, self._groups).alias("_group"),
            _number(rows, ("layer",), self._layers).alias("_layer"),
        )
        if len(self._groups) > _LARGEST_GROUPS:
            raise MissingDataError(
                f"the log has more than {_LARGEST_GROUPS} groups by {', '.join(self._by)}"
            )
        rows = self._placed(rows)
        if rows.is_empty():
            return
        counted = rows.group_by(_INDEX).len()
        self._grow([int(counted[name].max()) + 1 for name in _INDEX])  # type: ignore[arg-type]
        where = tuple(counted[name].to_numpy() for name in _INDEX)
        self._counts[where] += counted["len"].to_numpy()

    def loads(self) -> NDArray[np.int32]:
        """Return the counts; shape [groups, units, layers, experts], layers ascending."""
        order = [self._layers[(layer,)] for layer in self.layers]
        # Where the last groups counted nothing, they have no place yet.
        self._grow([len(self._groups), 1, len(order), 1])
        units = min(self.units, self._single * (2 if self._is_shared else 1))
        experts = int(np.flatnonzero(self._counts.any(axis=(0, 1, 2))).max(initial=0)) + 1
        return self._counts[: len(self._groups), :units][:, :, order, :experts]

    def _placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Send units beyond those that are kept apart to shared places, or leave them out."""
        if not self._is_shared:
            return rows.filter(pl.col("_unit") < self._single)
        shared = self._single + pl.col("_unit") % self._single
        is_apart = pl.col("_unit") < self._single
        return rows.with_columns(_unit=pl.when(is_apart).then("_unit").otherwise(shared))

    def _grow(self, needed: Sequence[int]) -> None:
        shape = self._counts.shape
        if all(want <= have for want, have in zip(needed, shape, strict=True)):
            return
        # Twofold, so that growing costs no more than counting.
        wanted = [
            have if want <= have else max(want, min(2 * have, have + 64))
            for want, have in zip(needed, shape, strict=True)
        ]
        if np.prod(wanted, dtype=np.float64) > _LARGEST_CELLS:
            raise MissingDataError(
                f"{wanted[0]:,} groups of {wanted[1]:,} requests, {wanted[2]:,} layers and "
                f"{wanted[3]:,} experts are more than can be held; are the numbers right?"
            )
        grown = np.zeros(wanted, dtype=np.int32)
        grown[tuple(slice(have) for have in shape)] = self._counts
        self._counts = grown


def _number(
    rows: pl.DataFrame, columns: Sequence[str], known: dict[tuple[object, ...], int]
) -> pl.Series:
    """Number the values of columns in order of appearance, from 0."""
    if not columns:
        known.setdefault((), 0)
        return pl.zeros(rows.height, dtype=pl.Int64, eager=True)
    found = rows.select(columns).unique(maintain_order=True)
    numbers = [known.setdefault(tuple(row), len(known)) for row in found.iter_rows()]
    told = found.with_columns(pl.Series("_n", numbers, dtype=pl.Int64))
    joined = rows.select(columns).join(
        told, on=list(columns), how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["_n"]
