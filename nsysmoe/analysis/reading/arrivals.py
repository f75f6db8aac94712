"""Which rank the others wait for, and whether it is always the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.hosts import with_host
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from nsysmoe.trace import Trace
    from nsysmoe.trace.file_clocks import FileClock

# What ``waits_of_files`` needs of ``matched_collectives``.
MET = (
    "kernel_id",
    "name_id",
    "communicator",
    "ordinal",
    "is_matched",
    "is_last",
    "wait_ns",
    "dur_ns",
)
# The share of waiting from which on what the clocks cannot tell is most of it.
_MUCH = 0.2
# The share of meetings from which on one rank is the last.
_STABLE = 0.8


def known_clocks(trace: Trace) -> pl.DataFrame:
    """Return view ``clocks``, and a row without a rank for each file of several.

    What the clocks of files agree to bounds what can be said of ranks that share no collective
    with the first one, too.
    """
    import polars as pl  # noqa: PLC0415

    clocks = trace.frame("clocks")
    if not trace.members:
        return clocks
    rows = [
        {
            "meetings": clock.meetings,
            "zero_ns": clock.zero_ns,
            "offset_ns": clock.offset_ns,
            "drift_ppm": clock.drift_ppm,
            "residual_ns": clock.residual_ns,
            "is_applied": clock.is_applied,
        }
        for clock in trace.file_clocks
        if clock.reference is not None
    ]
    return pl.concat([clocks, pl.DataFrame(rows, schema_overrides=clocks.schema)], how="diagonal")


def waits_of_files(trace: Trace, events: pl.DataFrame) -> pl.DataFrame | None:
    """Return what the clocks of several files leave unsure of each wait; None for one clock.

    Files of one host whose clock was not off share the first one's.

    Args:
        trace: The run.
        events: View ``matched_collectives`` with the columns of ``MET``.

    Returns:
        What ``metrics.kernel_time.clock_error.waits_across_clocks`` does.
    """
    from nsysmoe.metrics.kernel_time.clock_error import waits_across_clocks  # noqa: PLC0415 - polars

    return _across(waits_across_clocks, trace, events)


def transfers_of_files(trace: Trace, events: pl.DataFrame) -> pl.DataFrame | None:
    """Return what the clocks of several files leave unsure of each transfer; None for one clock.

    Args:
        trace: The run.
        events: As ``waits_of_files`` takes them.

    Returns:
        What ``metrics.kernel_time.clock_error.transfers_across_clocks`` does.
    """
    from nsysmoe.metrics.kernel_time.clock_error import transfers_across_clocks  # noqa: PLC0415 - polars

    return _across(transfers_across_clocks, trace, events)


def _across(
    measure: Callable[[pl.DataFrame, Sequence[float | None]], pl.DataFrame],
    trace: Trace,
    events: pl.DataFrame,
) -> pl.DataFrame | None:
    """Return what a measure says of events with their files; None where these share one clock."""
    own = {clock.file: clock.file for clock in trace.file_clocks}
    own |= {clock.file: 0 for clock in trace.file_clocks if _is_shared(clock)}
    if len(set(own.values())) < 2:
        return None
    import polars as pl  # noqa: PLC0415

    from nsysmoe.trace.merged import FILE_BITS  # noqa: PLC0415 - DuckDB

    file = (pl.col("kernel_id") // (1 << FILE_BITS)).replace_strict(own, return_dtype=pl.Int64)
    return measure(
        events.with_columns(file=file), [clock.residual_ns for clock in trace.file_clocks]
    )


def _is_shared(clock: FileClock) -> bool:
    return clock.reference is not None and not clock.is_applied


def total_uncertainty(across: pl.DataFrame, total_ns: int, source: str) -> list[Finding]:
    """Say how far the total of waiting may be off by the clocks of several files.

    Args:
        across: What ``waits_of_files`` returned, of the ranks that waited.
        total_ns: Waiting over all ranks.
        source: What was read.
    """
    if across.is_empty() or not total_ns:
        return []
    from nsysmoe.metrics.kernel_time.clock_error import wait_uncertainty  # noqa: PLC0415 - polars

    unsure = int(wait_uncertainty(across)["wait_uncertainty_ns"].sum())
    part = unsure / total_ns
    undecided = across.filter(~across["is_decided"]).height
    return [
        Finding(
            "waiting_uncertainty",
            "warning" if part > _MUCH else "info",
            f"waiting in {source} is {total_ns / 1e6:,.2f} ms, and may be off by up to "
            f"{unsure / 1e6:,.2f} ms ({part:.1%}) by what the clocks of its files agree to; "
            f"{undecided:,} of {across.height:,} waits across files are in meetings that they "
            "cannot decide",
            {
                "source": source,
                "wait_ns": total_ns,
                "wait_uncertainty_ns": unsure,
                "waits": across.height,
                "undecided": undecided,
            },
        )
    ]


def unsure_waits(waits: pl.Series, clocks: pl.DataFrame, source: str) -> list[Finding]:
    """Say how much waiting is of waits that the clocks of several files cannot tell from none.

    Args:
        waits: Waiting of ranks in meetings, ns.
        clocks: What ``known_clocks`` returned.
        source: What was read.
    """
    residual = float(clocks["residual_ns"].max() or 0.0)  # type: ignore[arg-type]
    real = waits.drop_nulls()
    total, short = int(real.sum()), real.filter(real < residual)
    if not total:
        return []
    part = int(short.sum()) / total
    return [
        Finding(
            "waits_below_residual",
            "warning" if part > _MUCH else "info",
            f"{part:.1%} of the waiting in {source} is of waits shorter than the "
            f"{residual / 1e3:,.1f} us to which the clocks of its files agree: no evidence by "
            "themselves",
            {"source": source, "residual_ns": residual, "waits": short.len(), "time_ratio": part},
        )
    ]


# What ``arrivals`` asks of a trace, as ``Trace.read_ahead`` takes it.
TURNS: tuple[tuple[str, None], ...] = (("arrival_turns", None), ("communicator_meetings", None))


def arrivals(
    trace: Trace, clocks: pl.DataFrame, hosts: Mapping[int, str] | None = None
) -> dict[str, Any] | None:
    """Return who arrives last most often, by meetings that the clocks can decide.

    Args:
        trace: The run.
        clocks: What ``known_clocks`` returned.
        hosts: As ``Trace`` has it, where the ranks are to be told with their hosts.

    Returns:
        ``rank``, ``share``, ``pattern`` (stable, rotating or in stretches), ``decided`` and
        ``undecided`` meetings, ``residual_ns`` (what the clocks agree to), ``ranks`` (what
        ``last_arrivals`` returned); None where no meeting is decided.
    """
    from nsysmoe.metrics.kernel_time.collectives import last_arrivals  # noqa: PLC0415 - imports polars

    residual = float(clocks["residual_ns"].max() or 0.0)  # type: ignore[arg-type]
    if math.isnan(residual):
        # Clocks that could not be compared agree to nothing: nobody can say who was last.
        return None
    # Margins are integers: none lies between the two.
    trace.tell("nsysmoe.clock_residual", [(math.floor(residual),)])
    rows = last_arrivals(with_host(trace.frame("arrival_turns"), hosts or {})).to_dicts()
    if not rows:
        return None
    first = (rows[0]["global_pid"], rows[0]["device"])
    for row in rows:
        del row["global_pid"]
    decided = sum(row["last"] for row in rows)
    meetings = int(trace.frame("communicator_meetings")["meetings"].sum())
    ranks = {
        (row["global_pid"], row["device_id"]): row["rank"] for row in clocks.iter_rows(named=True)
    }
    return {
        "rank": ranks.get(first),
        "share": rows[0]["share"],
        "pattern": _pattern(rows[0]["share"], rows[0]["switches"], len(rows)),
        "decided": decided,
        "undecided": meetings - decided,
        "residual_ns": residual,
        "ranks": rows,
    }


def arrivals_text(part: dict[str, Any]) -> str:
    """Say in one clause what ``arrivals`` returned."""
    return (
        f"rank {part['rank']} in {part['share']:.0%} of {part['decided']:,} meetings "
        f"({part['pattern']}), {part['undecided']:,} others decided by less than the "
        f"{part['residual_ns'] / 1e3:,.1f} us to which the clocks agree"
    )


def _pattern(share: float, switches: float | None, ranks: int) -> str:
    """Return stable, rotating, or in stretches, by how often the last rank changes."""
    if share >= _STABLE or ranks == 1:
        return "stable"
    # Drawn at random each time, the last rank of n would change in 1 - 1/n of the meetings.
    return "rotating" if (switches or 0.0) > (1 - 1 / ranks) / 2 else "in stretches"
