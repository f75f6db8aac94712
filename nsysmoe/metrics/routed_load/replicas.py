"""What replicas of experts cost in decode, and gain in prefill.

A decode step reads the weights of every active expert of a rank. Redundant experts split a hot
expert's tokens over two ranks, which helps where tokens cost (prefill) and makes one more expert
active where experts do (decode).
"""

from __future__ import annotations

from typing import Any

import polars as pl


def phase_costs(launches: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """Return what the slowest rank of each cell costs by the model, by phase.

    Args:
        launches: Launches with work and ``predicted_ns``, of whole cells.
        costs: What ``fit_costs`` returned.

    Returns:
        ``phase``, ``predicted_ns``, of which ``experts_ns`` (b x active) and ``rows_ns`` (c x
        padded rows), and ``active`` (mean active physical experts of the slowest rank of a cell).
        The slowest rank is the one of the prediction.
    """
    priced = launches.join(
        costs.select("gemm", "phase", "block_m", "per_expert_ns", "per_row_ns"),
        on=["gemm", "phase", "block_m"],
        how="left",
        maintain_order="left",
    ).with_columns(
        (pl.col("per_expert_ns").fill_null(0) * pl.col("active")).alias("experts_ns"),
        (pl.col("per_row_ns").fill_null(0) * pl.col("padded_rows")).alias("rows_ns"),
    )
    slowest = pl.col("predicted_ns").arg_max()
    parts = ("predicted_ns", "experts_ns", "rows_ns", "active")
    return (
        priced.group_by("phase", "ordinal", maintain_order=True)
        .agg(*(pl.col(name).get(slowest) for name in parts))
        .group_by("phase", maintain_order=True)
        .agg(pl.col(*parts[:3]).cast(pl.Float64).sum(), pl.col("active").mean())
        .sort("phase")
    )


def tax(unmoved: pl.DataFrame, moved: pl.DataFrame, tokens: dict[str, int]) -> list[dict[str, Any]]:
    """Return what another placement changes a token, by phase, and what explains it.

    Both are of the same tokens in the same batches, so nothing but the placement differs: runs
    batch tokens differently, and a decode step costs nearly the same with few tokens as with many.

    Args:
        unmoved: What ``phase_costs`` returned with the first placement.
        moved: The same with the second.
        tokens: Tokens of each phase: generated ones of decode steps, all of those with prompts.

    Returns:
        For each phase in both: ``tokens``, ``change_ns`` a token (positive: dearer), of which
        ``experts_ns`` and ``rows_ns``; ``active_before`` and ``active_after``.
    """
    both = unmoved.join(moved, on="phase", suffix="_after").sort("phase")
    return [
        {
            "phase": row["phase"],
            "tokens": count,
            **{
                name: (row[f"{column}_after"] - row[column]) / count
                for name, column in (
                    ("change_ns", "predicted_ns"),
                    ("experts_ns", "experts_ns"),
                    ("rows_ns", "rows_ns"),
                )
            },
            "active_before": row["active"],
            "active_after": row["active_after"],
        }
        for row in both.iter_rows(named=True)
        if (count := tokens.get(row["phase"], 0))
    ]


def break_even(changes: list[dict[str, Any]]) -> float | None:
    """Return the prompt tokens a generated one at which gain and loss cancel out.

    Above it the phase of prompts decides, below it decode does. None where both phases gain, both
    lose, or one is missing: then no mix breaks even.
    """
    by_phase = {row["phase"]: float(row["change_ns"]) for row in changes}
    decode, prefill = by_phase.get("decode"), by_phase.get("prefill")
    if decode is None or prefill is None or decode * prefill >= 0:
        return None
    return -decode / prefill
