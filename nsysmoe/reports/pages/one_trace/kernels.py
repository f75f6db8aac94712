"""The kernel summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from typing import Any

    from nsysmoe.analysis.one_trace.kernels import KernelTable

_TIMES = ("mean_ns", "median_ns", "min_ns", "max_ns", "stddev_ns")
_TIME_TITLES = ("Mean (us)", "Median (us)", "Min (us)", "Max (us)", "StdDev (us)")
_KEY_TITLES = {"name": "Name", "class": "Class", "process": "Process", "device": "Device"}


def kernels_page(table: KernelTable) -> Document:
    """Return one row a kernel, class or device, the largest total first."""
    keys = [key for key in _KEY_TITLES if key in (table.rows[0] if table.rows else {})]
    # The name is long: it comes last, as nsys stats has it.
    keys.sort(key=lambda key: key == "name")
    front = [key for key in keys if key != "name"]
    whole = sum(row["total_ns"] for row in table.rows)
    columns = (
        *(Column(_KEY_TITLES[key], "left") for key in front),
        Column("Time"),
        Column("Total (ms)"),
        Column("Launches"),
        *(Column(title) for title in _TIME_TITLES),
        *((Column("Name", "left"),) if "name" in keys else ()),
    )

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        return (
            *(str(row[key]) if row[key] is not None else numbers.UNKNOWN for key in front),
            numbers.share(row["total_ns"] / whole if whole else None),
            numbers.milliseconds(row["total_ns"]),
            numbers.count(row["launches"]),
            *(numbers.microseconds(row[key]) for key in _TIMES),
            *((row["name"],) if "name" in keys else ()),
        )

    caption = f"Kernels of {table.source} by {table.by}"
    return Document(
        title=caption,
        tables=(Table(caption, columns, tuple(Row(cells(row)) for row in table.rows)),),
        data=list(table.rows),
        records=table.rows,
        findings=table.findings,
    )
