"""What launching costs: the time of launching threads, by rank and phase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.metrics.kernel_time.stalls import SLOW_RATIO
from nsysmoe.metrics.kernel_time.steps import with_typical, with_work

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("launching", "calling", "blocked", "outside")
_RANK = ("global_tid", "process_id", "device_id")
_TIMES = ("wall_ns", "launching_ns", "outside_ns")
_COUNTS = ("launches", "graph_launches", "calls")


def launched_work(
    steps: pl.DataFrame, device_steps: pl.DataFrame, work: pl.DataFrame
) -> pl.DataFrame:
    """Say of the steps of launching threads what all ranks had to do in them.

    Args:
        steps: View ``host_steps``.
        device_steps: View ``device_steps``; ``global_pid``, ``device_id``, ``step``, ``phase``,
            ``start_ns``, ``wall_ns``.
        work: View ``slice_work``.

    Returns:
        ``steps`` with ``joint_phase`` and ``blocks``, as ``metrics.kernel_time.steps.with_work``
        adds them; of a step without a number its own phase, and null.
    """
    keys = ["global_pid", "device_id", "step"]
    launched = with_work(device_steps, work).drop_nulls("step").unique(keys, maintain_order=True)
    found = launched.select(*keys, "joint_phase", "blocks")
    # A process that the export does not name is one all the same.
    return (
        steps.with_row_index("place")
        .join(found, on=keys, how="left", nulls_equal=True)
        .sort("place")
        .drop("place")
        .with_columns(
            pl.coalesce("joint_phase", "phase", pl.lit(UNATTRIBUTED)).alias("joint_phase")
        )
    )


def usual_steps(steps: pl.DataFrame) -> pl.DataFrame:
    """Leave out steps of 3 times what the thread's other steps with as much to do take.

    A step in which code was compiled says nothing about launching.

    Args:
        steps: What ``launched_work`` returned.

    Returns:
        ``steps`` with ``phase`` never null (``unattributed``).
    """
    known = steps.with_columns(pl.col("phase").fill_null(UNATTRIBUTED))
    parts = [
        with_typical(part.sort("start_ns").with_columns(pl.int_range(pl.len()).alias("slice")))
        for part in known.partition_by("global_tid", "device_id", maintain_order=True)
    ]
    if not parts:
        return known
    is_slow = pl.col("wall_ns") > SLOW_RATIO * pl.col("typical_ns")
    return pl.concat(parts).filter(~is_slow.fill_null(value=False)).drop("slice", "typical_ns")


def anatomy(steps: pl.DataFrame) -> pl.DataFrame:
    """Say what each launching thread does in a step, by phase.

    Args:
        steps: What ``launched_work`` returned.

    Returns:
        One row a rank and phase, ranks in order: ``global_tid``, ``process_id``, ``device_id``,
        ``phase``, ``steps``, ``slow_steps`` (left out of all that follows), ``launches``,
        ``graph_launches``, ``calls``, ``wall_ns``, ``launching_ns``, ``outside_ns`` (medians over
        steps), and the shares of the thread's time ``launching``, ``calling``, ``blocked``,
        ``outside``, which add up to 1 (null where steps took no time).
    """
    usual = usual_steps(steps)
    keys = [*_RANK, "phase"]
    every = steps.with_columns(pl.col("phase").fill_null(UNATTRIBUTED)).group_by(keys)
    wall = pl.col("wall_ns").sum()
    told = usual.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("usual"),
        pl.col(*_COUNTS, *_TIMES).median(),
        *(pl.when(wall > 0).then(pl.col(f"{part}_ns").sum() / wall).alias(part) for part in PARTS),
    )
    return (
        every.agg(pl.len().cast(pl.Int64).alias("steps"))
        .join(told, on=keys, how="left", nulls_equal=True)
        .with_columns((pl.col("steps") - pl.col("usual").fill_null(0)).alias("slow_steps"))
        .sort("device_id", "process_id", "phase")
        .select(
            *keys, "steps", "slow_steps", *_COUNTS, *_TIMES, *PARTS
        )
    )  # fmt: skip


def asymmetry(ranks: pl.DataFrame) -> pl.DataFrame:
    """Set the slowest rank against the fastest: time outside calls, and time launching.

    Args:
        ranks: What ``anatomy`` returned.

    Returns:
        One row a phase that two ranks or more ran and a part of it (``outside`` or
        ``launching``), the phase of most time first: ``phase``, ``part``, ``ranks``,
        ``process_id`` and ``device_id`` of the slower, ``slower_ns``, ``faster_ns`` (medians of a
        step), ``by_ns`` (their difference), ``ratio`` (null where the faster took none).
    """
    known = ranks.filter(pl.col("wall_ns").is_not_null() & (pl.col("phase") != "idle"))
    return pl.concat([_apart(known, part) for part in ("outside", "launching")]).sort(
        "time", "phase", "part", descending=[True, False, True]
    ).drop("time")  # fmt: skip


def _apart(ranks: pl.DataFrame, part: str) -> pl.DataFrame:
    taken = pl.col(f"{part}_ns")
    return (
        ranks.group_by("phase")
        .agg(
            pl.lit(part).alias("part"),
            pl.len().cast(pl.Int64).alias("ranks"),
            pl.col("process_id", "device_id").get(taken.arg_max()),
            taken.max().alias("slower_ns"),
            taken.min().alias("faster_ns"),
            (pl.col("steps") * pl.col("wall_ns")).sum().alias("time"),
        )
        .filter(pl.col("ranks") > 1)
        .with_columns(
            (pl.col("slower_ns") - pl.col("faster_ns")).alias("by_ns"),
            pl.when(pl.col("faster_ns") > 0)
            .then(pl.col("slower_ns") / pl.col("faster_ns"))
            .alias("ratio"),
        )
    )


def launch_costs(calls: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Add how often a step of its phase makes each launch call.

    Args:
        calls: View ``launch_calls``.
        steps: View ``host_steps``.

    Returns:
        ``calls`` with ``phase`` never null and ``per_step`` (mean over all steps of the rank and
        phase); by rank, phase, kind and number of calls.
    """
    keys = [*_RANK, "phase"]
    known = [
        frame.with_columns(pl.col("phase").fill_null(UNATTRIBUTED)) for frame in (calls, steps)
    ]
    counted = known[1].group_by(keys).agg(pl.len().alias("steps"))
    return (
        known[0]
        .join(counted, on=keys, how="left")
        .with_columns((pl.col("calls") / pl.col("steps")).alias("per_step"))
        .drop("steps", "global_pid")
        .sort(
            "device_id", "process_id", "phase", "kind", pl.col("call").is_null(), "calls", "call",
            descending=[False, False, False, False, True, True, False],
        )
    )  # fmt: skip


