"""Why ranks waited: the ledger, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.waits import CAUSES
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.reports.tables import UNSURE, left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.one_trace.waits import Waits

_NAMES = {
    "moe": "MoE kernels took longer",
    "other_kernels": "other kernels and copies took longer",
    "host": "the host launched later",
    "other_gap": "other gaps were longer",
    "previous_end": "the collective before ended later",
    "residual": "not explained (other streams, clocks)",
}
WAIT_CAUSES = {
    "moe": "MoE kernels",
    "other_kernels": "Other kernels",
    "host": "Host",
    "other_gap": "Other gaps",
    "previous_end": "Collective before",
    "residual": "Not explained",
}
_NOTE = (
    "What the last rank did more than the one that waited, since their last matched collective; "
    "negative where it did less. The causes add up to the waiting. The first collective of a "
    "stream is left out: there is nothing before it to count from."
)


def waits_page(waits: Waits) -> Document:
    """Return waiting by cause and phase, or one row for each value of ``by``."""
    caption = f"Waiting of {waits.source}"
    table = _by_cause(waits, caption) if waits.by == "cause" else _by_key(waits, caption)
    return Document(
        title=caption,
        tables=(table,),
        data=_data(waits),
        records=waits.rows or _cause_records(waits),
        findings=waits.findings,
        notes=(_NOTE,),
    )


def _by_cause(waits: Waits, caption: str) -> Table:
    columns = (
        Column("The last rank came later because", "left"),
        Column("Waiting (ms)"),
        Column("Share"),
        *(Column(f"{phase} (ms)") for phase in waits.phases),
    )
    total = waits.whole["wait_ns"]
    rows = [
        Row(
            (
                _NAMES[cause],
                numbers.milliseconds(waits.whole[cause]),
                numbers.share(waits.whole[cause] / total if total else None),
                *(numbers.milliseconds(found[cause]) for found in waits.phases.values()),
            )
        )
        for cause in CAUSES
    ]
    sums = (found["wait_ns"] for found in waits.phases.values())
    rows.append(
        Row(("all", numbers.milliseconds(total), numbers.share(1.0 if total else None),
             *map(numbers.milliseconds, sums)))
    )  # fmt: skip
    if "wait_uncertainty_ns" in waits.whole:
        rows.append(_unsure(waits))
    return Table(caption, columns, tuple(rows))


def _unsure(waits: Waits) -> Row:
    """Return how far the line above may be off."""
    parts = [waits.whole, *waits.phases.values()]
    unsure, *phases = (numbers.milliseconds(part["wait_uncertainty_ns"]) for part in parts)
    total = waits.whole["wait_ns"]
    share = numbers.share(waits.whole["wait_uncertainty_ns"] / total if total else None)
    return Row(("± what clocks of the files agree to", unsure, share, *phases))


def _by_key(waits: Waits, caption: str) -> Table:
    measured = ("collectives", "wait_ns", "wait_uncertainty_ns", *CAUSES)
    is_unsure = "wait_uncertainty_ns" in waits.rows[0]
    keys = [key for key in waits.rows[0] if key not in measured]
    columns = (
        *(left(key.replace("_", " ").capitalize(), key, numbers.as_is) for key in keys),
        right("Collectives", "collectives", numbers.count),
        right("Waiting (ms)", "wait_ns", numbers.milliseconds),
        *([UNSURE] if is_unsure else []),
        *(
            right(f"{cause.replace('_', ' ')} (ms)", cause, numbers.milliseconds)
            for cause in CAUSES
        ),
    )
    return table(caption, waits.rows, columns)


def _data(waits: Waits) -> Any:
    if waits.by != "cause":
        return [_nested(row) for row in waits.rows]
    return {
        **_nested(waits.whole),
        "phases": {phase: _nested(row) for phase, row in waits.phases.items()},
    }


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key not in CAUSES}
    return {**flat, "causes": {cause: row[cause] for cause in CAUSES}}


def _cause_records(waits: Waits) -> tuple[dict[str, Any], ...]:
    parts = {"all": waits.whole, **waits.phases}
    return tuple(
        {"phase": phase, "cause": cause, "wait_ns": row[cause]}
        for phase, row in parts.items()
        for cause in CAUSES
    )
