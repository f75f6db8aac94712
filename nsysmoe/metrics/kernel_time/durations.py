"""How long kernels took: totals, means, spread and tails (Table 1, first group)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What nsys's own summary of kernels tells.
SUMMARY = ("launches", "total_ns", "mean_ns", "median_ns", "min_ns", "max_ns", "stddev_ns")
STATISTICS = (*SUMMARY, "cv", "max_min_ratio", "p95_ns", "p99_ns")
_ROWS_AT_ONCE = 500_000


def counted_statistics(counts: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Summarise durations of which it is known how often each occurred.

    Durations are multiples of a clock's tick, so a trace has far fewer of them than launches.

    Args:
        counts: ``dur_ns`` (Int64, ns), ``launches`` (Int64) and the columns of ``by``; a duration
            may have several rows.
        by: Columns to group by; one row comes back where it is empty.

    Returns:
        ``by``, then ``STATISTICS``: times in ns, ``cv`` and ``max_min_ratio`` without unit.
        Standard deviation is the sample's (n - 1), null for one launch; CV = stddev / mean
        (paper, section 4.2); percentiles interpolate linearly between order statistics; a ratio
        with a denominator of 0 is null. Sums of durations and of their squares are exact: they are
        integers, of 64 and of 128 bits. Rows are in order of descending total.
    """
    if by:
        parts = [
            part.sort("dur_ns").group_by(by).agg(_MEASURES) for part in _some_groups(counts, by)
        ]
        frame = pl.concat(parts) if parts else counts.clear().group_by(by).agg(_MEASURES)
    else:
        frame = counts.sort("dur_ns").select(_MEASURES)
    with_spread = frame.with_columns(_deviations(frame))
    return _with_ratios(with_spread).select(*by, *STATISTICS).sort("total_ns", *by, descending=True)


def counted_quantile(part: float, of: str = "dur_ns") -> pl.Expr:
    """Return a quantile of values of which it is known how often each occurred (``launches``).

    Linear interpolation between order statistics; rows come in ascending order of the values.
    """
    place = (pl.col("launches").sum() - 1) * part
    low, high = (_at(at.cast(pl.Int64), of) for at in (place.floor(), place.ceil()))
    return low + (place - place.floor()) * (high - low)


def _at(place: pl.Expr, of: str) -> pl.Expr:
    """Return the value at a place in the order of launches, from 0."""
    return pl.col(of).filter(pl.col("launches").cum_sum() > place).first()


_MEASURES = (
    pl.col("launches").sum(),
    (pl.col("dur_ns") * pl.col("launches")).sum().alias("total_ns"),
    # Of durations that add up to 63 bits, the squares add up to 126.
    (pl.col("launches").cast(pl.Int128) * pl.col("dur_ns") * pl.col("dur_ns"))
    .sum()
    .alias("squares"),
    pl.col("dur_ns").min().alias("min_ns"),
    pl.col("dur_ns").max().alias("max_ns"),
    counted_quantile(0.5).alias("median_ns"),
    counted_quantile(0.95).alias("p95_ns"),
    counted_quantile(0.99).alias("p99_ns"),
)


def _some_groups(counts: pl.DataFrame, by: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield the rows of some groups at a time: sorted and squared, they take several times more."""
    sizes = counts.group_by(by).agg(pl.len().alias("rows"))
    lot = (pl.col("rows").cum_sum() - 1) // _ROWS_AT_ONCE
    for groups in sizes.with_columns(lot.alias("lot")).partition_by("lot"):
        yield counts.join(groups.select(by), on=by, how="semi", nulls_equal=True)


def _deviations(frame: pl.DataFrame) -> list[pl.Series]:
    """Return mean and deviation of exact sums: s² = (n Σd² - (Σd)²) / (n (n - 1))."""
    means, deviations = [], []
    for n, total, squares in frame.select("launches", "total_ns", "squares").iter_rows():
        means.append(total / n if n else None)
        spread = n * squares - total * total
        deviations.append(math.sqrt(spread / (n * (n - 1))) if n > 1 else None)
    return [
        pl.Series("mean_ns", means, pl.Float64),
        pl.Series("stddev_ns", deviations, pl.Float64),
    ]


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
