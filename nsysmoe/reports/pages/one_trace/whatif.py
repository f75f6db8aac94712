"""What a trace would have taken if some of it had cost less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.one_trace.whatif import WhatIf

_NAMES = {
    "balanced_moe": "perfectly balanced experts",
    "no_host_delay": "no host delay",
    "free_transfer": "free transfer",
    "no_stalls": "no stalls",
}
# A saving below this part of the wall time is none.
_NOTABLE = 0.001
_NOTE = (
    "Wall time of the GPU whose window is longest. The replay keeps what waited for what, and the "
    "gaps between; docs/causes.md says what it cannot know."
)


def whatif_page(found: WhatIf) -> Document:
    """Return wall time by phase under a change, or every removal alone and in order."""
    return Document(
        title=f"What if: {found.source}",
        lead=(_sentence(found),),
        tables=(_phases(found),) if not found.alone else removal_tables(found),
        data=_data(found),
        records=_records(found),
        findings=found.findings,
        notes=(
            f"The unchanged replay takes {numbers.milliseconds(found.replayed_ns)} ms, "
            f"{found.replay_error:+.2%} of the traced {numbers.milliseconds(found.traced_ns)}. "
            + _NOTE,
        ),
    )


def removal_tables(found: WhatIf) -> tuple[Table, ...]:
    """Return what each removal saves by itself, and the order in which bottlenecks fall."""
    alone = [{**row, "added": row["change"][0]} for row in found.alone]
    alone.sort(key=lambda row: -row["saved_ns"])
    whole = Row(("the trace as it was", numbers.milliseconds(found.replayed_ns), "0", "0.0%"))
    return tuple(
        Table(
            caption,
            REMOVAL_COLUMNS,
            (whole, *(removal_row(row, found.replayed_ns) for row in rows)),
        )
        for caption, rows in (
            ("Each alone", alone),
            ("In the order in which bottlenecks fall", found.order),
        )
    )


REMOVAL_COLUMNS = (
    Column("With", "left"),
    Column("Wall time (ms)"),
    Column("Saved (ms)"),
    Column("Saved"),
)


def removal_row(row: dict[str, Any], replayed_ns: float, group: str = "") -> Row:
    """Return the row of a removal, after what was removed before it."""
    before = "and " if len(row["change"]) > 1 else ""
    return Row(
        (
            f"{before}{_NAMES[row['added']]}",
            numbers.milliseconds(row["whatif_ns"]),
            numbers.milliseconds(row["saved_ns"]),
            numbers.share(row["saved_ns"] / replayed_ns),
        ),
        group,
    )


def _sentence(found: WhatIf) -> str:
    if found.alone:
        first = found.order[0]
        if first["saved_ns"] < _NOTABLE * found.replayed_ns:
            return "Nothing that a replay can take away would save a thousandth of the time."
        told = f"{_NAMES[first['added']]} would save {_share(first['saved_ns'], found)}"
        balance = next((row for row in found.alone if row["change"] == ["balanced_moe"]), None)
        if balance is None or first["added"] == "balanced_moe":
            return f"Most would come from this: {told}."
        after = _balance_after(found)
        return (
            f"Perfectly balanced experts alone would save {_share(balance['saved_ns'], found)}; "
            f"{told}{after}."
        )
    return (
        f"With {found.change.named()}: {numbers.milliseconds(found.whatif_ns)} instead of "
        f"{numbers.milliseconds(found.replayed_ns)} ms, {_share(found.saved_ns, found)} less."
    )


def _balance_after(found: WhatIf) -> str:
    """Say what balance saves once what stood before it is out of the way."""
    before = found.replayed_ns
    for row in found.order:
        if row["added"] == "balanced_moe":
            saved = before - row["whatif_ns"]
            return (
                f", and balance then {numbers.milliseconds(saved)} of the "
                f"{numbers.milliseconds(before)} ms that are left ({saved / before:.1%})"
            )
        before = row["whatif_ns"]
    return ""


def _share(saved: float, found: WhatIf) -> str:
    return f"{numbers.milliseconds(saved)} ms ({saved / found.replayed_ns:.1%})"


def _phases(found: WhatIf) -> Table:
    columns = (
        Column("Phase", "left"),
        Column("Steps"),
        Column("Traced (ms)"),
        Column("Replayed (ms)"),
        Column("What if (ms)"),
        Column("Saved (ms)"),
        Column("Saved a step (ms)"),
    )
    rows = [
        Row(
            (
                phase,
                numbers.count(row["steps"]),
                *(
                    numbers.milliseconds(row[f"{name}_ns"])
                    for name in ("traced", "replayed", "whatif", "saved")
                ),
                numbers.milliseconds(row["saved_ns"] / row["steps"] if row["steps"] else None),
            )
        )
        for phase, row in found.phases.items()
    ]
    whole = (found.traced_ns, found.replayed_ns, found.whatif_ns, found.saved_ns)
    rows.append(Row(("all", "", *map(numbers.milliseconds, whole), "")))
    return Table(f"With {found.change.named()}", columns, tuple(rows))


def _data(found: WhatIf) -> dict[str, Any]:
    return {
        "traced_ns": found.traced_ns,
        "replayed_ns": found.replayed_ns,
        "replay_error": found.replay_error,
        "whatif_ns": found.whatif_ns,
        "saved_ns": found.saved_ns,
        "phases": found.phases,
        "alone": list(found.alone),
        "order": list(found.order),
    }


def _records(found: WhatIf) -> tuple[dict[str, Any], ...]:
    if not found.alone:
        return tuple({"phase": phase, **row} for phase, row in found.phases.items())
    return tuple(
        {
            "kind": kind,
            "change": "+".join(row["change"]),
            "whatif_ns": row["whatif_ns"],
            "saved_ns": row["saved_ns"],
        }
        for kind, rows in (("alone", found.alone), ("order", found.order))
        for row in rows
    )
