"""Prefill, decode and what is neither: steps, tokens and MoE time."""

from __future__ import annotations

import polars as pl

from nsysmoe.metrics.kernel_time.communication import INTEGERS

UNATTRIBUTED = "unattributed"
# Passes of data-parallel ranks that had no request: they keep step with others that have some.
DUMMY = "dummy"


def phase_times(
    steps: pl.DataFrame,
    launches: pl.DataFrame,
    launched_in: pl.DataFrame,
    cells: pl.DataFrame,
    engines: pl.DataFrame,
) -> pl.DataFrame:
    """Summarise steps, launches and cells by phase.

    Args:
        steps: One row a step of a process; ``global_pid``, ``step``, ``phase``,
            ``context_tokens``, ``generation_tokens``.
        launches: MoE kernels, summed; ``phase`` (null where not known), ``launches``, ``dur_ns``.
        launched_in: View ``moe_phase_steps``.
        cells: One row a cell; ``phase``, ``slowest_ns``.
        engines: What ``engines`` returned.

    Returns:
        ``phase``, ``steps`` (of one rank; of dummy passes, those of the rank that made most;
        without ranges, those in which it launched; null where steps are not known),
        ``launches``, ``moe_total_ns`` (all ranks),
        ``critical_ns`` (slowest rank of each cell; null without cells), ``tokens`` (each engine's
        once; null without ranges).
    """
    phase = pl.col("phase").fill_null(UNATTRIBUTED).alias("phase")
    tokens = pl.col("context_tokens") + pl.col("generation_tokens")
    by_engine = (
        steps.with_columns(phase)
        .join(engines, on="global_pid", how="left")
        .group_by(pl.col("engine").fill_null(pl.col("global_pid")), "phase", "global_pid")
        .agg(pl.len().cast(pl.Int64).alias("steps"), tokens.sum().alias("tokens"))
        # Ranks of one engine walk through the same steps: its tokens count once.
        .group_by("engine", "phase")
        .agg(pl.col("steps", "tokens").max())
    )
    counted = by_engine.group_by("phase").agg(pl.col("steps").max(), pl.col("tokens").sum())
    if steps.is_empty():
        counted = _counted_by_launches(launched_in.with_columns(phase))
    else:
        counted = pl.concat([counted, _dummy_passes(launched_in)])
    launched = launches.group_by(phase).agg(
        pl.col("launches").sum(), pl.col("dur_ns").sum().alias("moe_total_ns")
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
        .with_columns(*([] if steps.is_empty() else [pl.col("steps", "tokens").fill_null(0)]))
        .select(columns)
        .sort("moe_total_ns", "phase", descending=[True, False])
    )


def engines(collectives: pl.DataFrame) -> pl.DataFrame:
    """Tell which processes are one engine: those that sum activations (tensor parallel).

    Data-parallel ranks exchange tokens and counts, but sum no activations with one another.

    Args:
        collectives: Communication kernels; ``global_pid``, ``collective``, ``data_type``,
            ``name_id``, ``communicator`` (null where not matched).

    Returns:
        ``global_pid`` and ``engine`` (the lowest ``global_pid`` of its ranks); processes that
        share no such sum are not in it.
    """
    members = (
        collectives.filter(
            (pl.col("collective") == "all_reduce")
            & ~pl.col("data_type").fill_null("").is_in(INTEGERS)
        )
        .drop_nulls("communicator")
        .select("global_pid", "name_id", "communicator")
        .unique()
    )
    return (
        members.with_columns(
            pl.col("global_pid").min().over("name_id", "communicator").alias("engine")
        )
        .group_by("global_pid")
        .agg(pl.col("engine").min())
    )


def _dummy_passes(launched_in: pl.DataFrame) -> pl.DataFrame:
    """Count the dummy passes of the rank that made most; they hold no token of a request."""
    return (
        launched_in.filter(pl.col("phase") == DUMMY)
        .group_by("phase")
        .agg(pl.col("passes").max().alias("steps"), pl.lit(0, pl.Int64).alias("tokens"))
    )


def _counted_by_launches(launched_in: pl.DataFrame) -> pl.DataFrame:
    """Count the steps of the rank that launched in most, phase by phase; tokens are not known."""
    return (
        launched_in.group_by("phase")
        .agg(pl.col("steps").max())
        .with_columns(
            pl.when(pl.col("steps") > 0).then(pl.col("steps")),
            pl.lit(None, pl.Int64).alias("tokens"),
        )
    )
