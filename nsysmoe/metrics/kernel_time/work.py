"""Whether two runs did the same work: tokens, steps, launches and their sizes."""

from __future__ import annotations

from typing import Any

import polars as pl

from nsysmoe.metrics.kernel_time.durations import counted_quantile
from nsysmoe.metrics.kernel_time.phases import DUMMY

# Runs whose work differs by more are not compared by totals.
MOST_DIFFERENT = 0.10


def work_done(times: pl.DataFrame, grids: pl.DataFrame) -> dict[str, Any]:
    """Describe the work of a run.

    Args:
        times: What ``phases.phase_times`` returned.
        grids: View ``moe_grids``.

    Returns:
        ``launches``, ``tokens`` (null without ranges), ``phases`` (by phase: ``steps``,
        ``launches``, ``tokens``) and ``blocks`` (by phase: median and largest grid of MoE
        launches, null where unknown).
    """
    rows = times.to_dicts()
    known = [row["tokens"] for row in rows if row["tokens"] is not None]
    return {
        "launches": sum(row["launches"] for row in rows),
        "tokens": sum(known) if known else None,
        "phases": {
            row["phase"]: {key: row[key] for key in ("steps", "launches", "tokens")} for row in rows
        },
        "blocks": {row.pop("phase"): row for row in _sizes(grids).to_dicts()},
    }


def _sizes(grids: pl.DataFrame) -> pl.DataFrame:
    """Return ``phase``, ``median`` and ``largest`` of grids, phase by phase."""
    is_known = pl.col("blocks").is_not_null()
    return (
        grids.drop_nulls("phase")
        # What is not known counts in no median; a phase of nothing else has none.
        .with_columns(pl.when(is_known).then("launches").otherwise(0).alias("launches"))
        .sort("blocks")
        .group_by("phase")
        .agg(
            counted_quantile(0.5, "blocks").alias("median"),
            pl.col("blocks").max().alias("largest"),
        )
        .sort("phase")
    )


def work_difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Return the relative differences of two runs' work, those that are not 0.

    Keys are ``launches``, ``tokens``, and ``steps:PHASE`` for phases of both; a phase that one
    run lacks differs by 1.
    """
    found = {
        key: after[key] / before[key] - 1
        for key in ("launches", "tokens")
        if before[key] and after[key] is not None
    }
    # What serves no request is no work.
    phases = {*before["phases"], *after["phases"]} - {"idle", DUMMY}
    for phase in sorted(phases):
        counts = [(run["phases"].get(phase) or {"steps": 0})["steps"] for run in (before, after)]
        if None in counts:
            continue
        found[f"steps:{phase}"] = counts[1] / counts[0] - 1 if counts[0] else float(counts[1] > 0)
    return {key: value for key, value in found.items() if value}
