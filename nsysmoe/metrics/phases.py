"""Prefill, decode and what is neither: steps, tokens and MoE time."""

from __future__ import annotations

import polars as pl

UNATTRIBUTED = "unattributed"


def phase_times(steps: pl.DataFrame, launches: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Summarise steps, launches and cells by phase.

    Args:
        steps: One row a step of a process; ``global_pid``, ``step``, ``phase``,
            ``context_tokens``, ``generation_tokens``.
        launches: One row a launch of an MoE kernel; ``rank``, ``step``, ``phase`` (null outside
            any step), ``dur_ns``.
        cells: One row a cell; ``phase``, ``slowest_ns``.

    Returns:
        ``phase``, ``steps`` (of one rank; without ranges, those in which it launched; null where
        steps are not known), ``launches``, ``moe_total_ns`` (all ranks),
        ``critical_ns`` (slowest rank of each cell; null without cells), ``tokens``. Ranks that
        walk through the same steps with the same tokens are one engine (tensor parallel): its
        tokens count once; else every rank's count. Without ranges tokens are null.
    """
    phase = pl.col("phase").fill_null(UNATTRIBUTED).alias("phase")
    tokens = pl.col("context_tokens") + pl.col("generation_tokens")
    by_process = (
        steps.with_columns(phase)
        .group_by("global_pid", "phase")
        .agg(pl.len().cast(pl.Int64).alias("steps"), tokens.sum().alias("tokens"))
    )
    total = pl.col("tokens").max() if _is_one_engine(steps) else pl.col("tokens").sum()
    counted = by_process.group_by("phase").agg(pl.col("steps").max(), total)
    if steps.is_empty():
        counted = _counted_by_launches(launches.with_columns(phase))
    launched = (
        launches.with_columns(phase)
        .group_by("phase")
        .agg(
            pl.len().cast(pl.Int64).alias("launches"), pl.col("dur_ns").sum().alias("moe_total_ns")
        )
    )
    critical = (
        cells.with_columns(phase)
        .group_by("phase")
        .agg(pl.col("slowest_ns").sum().alias("critical_ns"))
    )
    columns = ["phase", "steps", "launches", "moe_total_ns", "critical_ns", "tokens"]
    return (
        counted.join(launched, on="phase", how="full", coalesce=True)
        .join(critical, on="phase", how="left")
        .with_columns(pl.col("launches", "moe_total_ns").fill_null(0))
        .with_columns(
            *([] if steps.is_empty() else [pl.col("steps", "tokens").fill_null(0)])
        )
        .select(columns)
        .sort("moe_total_ns", "phase", descending=[True, False])
    )


def _is_one_engine(steps: pl.DataFrame) -> bool:
    """Tell whether all processes walk through the same steps."""
    walks = steps.group_by("global_pid", maintain_order=True).agg(
        pl.struct("phase", "context_tokens", "generation_tokens").sort_by("step").alias("walk")
    )
    return walks["walk"].n_unique() <= 1


def _counted_by_launches(launches: pl.DataFrame) -> pl.DataFrame:
    """Count the steps of the rank that launched in most, phase by phase; tokens are not known."""
    return (
        launches.group_by("phase", "rank")
        .agg(pl.col("step").drop_nulls().n_unique().cast(pl.Int64).alias("steps"))
        .group_by("phase")
        .agg(pl.col("steps").max())
        .with_columns(
            pl.when(pl.col("steps") > 0).then(pl.col("steps")),
            pl.lit(None, pl.Int64).alias("tokens"),
        )
    )
