"""The table for a terminal: rules and colours there, plain columns in a pipe or a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from nsysmoe.findings import Finding
    from nsysmoe.reports.document import Document, Table

_STYLES = {
    "Better": "green",
    "Worse": "red",
    "error": "bold red",
    "warning": "yellow",
    "info": "cyan",
}
# A pipe has no width: nothing is cut or wrapped there.
_PIPE_WIDTH = 1_000_000


def render(document: Document) -> str:
    """Return the plain form, for pipes and files."""
    buffer = io.StringIO()
    _print(document, Console(file=buffer, width=_PIPE_WIDTH, color_system=None), plain=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def show(document: Document, stream: TextIO) -> None:
    """Print to a terminal, as wide as it is; NO_COLOR is honoured."""
    _print(document, Console(file=stream, highlight=False), plain=False)


def _print(document: Document, console: Console, *, plain: bool) -> None:
    for number, table in enumerate(document.tables):
        if number:
            console.print()
        if table.caption:
            console.print(Text(visible(table.caption), style="bold"))
        console.print(_table(table, plain=plain))
    for note in document.notes:
        console.print(Text(visible(note), style="dim"))
    if document.findings:
        console.print()
    for finding in document.findings:
        console.print(_finding(finding), soft_wrap=plain)


def _table(table: Table, *, plain: bool) -> RichTable:
    drawn = RichTable(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in table.columns:
        # Long names fold over lines, numbers never break.
        drawn.add_column(
            Text(visible(column.title)),
            justify=column.align,
            no_wrap=column.align == "right",
            overflow="fold",
        )
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            drawn.add_row(Text(visible(group), style="italic"))
        drawn.add_row(*(Text(visible(cell), style=_STYLES.get(cell, "")) for cell in row.cells))
    return drawn


def _finding(finding: Finding) -> Text:
    return Text.assemble(
        (f"{finding.severity}: ", _STYLES[finding.severity]),
        visible(finding.message),
        (f" [{finding.code}]", "dim"),
    )
