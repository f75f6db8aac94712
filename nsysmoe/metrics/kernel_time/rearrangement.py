"""What moving experts cost, and what the new map gained."""

from __future__ import annotations

import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.metrics.statistics.ordered_sum import column_sum, ordered_sum

_COLUMNS = ("rearrangement", "start_ns", "end_ns", "ranks", "transfers", "total_ns", "moving_ns")


def rearrangement_effects(
    rearrangements: pl.DataFrame, table: pl.DataFrame, cells: pl.DataFrame
) -> pl.DataFrame:
    """Weigh each rearrangement: its stall against what balance gained.

    Args:
        rearrangements: View ``rearrangements``.
        table: What ``steps.step_table`` returned.
        cells: Cells; ``phase``, ``start_ns``, ``slowest_ns``, ``mean_ns``.

    Returns:
        One row each: the columns of the view; ``stall_ns`` (wall time of the steps it falls into,
        less the median of others of their stratum, or else phase; null where there are none),
        ``phase`` (of the stratum of steps with most cell time on both sides: others are other
        work), ``before`` and ``after`` (Σ slowest / Σ mean of its cells since the last
        rearrangement and until the next), ``step_mean_ns`` (Σ mean of its cells a step),
        ``gain_ns`` (a step: (before - after) × step_mean), ``payback_steps`` (stall / gain; null
        where nothing was gained).
    """
    edges = rearrangements.sort("start_ns").with_columns(
        pl.col("end_ns").shift(1).alias("since_ns"), pl.col("start_ns").shift(-1).alias("until_ns")
    )
    rows = [
        {
            **{name: row[name] for name in _COLUMNS},
            "stall_ns": _stall(row, table),
            **_gain(row, table, cells),
        }
        for row in edges.iter_rows(named=True)
    ]
    schema = {
        **dict.fromkeys(_COLUMNS, pl.Int64),
        "stall_ns": pl.Float64,
        "phase": pl.String,
        **dict.fromkeys(("before", "after", "step_mean_ns", "gain_ns"), pl.Float64),
        "payback_steps": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema)
    gained = (pl.col("gain_ns") > 0) & (pl.col("stall_ns") >= 0)
    return frame.with_columns(
        pl.when(gained).then(pl.col("stall_ns") / pl.col("gain_ns")).alias("payback_steps")
    )


def _stall(row: dict[str, int], table: pl.DataFrame) -> float | None:
    end = pl.col("start_ns") + pl.col("wall_ns")
    hit = (pl.col("start_ns") < row["end_ns"]) & (end > row["start_ns"])
    stalled, others = table.filter(hit), table.filter(~hit)
    # As much to do, where other steps had; else whatever the phase usually takes.
    for key in ("stratum", "phase"):
        usual = others.group_by(key).agg(pl.col("wall_ns").median().alias(f"by_{key}"))
        stalled = stalled.join(usual, on=key, how="left")
    stalled = stalled.with_columns(usual_ns=pl.coalesce("by_stratum", "by_phase")).drop_nulls(
        "usual_ns"
    )
    if stalled.is_empty():
        return None
    return float((stalled["wall_ns"] - stalled["usual_ns"]).sum())


def _gain(
    row: dict[str, int | None], table: pl.DataFrame, cells: pl.DataFrame
) -> dict[str, object]:
    started = pl.col("start_ns")
    sides = (
        cells.with_columns(pl.col("phase").fill_null(UNATTRIBUTED))
        .sort("start_ns")
        .join_asof(table.select("start_ns", "stratum"), on="start_ns", strategy="backward")
        .with_columns(
            pl.when(started < row["start_ns"])
            .then(started >= (row["since_ns"] or started.min()))
            .otherwise(False)
            .alias("is_before"),
            pl.when(started > row["end_ns"])
            .then(started < (row["until_ns"] or started.max() + 1))
            .otherwise(False)
            .alias("is_after"),
        )
        .group_by("stratum")
        .agg(
            pl.col("phase").first(),
            *(
                ordered_sum(pl.col(name).filter(side)).alias(f"{name}_{side}")
                for name in ("slowest_ns", "mean_ns")
                for side in ("is_before", "is_after")
            ),
        )
        .filter((pl.col("mean_ns_is_before") > 0) & (pl.col("mean_ns_is_after") > 0))
        .sort(
            pl.min_horizontal("mean_ns_is_before", "mean_ns_is_after"),
            "stratum",
            descending=[True, False],
        )
    )
    if sides.is_empty():
        return {}
    side = sides.row(0, named=True)
    before = side["slowest_ns_is_before"] / side["mean_ns_is_before"]
    after = side["slowest_ns_is_after"] / side["mean_ns_is_after"]
    steps = table.filter(pl.col("stratum") == side["stratum"])
    step_mean = column_sum(steps, "mean_ns") / max(steps.height, 1)
    return {
        "phase": side["phase"],
        "before": before,
        "after": after,
        "step_mean_ns": step_mean,
        "gain_ns": (before - after) * step_mean,
    }
