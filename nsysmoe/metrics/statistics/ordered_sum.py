"""Sums of floats that come out the same to the last bit, in whatever order their rows come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def ordered_sum(values: pl.Expr) -> pl.Expr:
    """Return the sum of floats, added up in ascending order.

    A sum of floats depends on the order of its terms, and in polars on the chunks that they lie
    in: as many as threads that filtered or joined the rows. Sums of integers need none of this.
    """
    return values.sort().sum()
