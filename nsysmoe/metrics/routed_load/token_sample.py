"""Whole routes of tokens out of a log of any size: all of them, or an even sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Choices in memory, 13 bytes each, twice while they are sorted.
LARGEST = 1 << 24
# Spreads keys that come again over all numbers (Knuth, TAOCP 3, 6.4).
_ODD = np.uint64(0x9E3779B97F4A7C15)
_TOKEN = ("run", "request", "step", "token")


@dataclass(frozen=True)
class Routes:
    """Routes (a token's choices in a layer), those of a token together, layers ascending.

    Attributes:
        token: What tells tokens apart, shape [routes].
        layer: Place of the layer among those of the log, shape [routes].
        experts: Shape [routes, k].
        layers: Numbers of the layers, ascending.
        every: Of how many tokens one was kept.
        odd: Routes that were left out: with more or fewer choices than most have.
    """

    token: NDArray[np.uint64]
    layer: NDArray[np.int64]
    experts: NDArray[np.int64]
    layers: tuple[int, ...]
    every: int
    odd: int


class TokenSample:
    """Keeps the choices of tokens while batches go by; of ever fewer tokens where there are many.

    A token is kept by its hash, so with all of its choices, wherever they stand in the log. Some
    logs number tokens anew in every step, without saying so: where a token's number comes again
    it is another token, in the order of the log.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._parts: list[pl.DataFrame] = []
        self._rows = 0
        self._every = 1

    def add(self, batch: pl.DataFrame) -> None:
        """Keep the choices of a batch whose tokens are drawn."""
        rows = batch.select(
            pl.struct(_TOKEN).hash(seed=0).alias("key"),
            pl.col("layer").cast(pl.UInt16),
            pl.col("k").cast(pl.UInt16),
            pl.col("expert").cast(pl.UInt16),
        )
        self._keep(rows)
        while self._rows > self._largest:
            self._every *= 2
            parts, self._parts, self._rows = self._parts, [], 0
            for part in parts:
                self._keep(part)

    def routes(self) -> Routes:
        """Return the routes of the tokens that were kept."""
        rows = pl.concat(self._parts) if self._parts else _EMPTY
        self._parts = []
        rows = _apart(rows).sort("key", "layer", "k")
        key, layer = rows["key"].to_numpy(), rows["layer"].to_numpy()
        expert = rows["expert"].to_numpy().astype(np.int64)
        first = _firsts(key, layer)
        sizes = np.diff(np.append(first, len(key)))
        top_k = int(np.bincount(sizes).argmax()) if len(sizes) else 1
        whole = first[sizes == top_k]
        layers, place = np.unique(layer[whole], return_inverse=True)
        return Routes(
            key[whole],
            place.reshape(-1),
            expert[whole[:, None] + np.arange(top_k)],
            tuple(int(number) for number in layers),
            self._every,
            len(first) - len(whole),
        )

    def _keep(self, rows: pl.DataFrame) -> None:
        # The hash's upper half: its lower bits are those of the sum below.
        kept = rows.filter((pl.col("key") // (1 << 32)) % self._every == 0)
        self._parts.append(kept)
        self._rows += kept.height


_EMPTY = pl.DataFrame(
    schema={"key": pl.UInt64, "layer": pl.UInt16, "k": pl.UInt16, "expert": pl.UInt16}
)


def _apart(rows: pl.DataFrame) -> pl.DataFrame:
    """Give keys that come again, with the same layer and place, keys of their own."""
    columns = ("key", "layer", "k")
    ordered = rows.sort(columns, maintain_order=True)
    values = [ordered[name].to_numpy() for name in columns]
    is_new = np.ones(ordered.height, dtype=bool)
    if ordered.height:
        is_new[1:] = np.any([value[1:] != value[:-1] for value in values], axis=0)
    if is_new.all():
        return rows
    place = np.arange(ordered.height)
    first = np.maximum.accumulate(np.where(is_new, place, 0))
    return ordered.with_columns(key=values[0] + (place - first).astype(np.uint64) * _ODD)


def _firsts(key: NDArray[np.uint64], layer: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return where routes begin."""
    if not len(key):
        return np.zeros(0, dtype=np.int64)
    is_new = (key[1:] != key[:-1]) | (layer[1:] != layer[:-1])
    return np.flatnonzero(np.concatenate([[True], is_new]))
