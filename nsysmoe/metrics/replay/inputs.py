"""From the views of a trace to the arrays that a replay takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nsysmoe.metrics.replay.model import NONE, Host, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_CALL = ["global_tid", "call_start_ns", "call_end_ns"]
_STREAM = ["global_pid", "device_id", "context_id", "stream_id"]


def on_one_clock(frame: pl.DataFrame, clocks: pl.DataFrame, times: Sequence[str]) -> pl.DataFrame:
    """Return rows with times as rank 0's clock would have told them: what meets has one time.

    Args:
        frame: Rows with ``global_pid``.
        clocks: View ``clocks``.
        times: Its columns of ns.
    """
    # GPUs and threads of a process share a clock.
    fits = (
        clocks.filter("is_applied")
        .sort("rank")
        .unique("global_pid", keep="first")
        .select("global_pid", "zero_ns", "offset_ns", "drift_ppm")
    )
    offsets = (
        pl.col("offset_ns") + pl.col("drift_ppm") / 1e6 * (pl.col(time) - pl.col("zero_ns"))
        for time in times
    )
    return (
        frame.join(fits, on="global_pid", how="left", maintain_order="left")
        .with_columns(
            pl.col(time) - offset.round().cast(pl.Int64).fill_null(0)
            for time, offset in zip(times, offsets, strict=True)
        )
        .drop("zero_ns", "offset_ns", "drift_ppm")
    )


def work_of(gpu_work: pl.DataFrame, collectives: pl.DataFrame) -> tuple[Work, pl.DataFrame]:
    """Return what ran on GPUs.

    Args:
        gpu_work: View ``gpu_work``.
        collectives: View ``matched_collectives``; ``kernel_id``, ``name_id``, ``communicator``,
            ``ordinal``, ``is_matched``.

    Returns:
        The arrays, and ``gpu_work`` in their order with ``call``: the number of the launching call
        among the distinct ones (null where it was not recorded).
    """
    meetings = collectives.filter("is_matched").select(
        "kernel_id", _number("name_id", "communicator", "ordinal").alias("meeting")
    )
    rows = (
        gpu_work.join(meetings, on="kernel_id", how="left")
        .join(_calls(gpu_work), on=_CALL, how="left")
        .sort("start_ns", "end_ns", *_STREAM, "place")
    )
    # It had nothing to do before the launch was over; the first of a stream had nothing before it.
    is_late = (pl.col("late_ns") > 0) | pl.col("previous_end_ns").is_null()
    work = Work(
        start=_ints(rows, pl.col("start_ns")),
        end=_ints(rows, pl.col("end_ns")),
        stream=_ints(rows, _number(*_STREAM)),
        device=_ints(rows, _number("global_pid", "device_id")),
        process=_ints(rows, pl.col("global_pid").fill_null(NONE)),
        call=_ints(rows, pl.col("call").fill_null(NONE)),
        is_late=rows.select(is_late & pl.col("call").is_not_null()).to_series().to_numpy(),
        meeting=_ints(rows, pl.col("meeting").fill_null(NONE)),
    )
    return work, rows


def host_of(gpu_work: pl.DataFrame, blocking_calls: pl.DataFrame) -> Host:
    """Return what host threads did.

    Args:
        gpu_work: View ``gpu_work``.
        blocking_calls: View ``blocking_calls``.
    """
    calls = _calls(gpu_work).sort("call")
    threads = {
        thread: number
        for number, thread in enumerate(
            pl.concat([calls["global_tid"], blocking_calls["global_tid"]]).unique().sort()
        )
    }
    process = (pl.col("global_tid") // 2**24) * 2**24
    thread = pl.col("global_tid").replace_strict(threads, return_dtype=pl.Int64)
    return Host(
        call_start=_ints(calls, pl.col("call_start_ns")),
        call_end=_ints(calls, pl.col("call_end_ns")),
        call_thread=_ints(calls, thread),
        call_process=_ints(calls, process),
        block_start=_ints(blocking_calls, pl.col("start_ns")),
        block_end=_ints(blocking_calls, pl.col("end_ns")),
        block_thread=_ints(blocking_calls, thread),
        block_process=_ints(blocking_calls, process),
    )


def _calls(gpu_work: pl.DataFrame) -> pl.DataFrame:
    """Return the calls that launched work, numbered; a replayed graph's kernels share one."""
    return (
        gpu_work.select(_CALL)
        .drop_nulls()
        .unique()
        .sort(_CALL)
        .with_columns(pl.int_range(pl.len()).alias("call"))
    )


def _number(*columns: str) -> pl.Expr:
    return pl.struct(*columns).rank("dense").cast(pl.Int64) - 1


def _ints(frame: pl.DataFrame, values: pl.Expr) -> Ints:
    found: Any = frame.select(values.cast(pl.Int64)).to_series().to_numpy()
    return np.ascontiguousarray(found, dtype=np.int64)
