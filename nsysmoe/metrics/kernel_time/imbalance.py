"""How unequal the experts' work is across ranks, in time and not in percent alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASURES = (
    "cells",
    "p50",
    "p95",
    "max",
    "weighted_p50",
    "weighted_p95",
    "critical_ns",
    "mean_ns",
    "excess_ns",
    "critical_over_mean",
)


def imbalance(cells: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Summarise cells, overall or by some columns.

    Args:
        cells: One row a cell (one MoE product of one layer in one step); ``slowest_ns`` (Int64)
            and ``mean_ns`` (Float64) over ranks, and the columns of ``by``.
        by: Columns to group by; one row comes back where it is empty.

    Returns:
        ``by``, then ``MEASURES``. ``p50``, ``p95`` and ``max`` are of slowest / mean, linear
        interpolation, every cell counting alike; ``weighted_*`` count each cell by its slowest
        time, so they say of what half and 95 % of critical time is made. ``critical_ns`` is the
        sum of the slowest, which is what a step waits for; it is ``mean_ns`` + ``excess_ns``.
        ``critical_over_mean`` is the share of time that balance could save, plus 1.
    """
    ratio = pl.col("slowest_ns") / pl.col("mean_ns")
    measures = [
        pl.len().cast(pl.Int64).alias("cells"),
        ratio.quantile(0.5, "linear").alias("p50"),
        ratio.quantile(0.95, "linear").alias("p95"),
        ratio.max().alias("max"),
        _weighted_quantile(ratio, 0.5).alias("weighted_p50"),
        _weighted_quantile(ratio, 0.95).alias("weighted_p95"),
        pl.col("slowest_ns").sum().alias("critical_ns"),
        ordered_sum(pl.col("mean_ns")).alias("mean_ns"),
        ordered_sum(pl.col("slowest_ns") - pl.col("mean_ns")).alias("excess_ns"),
    ]
    frame = cells.group_by(by).agg(measures) if by else cells.select(measures)
    over = pl.when(pl.col("mean_ns") > 0).then(pl.col("critical_ns") / pl.col("mean_ns"))
    return (
        frame.with_columns(over.alias("critical_over_mean"))
        .select(*by, *MEASURES)
        .sort(by or "cells")
    )


def _weighted_quantile(ratio: pl.Expr, part: float) -> pl.Expr:
    """Return the smallest ratio below which that part of critical time lies."""
    weight = pl.col("slowest_ns").sort_by(ratio)
    reached = weight.cum_sum() >= part * weight.sum()
    return ratio.sort_by(ratio).filter(reached).first()


def slowest_by_layer(cells: pl.DataFrame) -> pl.DataFrame:
    """Return which rank is slowest in most cells of each layer (the lowest of equals).

    Args:
        cells: One row a cell; ``layer``, ``slowest_rank``.

    Returns:
        ``layer``, ``slowest_rank``, ``slowest_share`` (0 to 1, of the layer's cells).
    """
    often = pl.col("slowest_rank").mode().min()
    return cells.group_by("layer").agg(
        often.alias("slowest_rank"),
        (pl.col("slowest_rank") == often).mean().alias("slowest_share"),
    )


def slowest_ranks(cells: pl.DataFrame) -> pl.DataFrame:
    """Return how often each rank is the slowest of a cell, the most frequent first.

    Args:
        cells: One row a cell; ``slowest_rank``, ``slowest_ns``, ``mean_ns``.

    Returns:
        ``rank``, ``cells``, ``share`` (0 to 1), ``excess_ns`` (of those cells).
    """
    return (
        cells.group_by(pl.col("slowest_rank").alias("rank"))
        .agg(
            pl.len().cast(pl.Int64).alias("cells"),
            ordered_sum(pl.col("slowest_ns") - pl.col("mean_ns")).alias("excess_ns"),
        )
        .with_columns((pl.col("cells") / pl.col("cells").sum()).alias("share"))
        .select("rank", "cells", "share", "excess_ns")
        .sort("cells", "rank", descending=[True, False])
    )
