"""How long kernels took: totals, means, spread and tails (Table 1, first group)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

# What nsys's own summary of kernels tells.
SUMMARY = ("launches", "total_ns", "mean_ns", "median_ns", "min_ns", "max_ns", "stddev_ns")
STATISTICS = (*SUMMARY, "cv", "max_min_ratio", "p95_ns", "p99_ns")


def duration_statistics(events: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Summarise durations, overall or by some columns.

    Args:
        events: One row a launch; ``dur_ns`` (Int64, ns) and the columns of ``by``.
        by: Columns to group by; one row comes back where it is empty.

    Returns:
        ``by``, then ``STATISTICS``: times in ns, ``cv`` and ``max_min_ratio`` without unit.
        Standard deviation is the sample's (n - 1), null for one launch; CV = stddev / mean
        (paper, section 4.2); percentiles interpolate linearly between order statistics; a ratio
        with a denominator of 0 is null. Rows are in order of descending total.
    """
    duration = pl.col("dur_ns")
    measures = [
        pl.len().cast(pl.Int64).alias("launches"),
        duration.sum().alias("total_ns"),
        duration.mean().alias("mean_ns"),
        duration.median().alias("median_ns"),
        duration.min().alias("min_ns"),
        duration.max().alias("max_ns"),
        # In order: a sum of floats depends on it, and rows come in any.
        duration.sort().std(ddof=1).alias("stddev_ns"),
        duration.quantile(0.95, "linear").alias("p95_ns"),
        duration.quantile(0.99, "linear").alias("p99_ns"),
    ]
    frame = events.group_by(by).agg(measures) if by else events.select(measures)
    return _with_ratios(frame).select(*by, *STATISTICS).sort("total_ns", *by, descending=True)


def pooled_statistics(rows: pl.DataFrame) -> pl.DataFrame:
    """Summarise several kernels of which only summaries are known, as if launches were at hand.

    Args:
        rows: One row a kernel; ``launches``, ``total_ns``, ``mean_ns``, ``median_ns``,
            ``min_ns``, ``max_ns``, ``stddev_ns``, null where unknown.

    Returns:
        One row of ``STATISTICS``. The deviation pools exactly: (n - 1) s² = Σ (nᵢ - 1) sᵢ² +
        Σ nᵢ (mᵢ - m)². A median is known for one kernel only, p95 and p99 never; what one kernel
        lacks is null for all.
    """
    n, mean = pl.col("launches"), pl.col("mean_ns")
    pooled_mean = ordered_sum(n * mean) / n.sum()
    spread = pl.when(n > 1).then(pl.col("stddev_ns")).otherwise(0.0)
    within = ordered_sum((n - 1) * spread**2)
    between = ordered_sum(n * (mean - pooled_mean) ** 2)

    def known(column: str, value: pl.Expr) -> pl.Expr:
        needed = pl.col(column).is_not_null() | ((n == 1) & (column == "stddev_ns"))
        return pl.when(needed.all() & (pl.len() > 0)).then(value).alias(column)

    frame = rows.select(
        n.sum().alias("launches"),
        pl.col("total_ns").sum(),
        known("mean_ns", pooled_mean),
        pl.when(pl.len() == 1).then(pl.col("median_ns").first()).alias("median_ns"),
        known("min_ns", pl.col("min_ns").min()),
        known("max_ns", pl.col("max_ns").max()),
        known(
            "stddev_ns",
            pl.when(n.sum() > 1).then(((within + between) / (n.sum() - 1)).sqrt()),
        ),
        pl.lit(None, pl.Float64).alias("p95_ns"),
        pl.lit(None, pl.Float64).alias("p99_ns"),
    )
    return _with_ratios(frame).select(*STATISTICS)


def _with_ratios(frame: pl.DataFrame) -> pl.DataFrame:
    def ratio(above: str, below: str) -> pl.Expr:
        return pl.when(pl.col(below) != 0).then(pl.col(above) / pl.col(below))

    return frame.with_columns(
        ratio("stddev_ns", "mean_ns").alias("cv"),
        ratio("max_ns", "min_ns").alias("max_min_ratio"),
    )
