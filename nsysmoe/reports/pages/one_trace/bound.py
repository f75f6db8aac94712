"""What bounds each phase, and where the wall time of two arms went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.causes import BoundChange, bound_changes, bound_of, sum_interval
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.one_trace.bound import Bound

_BOUNDS = {
    "moe": "MoE",
    "other_compute": "Other compute",
    "transfer": "Transfer",
    "host": "Host",
    "sync": "Sync",
    "latency": "Latency",
    "unexplained": "Unexplained",
}
CAUSES = {
    "moe": "MoE kernels",
    "wait_moe": "waiting: MoE kernels took longer on another rank",
    "other_compute": "other kernels",
    "copy": "copies and fills",
    "wait_other_kernels": "waiting: other kernels took longer on another rank",
    "transfer": "transfer",
    "unmatched": "communication that could not be paired",
    "host": "idle: the host launched late",
    "wait_host": "waiting: another rank's host launched late",
    "sync": "idle: the host was in a synchronising call",
    "latency": "idle: launched, not yet started",
    "wait_other_gap": "waiting: another rank's launched work started late",
    "unknown_launch": "idle: the launch was not recorded",
    "wait_unexplained": "waiting: not explained",
}
_NOTE = (
    "Shares of the wall time of all GPUs, adding up to 100 %. Waiting for another rank counts to "
    "what made that rank late; idle time to what the launching thread did meanwhile. Sync: inside "
    "a synchronising call. Latency: launched, not yet started."
)


def bound_page(bound: Bound) -> Document:
    """Return the shares of each bound, by phase or by rank in a phase."""
    caption = f"What bounds {bound.source}"
    columns = (
        Column("Phase", "left"),
        *((Column("Process"), Column("Device")) if bound.by == "rank" else ()),
        Column("Time (ms)"),
        Column("Bound by", "left"),
        *map(Column, _BOUNDS.values()),
    )
    return Document(
        title=caption,
        lead=(bound.sentence,),
        tables=(Table(caption, columns, tuple(map(_row, bound.rows))),),
        data=list(bound.rows),
        records=tuple(_flat(row) for row in bound.rows),
        findings=bound.findings,
        notes=(_NOTE,),
    )


def causes_table(
    causes: Sequence[dict[str, Any]], baseline_label: str, candidate_label: str
) -> Table:
    """Return where the wall time of two arms went, and what its change is made of."""
    is_unsure = any(row.get("uncertainty_ns") is not None for row in causes)
    columns = (
        Column("Wall time went into", "left"),
        Column(f"{baseline_label} (ms)"),
        Column(f"{candidate_label} (ms)"),
        Column("Change (ms)"),
        *((Column("± clocks (ms)"),) if is_unsure else ()),
    )
    keys = ("baseline_ns", "candidate_ns", "change_ns")
    shown = [row for row in causes if any(row[key] for key in keys[:2])]
    titles = {
        bound: _title(_BOUNDS[bound], change) for bound, change in bound_changes(shown).items()
    }
    rows = [
        Row(
            (
                CAUSES.get(row["cause"], row["cause"]),
                *(_signed(row, key) for key in keys),
                *((_unsure(row),) if is_unsure else ()),
            ),
            titles[bound_of(row["cause"])],
        )
        for row in shown
    ]
    sums = {key: sum(row[key] for row in shown) for key in keys}
    # A window is of one GPU, and so of one clock.
    empty = ("",) if is_unsure else ()
    whole = BoundChange(sums["change_ns"], sum_interval(shown))
    title = "All" if whole.interval_ns is None else _title("All", whole)
    total = Row(("wall time", *(_signed(sums, key) for key in keys), *empty), title)
    rows.append(total)
    return Table("Change of wall time by cause", columns, tuple(rows))


def _title(name: str, change: BoundChange) -> str:
    told = f"{name}: {_signed(change._asdict(), 'change_ns')} ms"
    if change.interval_ns is None:
        return told
    low, high = (_signed({"change_ns": ns}, "change_ns") for ns in change.interval_ns)
    return f"{told} ({low} to {high}, 95% over runs)"


def _unsure(row: dict[str, Any]) -> str:
    ns = row.get("uncertainty_ns")
    return "" if ns is None else numbers.milliseconds(ns)


def _signed(row: dict[str, Any], key: str) -> str:
    text = numbers.milliseconds(row[key])
    return f"+{text}" if key == "change_ns" and row[key] > 0 else text


def _row(row: dict[str, Any]) -> Row:
    place = (numbers.as_is(row["process"]), numbers.as_is(row["device"])) if "device" in row else ()
    return Row(
        (
            row["phase"],
            *place,
            numbers.milliseconds(row["window_ns"]),
            _BOUNDS[row["bound"]],
            *(numbers.share(row["shares"][name]) for name in _BOUNDS),
        )
    )


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in row.items() if key not in {"shares", "causes"}}
    shares = {f"{name}_ratio": value for name, value in row["shares"].items()}
    return {**rest, **shares, **{f"{name}_ns": value for name, value in row["causes"].items()}}