def overhead_totals(overheads: pl.DataFrame, threads: Sequence[int]) -> pl.DataFrame:
    """Add up what nsys and CUPTI recorded of their own doing.

    Args:
        overheads: View ``profiler_overhead``.
        threads: The launching threads, as nsys serialises them.

    Returns:
        One row an origin and kind, the longest first: ``origin``, ``kind``, ``count``,
        ``total_ns`` (of these alone; they nest), ``added_ns`` (what they add to the union of
        their thread), ``in_window_ns`` (of it, while GPUs worked), ``on_launching_ns`` (of that,
        on launching threads).
    """
    is_launching = pl.col("global_tid").is_in(list(threads))
    return (
        overheads.group_by("origin", "kind")
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("dur_ns").sum().alias("total_ns"),
            pl.col("added_ns", "in_window_ns").sum(),
            pl.col("in_window_ns").filter(is_launching).sum().alias("on_launching_ns"),
        )
        .sort("added_ns", "total_ns", "origin", "kind", descending=[True, True, False, False])
    )


def latency_change(
    profiled: Sequence[float], control: Sequence[Sequence[float]]
) -> dict[str, Any] | None:
    """Set the latency of requests under the profiler against that without.

    Args:
        profiled: Seconds of each request of the profiled round.
        control: The same of each unprofiled round, the one to compare with last.

    Returns:
        ``profiled_s``, ``control_s`` (medians over requests), ``profiled_requests``,
        ``control_requests``, ``change`` (profiled / control - 1), ``control_rounds``,
        ``control_spread`` (largest median of the unprofiled rounds over the smallest, less 1;
        null with one round: how far rounds differ without any profiler). None where a side has no
        request to tell by.
    """
    rounds = [float(np.median(seconds)) for seconds in control if seconds]
    if not profiled or not control or not control[-1]:
        return None
    told = float(np.median(profiled))
    return {
        "profiled_s": told,
        "control_s": rounds[-1],
        "profiled_requests": len(profiled),
        "control_requests": len(control[-1]),
        "change": told / rounds[-1] - 1 if rounds[-1] else None,
        "control_rounds": len(rounds),
        "control_spread": max(rounds) / min(rounds) - 1
        if len(rounds) > 1 and min(rounds)
        else None,
    }
