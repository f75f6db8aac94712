"""How wrong waiting may be where ranks are told by clocks that agree only so far.

Arrivals of two files are compared through two clocks, each of which may be off by its residual r.
A meeting whose last rank leads by more than that is decided: its waits move by what the clock of
the last rank is off less what that of the waiting one is. That has two parts. An offset that stays
moves every wait of a file by the same, so it grows with the number of waits; but what ranks of one
file waited for another is opposed by what the other waited for it, and only the difference of the
counts is left. What changes from meeting to meeting averages out and grows with the square root.
Meetings that are not decided have no such order, and count with all that their waits may be.

Transfer is the time from the last arrival to the first departure: where these are of two files, it
moves by what the clock of the first to leave is off less what that of the last to come is, and its
sum by the same two parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEETING = ["name_id", "communicator", "ordinal"]
_UNKNOWN = float("inf")


def waits_across_clocks(events: pl.DataFrame, residuals: Sequence[float | None]) -> pl.DataFrame:
    """Return what clocks leave unsure of each wait among ranks of several files.

    With x an arrival before that of the last rank, f the file of a rank and r what its clock may
    be off by, a wait lies within

        max over files g of (latest of g ∓ (r_f + r_g)) - x,   r_f + r_g = 0 for g = f,

    and within 0 and the kernel's duration whatever clocks say: no rank leaves before the last one
    has come.

    Args:
        events: Communication kernels; ``kernel_id``, ``file``, ``name_id``, ``communicator``,
            ``ordinal``, ``is_matched``, ``is_last``, ``wait_ns``, ``dur_ns``.
        residuals: What the clock of each file may be off by, ns; None where that is not known.

    Returns:
        One row a matched kernel whose meeting has ranks of two files or more: ``kernel_id``, the
        columns of the meeting, ``file``, ``late_file`` (of the last rank), ``is_last``,
        ``is_decided``, ``off_ns`` and ``late_off`` (r of these two files), ``reach_ns`` (their
        sum, 0 where they are one), ``slack_ns`` (how far the wait may be from what was measured,
        whoever was last).
    """
    met = _with_clocks(events, residuals)
    files = _files(met)
    arrived = files.select(*_MEETING, "file", "latest", "surely", "perhaps")
    return (
        met.join(arrived, on=[*_MEETING, "file"], nulls_equal=True)
        .join(_meetings(files), on=_MEETING, nulls_equal=True)
        .with_columns(
            reach_ns=pl.when(pl.col("file") == pl.col("late_file"))
            .then(0.0)
            .otherwise(pl.col("off_ns") + pl.col("late_off")),
            # The last rank's own arrival is 0 here.
            is_decided=_among_others("perhaps", own=pl.col("late_off")) < -pl.col("late_off"),
            slack_ns=_slack(),
        )
        .select("kernel_id", *_MEETING, "file", "late_file", "off_ns", "late_off", "is_last",
                "is_decided", "reach_ns", "slack_ns")
    )  # fmt: skip


def transfers_across_clocks(
    events: pl.DataFrame, residuals: Sequence[float | None]
) -> pl.DataFrame:
    """Return what clocks leave unsure of each transfer among ranks of several files.

    With e the departure of the first rank to leave of a file, relative to the last arrival, a
    transfer lies within

        min over files f of (e - max over files g of (latest of g ± (r_f + r_g))),

    and within 0 and the shortest duration whatever clocks say.

    Args:
        events: As ``waits_across_clocks`` takes them.
        residuals: As ``waits_across_clocks`` takes them.

    Returns:
        One row a matched kernel whose meeting has ranks of two files or more: ``kernel_id``, the
        columns of the meeting, and those that ``transfer_uncertainty`` reads: ``file``,
        ``off_ns`` (where the last rank came), ``late_file``, ``late_off`` (where the first left),
        ``is_decided`` (both), ``reach_ns``, ``slack_ns``.
    """
    met = _with_clocks(events, residuals)
    files = _files(met)
    meetings = _transfers(files.join(_meetings(files), on=_MEETING, nulls_equal=True))
    return met.select("kernel_id", *_MEETING).join(meetings, on=_MEETING, nulls_equal=True)


def transfer_uncertainty(transfers: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Return how far sums of transfer may be off by what clocks of files agree to.

    Args:
        transfers: Rows of ``transfers_across_clocks``, and the columns of ``by``.
        by: As ``wait_uncertainty`` takes them.

    Returns:
        ``by`` and ``transfer_uncertainty_ns``, made up as ``wait_uncertainty_ns`` is.
    """
    return wait_uncertainty(transfers, by).rename(
        {"wait_uncertainty_ns": "transfer_uncertainty_ns"}
    )


