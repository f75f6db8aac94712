"""The answer to a query, and the reference of what can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from nsysmoe.findings import Finding
    from nsysmoe.trace import View


def query_page(frame: pl.DataFrame, query: str, findings: Sequence[Finding] = ()) -> Document:
    """Return a query's rows as they came, unrounded."""
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    columns = tuple(
        Column(name, "right" if is_number else "left")
        for name, is_number in zip(frame.columns, numeric, strict=True)
    )
    rows = frame.rows()
    return Document(
        title=query.strip(),
        tables=(Table("", columns, tuple(Row(tuple(map(_text, r))) for r in rows)),),
        data=[dict(zip(frame.columns, row, strict=True)) for row in rows],
        records=tuple(dict(zip(frame.columns, row, strict=True)) for row in rows),
        findings=tuple(findings),
    )


def views_page(views: Sequence[View]) -> Document:
    """Return the SQL reference: every view and column with its comment."""
    records = tuple(
        {"view": view.name, "column": column.name, "type": column.type, "comment": column.comment}
        for view in views
        for column in view.columns
    )
    titles = (Column("Column", "left"), Column("Type", "left"), Column("Meaning", "left"))
    return Document(
        title="The views that `nsysmoe sql` can ask",
        tables=tuple(
            Table(
                f"{view.name}: {view.comment}",
                titles,
                tuple(Row((c.name, c.type.lower(), c.comment)) for c in view.columns),
            )
            for view in views
        ),
        data=[
            {
                "view": view.name,
                "comment": view.comment,
                "columns": [
                    {"column": c.name, "type": c.type, "comment": c.comment} for c in view.columns
                ],
            }
            for view in views
        ],
        records=records,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)
