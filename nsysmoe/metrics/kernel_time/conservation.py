"""Whether the waiting is what unequal work makes it, phase by phase."""

from __future__ import annotations

import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.metrics.statistics.ordered_sum import ordered_sum


def conservation(cells: pl.DataFrame, collectives: pl.DataFrame) -> pl.DataFrame:
    """Set waiting beside what unequal MoE time explains of it.

    Where R ranks meet after work that took them d₁ … d_R, they wait Σ (max d - dᵢ) =
    R (max d - mean d) in all: R times the excess of the cell.

    Args:
        cells: One row a cell; ``phase``, ``ranks``, ``slowest_ns``, ``mean_ns``.
        collectives: Communication kernels; ``phase``, ``collective``, ``is_matched``, ``wait_ns``.

    Returns:
        ``phase``, ``wait_ns`` (over all ranks; transfers of weights left out), ``unequal_ns``
        (Σ ranks × excess), ``unexplained_ns`` (the rest: host, attention, order of arrival
        carried over; negative where unequal work cancelled out before the ranks met).
    """
    phase = pl.col("phase").fill_null(UNATTRIBUTED)
    unequal = cells.group_by(phase).agg(
        ordered_sum(pl.col("ranks") * (pl.col("slowest_ns") - pl.col("mean_ns"))).alias(
            "unequal_ns"
        )
    )
    waited = (
        collectives.filter(pl.col("is_matched") & (pl.col("collective") != "send_recv"))
        .group_by(phase)
        .agg(pl.col("wait_ns").sum())
    )
    return (
        waited.join(unequal, on="phase", how="full", coalesce=True)
        .with_columns(pl.col("wait_ns", "unequal_ns").fill_null(0))
        .with_columns((pl.col("wait_ns") - pl.col("unequal_ns")).alias("unexplained_ns"))
        .select("phase", "wait_ns", "unequal_ns", "unexplained_ns")
        .sort("wait_ns", "phase", descending=[True, False])
    )