def wait_uncertainty(waits: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Return how far sums of waiting may be off by what clocks of files agree to.

    Args:
        waits: Rows of ``waits_across_clocks``, and the columns of ``by``. Over all ranks of a
            meeting only those that are not last: what the last one may have waited is then what
            another did not.
        by: Columns to group by; one row comes back where it is empty.

    Returns:
        ``by`` and ``wait_uncertainty_ns``: the sum over files of r times what its ranks were
        waited for more often than they waited, in meetings that are decided; with it the root of
        the sum over these of (r_f + r_g)²; and what the others may be off by, whole.
    """
    decided, others = waits.filter("is_decided"), waits.filter(~pl.col("is_decided"))
    whole = waits.select(pl.lit(0).alias("_"), *by).unique()
    keys = ["_", *by]
    parts = [
        _held(decided, by),
        decided.group_by(*dict.fromkeys((*by, *_MEETING)))
        .agg(ordered_sum(pl.col("reach_ns")))
        .with_columns(_=pl.lit(0))
        .group_by(keys)
        .agg(off=ordered_sum(pl.col("reach_ns") ** 2).sqrt()),
        others.with_columns(_=pl.lit(0)).group_by(keys).agg(off=ordered_sum(pl.col("slack_ns"))),
    ]
    added = (
        pl.concat([part.select(*keys, "off") for part in parts])
        .group_by(keys)
        .agg(ordered_sum(pl.col("off")).alias("wait_uncertainty_ns"))
    )
    return (
        whole.join(added, on=keys, how="left", nulls_equal=True)
        # Whole ns: the order in which floats are added up must not be seen.
        .with_columns(pl.col("wait_uncertainty_ns").fill_null(0.0).ceil().cast(pl.Int64))
        .sort(by or ["_"])
        .drop("_")
    )


def uncertain_metrics(
    across: pl.DataFrame, transfers: pl.DataFrame, devices: int
) -> dict[str, float]:
    """Return how far metrics of waiting and transfer may be off by clocks, ns by metric.

    Args:
        across: What ``waits_across_clocks`` returned.
        transfers: What ``transfers_across_clocks`` returned.
        devices: How many devices ``exposed_wait_ns`` and ``exposed_transfer_ns`` are means of.

    Returns:
        ``wait_ns`` and ``transfer_ns`` (over all ranks), ``exposed_wait_ns`` and
        ``exposed_transfer_ns``: the last arrival is where a kernel's waiting ends and its transfer
        begins, so what is exposed of both moves by no more than the waiting of its device does.
    """
    total = wait_uncertainty(across.filter(~pl.col("is_last")))
    by_file = wait_uncertainty(across, ["file"])
    exposed = float(by_file["wait_uncertainty_ns"].sum()) / max(1, devices)
    moved = transfer_uncertainty(transfers)
    return {
        "wait_ns": float(total["wait_uncertainty_ns"].sum()),
        "transfer_ns": float(moved["transfer_uncertainty_ns"].sum()),
        "exposed_wait_ns": exposed,
        "exposed_transfer_ns": exposed,
    }


def _held(decided: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return what offsets that stay may add up to: a file's own, by the counts that it moves."""
    apart = decided.filter(pl.col("reach_ns") > 0).with_columns(_=pl.lit(0))
    signs = pl.concat(
        [
            apart.select("_", *by, pl.col(name).alias("clock"), pl.lit(sign).alias("sign"),
                         pl.col(off).alias("off_ns"))
            for name, sign, off in (("late_file", 1, "late_off"), ("file", -1, "off_ns"))
        ]
    )  # fmt: skip
    return (
        signs.group_by("_", *by, "clock")
        .agg(off=pl.col("sign").sum().abs() * pl.col("off_ns").first())
        .group_by("_", *by)
        .agg(ordered_sum(pl.col("off")))
    )


def _with_clocks(events: pl.DataFrame, residuals: Sequence[float | None]) -> pl.DataFrame:
    """Return matched kernels with ``off_ns``: what the clock of their file may be off by."""
    clocks = pl.DataFrame(
        {
            "file": list(range(len(residuals))),
            "off_ns": [_UNKNOWN if found is None else float(found) for found in residuals],
        },
        schema={"file": pl.Int64, "off_ns": pl.Float64},
    )
    columns = (*_MEETING, "kernel_id", "file", "is_last", "wait_ns", "dur_ns")
    return (
        events.filter("is_matched")
        .select(columns)
        .with_columns(pl.col("file").cast(pl.Int64), pl.col("wait_ns", "dur_ns").cast(pl.Float64))
        .join(clocks, on="file")
    )


def _files(met: pl.DataFrame) -> pl.DataFrame:
    """Return for each file of a meeting its latest arrival and its first departure.

    Both are relative to the last arrival of all; ``surely`` and ``perhaps`` are the earliest and
    the latest that ``latest`` may be, ``shortest`` the shortest duration.
    """
    files = met.group_by(*_MEETING, "file").agg(
        latest=-pl.col("wait_ns").min(),
        first=(pl.col("dur_ns") - pl.col("wait_ns")).min(),
        shortest=pl.col("dur_ns").min(),
        off_ns=pl.col("off_ns").first(),
    )
    return files.with_columns(
        surely=pl.col("latest") - pl.col("off_ns"), perhaps=pl.col("latest") + pl.col("off_ns")
    )


def _transfers(files: pl.DataFrame) -> pl.DataFrame:
    """Return of each meeting who came last and left first, and how sure its transfer is."""
    off, left = pl.col("off_ns"), pl.col("first")
    last = pl.col("file") == pl.col("late_file")
    is_last = pl.when(last).then(pl.lit(float("-inf"))).otherwise(pl.col("perhaps"))
    earliest, others = (left - off).sort_by(left, "file"), pl.col("file").sort_by(left, "file")
    bounds = {
        name: left - pl.max_horizontal("latest", _among_others(of, own=pl.col(of)) + sign * off)
        for name, of, sign in (("least", "perhaps", 1), ("most", "surely", -1))
    }
    return (
        files.with_columns(**bounds)
        .group_by(_MEETING)
        .agg(
            pl.col("least", "most", "shortest").min(),
            transfer=left.min(),
            came=is_last.max() < (pl.col("surely").filter(last).first()),
            went=earliest.slice(1).min() > (left + off).sort_by(left, "file").first(),
            file=pl.col("late_file").first(),
            off_ns=pl.col("late_off").first(),
            late_file=others.first(),
            late_off=off.sort_by(left, "file").first(),
        )
        .select(
            *_MEETING,
            "file",
            "off_ns",
            "late_file",
            "late_off",
            is_decided=pl.col("came") & pl.col("went"),
            reach_ns=pl.when(pl.col("file") == pl.col("late_file"))
            .then(0.0)
            .otherwise(pl.col("off_ns") + pl.col("late_off")),
            slack_ns=pl.max_horizontal(
                pl.min_horizontal("most", "shortest") - pl.col("transfer"),
                pl.col("transfer") - pl.max_horizontal("least", 0.0),
            ),
        )
    )


def _meetings(files: pl.DataFrame) -> pl.DataFrame:
    """Return which file came last in each meeting of several, and who came first and second."""
    in_order = {"descending": [True, False]}
    return (
        files.group_by(_MEETING)
        .agg(
            pl.len().alias("files"),
            late_file=pl.col("file").sort_by("latest", "file", **in_order).first(),  # type: ignore[arg-type]
            late_off=pl.col("off_ns").sort_by("latest", "file", **in_order).first(),  # type: ignore[arg-type]
            **{
                f"{name}_{place}": pl.col(name).top_k(place).min()
                for name in ("surely", "perhaps")
                for place in (1, 2)
            },
        )
        .filter(pl.col("files") > 1)
    )


def _among_others(name: str, own: pl.Expr) -> pl.Expr:
    """Return the largest of other files' values: the second, where the first is the file's own."""
    first, second = pl.col(f"{name}_1"), pl.col(f"{name}_2")
    return pl.when(first == own).then(second).otherwise(first)


def _slack() -> pl.Expr:
    """Return how far a wait may be from what was measured, either way."""
    wait, off, latest = pl.col("wait_ns"), pl.col("off_ns"), pl.col("latest")
    others = [
        _among_others(name, own=pl.col(name)) + sign * off
        for name, sign in (("perhaps", 1), ("surely", -1))
    ]
    most = pl.min_horizontal(pl.max_horizontal(latest, others[0]) + wait, "dur_ns")
    least = pl.max_horizontal(pl.max_horizontal(latest, others[1]) + wait, 0.0)
    return pl.max_horizontal(most - wait, wait - least)
