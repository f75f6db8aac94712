"""From the views of a trace to the arrays that a replay takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nsysmoe.metrics.replay.model import NONE, Host, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


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


def work_of(
    columns: Mapping[str, NDArray[Any]], streams: pl.DataFrame
) -> tuple[Work, dict[str, Ints]]:
    """Return what ran on GPUs, and what launched it.

    Args:
        columns: View ``replayed_work`` as arrays, NONE where it is NULL: ``start_ns``, ``end_ns``,
            ``stream``, ``is_late``, ``meeting``, ``global_tid``, ``call_start_ns``,
            ``call_end_ns``.
        streams: View ``replayed_streams``.

    Returns:
        The work, and the distinct calls that launched any (``global_tid``, ``start_ns``,
        ``end_ns``): a replayed graph's kernels share one.

    Raises:
        ValueError: Rows are not in order of their starts.
    """
    start, stream = columns["start_ns"], columns["stream"]
    if (start[1:] < start[:-1]).any():
        raise ValueError("rows came out of order")
    of_stream = streams.sort("stream")
    process = of_stream["global_pid"].fill_null(NONE).to_numpy()
    number, calls = _calls(columns)
    work = Work(
        start=start,
        end=columns["end_ns"],
        stream=stream,
        device=of_stream["device"].cast(pl.Int32).to_numpy()[stream],
        process=process[stream],
        call=number,
        is_late=columns["is_late"],
        meeting=columns["meeting"],
    )
    return work, calls


def host_of(calls: Mapping[str, Ints], blocking_calls: pl.DataFrame) -> Host:
    """Return what host threads did.

    Args:
        calls: What ``work_of`` returned.
        blocking_calls: View ``blocking_calls``.
    """
    blocks: dict[str, Ints] = {
        name: blocking_calls[name].to_numpy() for name in ("global_tid", "start_ns", "end_ns")
    }
    both = np.concatenate([calls["global_tid"], blocks["global_tid"]])
    thread = np.unique(both, return_inverse=True)[1].astype(np.int32)
    count = calls["global_tid"].size
    return Host(
        call_start=calls["start_ns"],
        call_end=calls["end_ns"],
        call_thread=thread[:count],
        call_process=_process(calls["global_tid"]),
        block_start=blocks["start_ns"],
        block_end=blocks["end_ns"],
        block_thread=thread[count:],
        block_process=_process(blocks["global_tid"]),
    )


def _process(global_tid: Ints) -> Ints:
    """Return a thread's process, as nsys serialises it."""
    process: Ints = global_tid >> 24 << 24
    return process


def _calls(columns: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.int32], dict[str, Ints]]:
    """Return the number of the call that launched each work, and the calls by thread and time."""
    keys = {
        "global_tid": columns["global_tid"],
        "start_ns": columns["call_start_ns"],
        "end_ns": columns["call_end_ns"],
    }
    known = np.flatnonzero(keys["global_tid"] != NONE)
    order = known[np.lexsort([key[known] for key in reversed(keys.values())])]
    is_new = np.ones(order.size, dtype=bool)
    is_new[1:] = False
    for key in keys.values():
        is_new[1:] |= key[order[1:]] != key[order[:-1]]
    number = np.full(columns["stream"].size, NONE, dtype=np.int32)
    number[order] = np.cumsum(is_new) - 1
    return number, {name: key[order[is_new]] for name, key in keys.items()}
