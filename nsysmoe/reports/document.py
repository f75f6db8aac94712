"""A document: what a page says, before any format decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from nsysmoe.findings import Finding


@dataclass(frozen=True)
class Column:
    """A column's title and the side that its values stand on."""

    title: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Row:
    """Texts of one row, not escaped; rows of one ``group`` stand together under its name."""

    cells: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts; ``caption`` stands above it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Picture:
    """A plotly figure, drawn only by the formats that show pictures.

    Attributes:
        caption: Stands above it.
        draw: Returns the figure, or None where there is nothing to draw: the page says so.
        note: What it shows and how to read it, in a sentence or two below it.
    """

    caption: str
    draw: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Document:
    """One page.

    Attributes:
        title: What the page is about.
        tables: The first is the answer; the others stand behind it.
        data: JSON values, exact where tables are rounded: the whole JSON output.
        records: Rows of JSON values, exact: the whole CSV output.
        findings: What to know before believing the tables.
        notes: Sentences below the tables.
        pictures: For the formats that can show them.
        lead: Sentences that open every output but CSV and JSON; the first is the verdict.
    """

    title: str
    tables: tuple[Table, ...]
    data: Any
    records: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = field(default=())
    lead: tuple[str, ...] = ()
