"""Tables out of rows of values: every column beside the text that stands in its cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Values = Mapping[str, Any]
    # A key of the row, or what is made of the whole row.
    Of = str | Callable[[Values], Any]


@dataclass(frozen=True)
class Shown:
    """A column and its cells: what is taken of a row, and how that is formatted."""

    column: Column
    of: Of
    form: Callable[[Any], str]


def left(title: str, of: Of, form: Callable[[Any], str] = str) -> Shown:
    """Return a column of texts, on the left."""
    return Shown(Column(title, "left"), of, form)


def right(title: str, of: Of, form: Callable[[Any], str] = numbers.decimal) -> Shown:
    """Return a column of numbers, on the right."""
    return Shown(Column(title), of, form)


def table(
    caption: str, rows: Iterable[Values], columns: Iterable[Shown], group: Of | None = None
) -> Table:
    """Return the table of rows.

    Args:
        caption: Stands above it.
        rows: JSON values, a mapping a row.
        columns: In the order of the table.
        group: What rows have in common that stand together; None where they are not grouped.
    """
    shown = tuple(columns)
    return Table(
        caption,
        tuple(one.column for one in shown),
        tuple(
            Row(
                tuple(one.form(_taken(row, one.of)) for one in shown),
                "" if group is None else str(_taken(row, group)),
            )
            for row in rows
        ),
    )


def _taken(row: Values, of: Of) -> Any:
    return of(row) if callable(of) else row[of]


# Of what stands before it: ``low`` and ``high`` of the row.
INTERVAL = right("95 %", lambda row: numbers.interval(row["low"], row["high"]), str)
# Of waiting, where clocks of several files have to be compared.
UNSURE = right("± clocks (ms)", "wait_uncertainty_ns", numbers.milliseconds)
UNSURE_TRANSFER = right("± clocks (ms)", "transfer_uncertainty_ns", numbers.milliseconds)
