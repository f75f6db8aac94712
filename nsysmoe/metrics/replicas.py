"""What replicas of experts cost in decode, and gain in prefill.

A decode step reads the weights of every active expert of a rank. Redundant experts split a hot
expert's tokens over two ranks, which helps where tokens cost (prefill) and makes one more expert
active where experts do (decode).
"""

from __future__ import annotations

from typing import Any

import polars as pl

PHASES = ("decode", "prefill")


def phase_costs(launches: pl.DataFrame, costs: pl.DataFrame, tokens: dict[str, int]) -> pl.DataFrame:
    """Return what the slowest rank of each cell costs, by phase.

    Args:
        launches: Launches with work and ``predicted_ns``, of whole cells.
        costs: What ``fit_costs`` returned.
        tokens: Tokens of each phase: generated ones of decode steps, all of those with prompts.

    Returns:
        ``phase``, ``cells``, ``tokens``, ``critical_ns`` (measured), ``predicted_ns``, of which
        ``experts_ns`` (b x active) and ``rows_ns`` (c x padded rows), and ``active`` (mean active
        physical experts of the slowest rank of a cell). The slowest rank of the prediction is the
        one whose work is counted.
    """
    priced = launches.join(
        costs.select("gemm", "phase", "block_m", "per_expert_ns", "per_row_ns"),
        on=["gemm", "phase", "block_m"],
        how="left",
    ).with_columns(
        (pl.col("per_expert_ns").fill_null(0) * pl.col("active")).alias("experts_ns"),
        (pl.col("per_row_ns").fill_null(0) * pl.col("padded_rows")).alias("rows_ns"),
    )
    slowest = pl.col("predicted_ns").arg_max()
    cells = priced.group_by("phase", "ordinal").agg(
        pl.col("dur_ns").max().alias("critical_ns"),
        *(pl.col(name).get(slowest) for name in ("predicted_ns", "experts_ns", "rows_ns", "active")),
    )
    return (
        cells.group_by("phase")
        .agg(
            pl.len().cast(pl.Int64).alias("cells"),
            pl.col("critical_ns", "predicted_ns", "experts_ns", "rows_ns").cast(pl.Float64).sum(),
            pl.col("active").mean(),
        )
        .with_columns(pl.col("phase").replace_strict(tokens, default=0).alias("tokens"))
        .sort("phase")
    )


def tax(baseline: pl.DataFrame, candidate: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the change of critical MoE time a token, by phase, and what explains it.

    Args:
        baseline: What ``phase_costs`` returned of the first arm.
        candidate: The same of the second, with the costs of the first.

    Returns:
        For each phase in both: ``change_ns`` a token (positive: dearer), ``experts_ns`` and
        ``rows_ns`` (the parts of it that the model gives to active experts and to padded rows),
        ``active_before``, ``active_after``.
    """
    both = baseline.join(candidate, on="phase", suffix="_after").filter(
        (pl.col("tokens") > 0) & (pl.col("tokens_after") > 0)
    )
    return [
        {
            "phase": row["phase"],
            "critical_before_ns": row["critical_ns"] / row["tokens"],
            "critical_after_ns": row["critical_ns_after"] / row["tokens_after"],
            **{
                name: row[f"{column}_after"] / row["tokens_after"] - row[column] / row["tokens"]
                for name, column in (
                    ("change_ns", "critical_ns"),
                    ("predicted_ns", "predicted_ns"),
                    ("experts_ns", "experts_ns"),
                    ("rows_ns", "rows_ns"),
                )
            },
            "active_before": row["active"],
            "active_after": row["active_after"],
        }
        for row in both.sort("phase").iter_rows(named=True)
    ]


def break_even(changes: list[dict[str, Any]], value: str = "change_ns") -> float | None:
    """Return the prompt tokens a generated one at which gain and loss cancel out.

    Above it the phase of prompts decides, below it decode does. None where both phases gain, both
    lose, or one is missing: then no mix breaks even.
    """
    by_phase = {row["phase"]: float(row[value]) for row in changes}
    decode, prefill = by_phase.get("decode"), by_phase.get("prefill")
    if decode is None or prefill is None or decode * prefill >= 0:
        return None
    return -decode / prefill
