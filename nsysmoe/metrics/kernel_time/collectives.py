"""What communication kernels did with their time: transfer, and waiting for the last rank."""

from __future__ import annotations

from typing import Literal

import polars as pl

from nsysmoe.metrics.kernel_time.clock_error import transfer_uncertainty, wait_uncertainty


def collective_times(
    totals: pl.DataFrame,
    by: Literal["communicator"] | None = None,
    across: pl.DataFrame | None = None,
    transfers: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Summarise collectives that were paired across ranks, by kernel and device.

    Args:
        totals: View ``collective_totals``: ``function``, ``global_pid``, ``process_id``,
            ``device_id``, ``communicator``, ``is_matched``, ``launches``, ``dur_ns``, ``wait_ns``,
            ``transfer_ns`` (these two and the communicator null where not matched; times in ns),
            ``arrived_last``, and ``host`` where there are several.
        by: Whether to tell communicators apart as well; what was not paired has none.
        across: What ``clock_error.waits_across_clocks`` returned, with the columns by which
            totals are told apart; None for a run on one clock.
        transfers: The same of ``clock_error.transfers_across_clocks``, beside ``across``.

    Returns:
        ``collective`` (function name), ``host`` where it is known, ``process``, ``device`` (and
        ``communicator``), ``matched`` and ``unmatched`` (launches), ``total_ns`` (durations),
        ``transfer_ns`` (last arrival to first end), ``wait_ns`` (own start to last arrival), with
        ``across`` and ``transfers`` how far these may be off by clocks (``wait_uncertainty_ns``,
        ``transfer_uncertainty_ns``),
        ``arrived_last`` (launches), the largest total first. A matched launch is wait + transfer +
        the skew of the ends.
    """
    host = ["host"] if "host" in totals.columns else []
    keys = ["function", *host, "global_pid", "process_id", "device_id", *([by] if by else [])]
    is_matched = pl.col("is_matched")
    sums = (
        totals.group_by(keys)
        .agg(
            pl.col("launches").filter(is_matched).sum().alias("matched"),
            pl.col("launches").filter(~is_matched).sum().alias("unmatched"),
            pl.col("dur_ns").sum().alias("total_ns"),
            pl.col("transfer_ns", "wait_ns", "arrived_last").sum(),
        )
        .sort("total_ns", *keys, descending=[True, *[False] * len(keys)])
    )
    for unsure, measure in ((across, wait_uncertainty), (transfers, transfer_uncertainty)):
        if unsure is not None:
            found = measure(unsure, keys)
            sums = sums.join(
                found, on=keys, how="left", nulls_equal=True, maintain_order="left"
            ).with_columns(pl.col(found.columns[-1]).fill_null(0))
    return sums.drop("global_pid").rename(
        {"function": "collective", "process_id": "process", "device_id": "device"}
    )


def last_arrivals(turns: pl.DataFrame) -> pl.DataFrame:
    """Return who arrives last, counting only meetings that the clocks can decide.

    Args:
        turns: View ``arrival_turns``, of several hosts with ``host``.

    Returns:
        ``communicator``, ``global_pid``, ``process``, ``device``, ``last`` (meetings), ``share``
        (of the decided ones of its communicator), ``switches`` (share of these whose last rank is
        another than in the one before, null of one alone), the most frequent first.
    """
    # Processes of two hosts may share a number.
    host = ["host"] if "host" in turns.columns else []
    decided = pl.col("meetings").sum().over("communicator")
    switches = pl.col("switches").sum().over("communicator")
    return (
        turns.with_columns(
            (pl.col("meetings") / decided).alias("share"),
            pl.when(decided > 1).then(switches / (decided - 1)).alias("switches"),
        )
        .rename({"process_id": "process", "device_id": "device", "meetings": "last"})
        .select(
            "communicator", *host, "global_pid", "process", "device", "last", "share", "switches"
        )
        .sort("last", "communicator", "device", "global_pid", descending=[True, *[False] * 3])
    )
