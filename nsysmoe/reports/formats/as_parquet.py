"""Parquet: the records of the CSV, with types."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from nsysmoe.reports.escape import visible
from nsysmoe.reports.formats.as_csv import field

if TYPE_CHECKING:
    from nsysmoe.reports.document import Document


def encode(document: Document) -> bytes:
    """Return the records as a file of Parquet.

    Numbers in a column of texts become texts. Lists and objects are texts of JSON: Parquet has no
    column of lists beside texts, and no object without keys.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    rows = [
        {visible(str(name)): field(value) for name, value in record.items()}
        for record in document.records
    ]
    titles = [column.title for column in document.tables[0].columns]
    frame = (
        pl.DataFrame(rows, infer_schema_length=None, strict=False)
        if rows
        else pl.DataFrame(schema=dict.fromkeys(titles, pl.String))
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
