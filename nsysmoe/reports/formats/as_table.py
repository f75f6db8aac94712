"""The table for a terminal: rules and colours there, plain columns in a pipe or a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.cells import cell_len
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
_NARROWEST_TEXT = 24


def render(document: Document) -> str:
    """Return the plain form, for pipes and files."""
    buffer = io.StringIO()
    _print(document, Console(file=buffer, width=_PIPE_WIDTH, color_system=None), plain=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def show(document: Document, stream: TextIO) -> None:
    """Print to a terminal, as wide as it is; NO_COLOR is honoured."""
    _print(document, Console(file=stream, highlight=False), plain=False)


def drawn(document: Document, width: int, height: int) -> Text:
    """Return the form for a terminal as one text, for a display that is drawn again and again.

    Tables stand close; what does not fit is cut off at the end, and said.
    """
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=True, highlight=False)
    _print(document, console, plain=True)
    lines = Text.from_ansi(buffer.getvalue()).split("\n", allow_blank=True)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    if len(lines) > height:
        lines = type(lines)(line for line in lines if line.plain.strip())
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = type(lines)([*lines[: height - 1], Text(f"… {hidden} more lines", style="dim")])
    return Text("\n").join(lines)


def _print(document: Document, console: Console, *, plain: bool) -> None:
    for number, sentence in enumerate(document.lead):
        console.print(Text(visible(sentence), style="" if number else "bold"))
    for number, table in enumerate(document.tables):
        if number or document.lead:
            console.print()
        if table.caption:
            console.print(Text(visible(table.caption), style="bold"))
        drawn = _table(table, plain=plain)
        # A terminal narrower than the numbers wraps the lines: a digit is never cut off.
        width, needed = console.width, _narrowest(drawn)
        console.width = max(width, needed)
        console.print(drawn)
        console.width = width
    for note in document.notes:
        console.print(Text(visible(note), style="dim"))
    if document.findings:
        console.print()
    for finding in document.findings:
        console.print(_finding(finding), soft_wrap=plain)


def _table(table: Table, *, plain: bool) -> RichTable:
    drawn = RichTable(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(table.columns):
        # Long names fold over lines, numbers never break.
        is_number = column.align == "right"
        longest = _longest(table, number)
        drawn.add_column(
            Text(visible(column.title)),
            justify=column.align,
            no_wrap=is_number,
            overflow="fold",
            min_width=longest if is_number else min(longest, _NARROWEST_TEXT),
        )
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            drawn.add_row(Text(visible(group), style="italic"))
        drawn.add_row(*(Text(visible(cell), style=_STYLES.get(cell, "")) for cell in row.cells))
    return drawn


def _longest(table: Table, number: int) -> int:
    """Return the width of a column's widest text, its title included."""
    texts = [table.columns[number].title, *(row.cells[number] for row in table.rows)]
    return max(cell_len(visible(text)) for text in texts)


def _narrowest(drawn: RichTable) -> int:
    padding = 3 * len(drawn.columns)
    return sum(column.min_width or 0 for column in drawn.columns) + padding


def _finding(finding: Finding) -> Text:
    return Text.assemble(
        (f"{finding.severity}: ", _STYLES[finding.severity]),
        visible(finding.message),
        (f" [{finding.code}]", "dim"),
    )
