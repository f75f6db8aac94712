"""Sums of floats that come out the same to the last bit, in whatever order their rows come."""

from __future__ import annotations

import polars as pl


def ordered_sum(values: pl.Expr) -> pl.Expr:
    """Return the sum of floats, added up in ascending order.

    A sum of floats depends on the order of its terms, and in polars on the chunks that they lie
    in: as many as threads that filtered or joined the rows. Sums of integers need none of this.
    """
    return values.sort().sum()


def column_sum(frame: pl.DataFrame, name: str) -> float:
    """Return the sum of a column of floats; 0 of none."""
    return float(frame.select(ordered_sum(pl.col(name))).item())
