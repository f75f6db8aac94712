"""CSV: the document's exact records with a header, as RFC 4180 quotes them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from nsysmoe.reports.escape import visible
from nsysmoe.reports.formats.as_json import compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nsysmoe.reports.document import Document


def render(document: Document) -> str:
    """Return the records; None is an empty field."""
    titles = [column.title for column in document.tables[0].columns]
    header = list(document.records[0]) if document.records else titles
    return as_csv(header, (record.values() for record in document.records))


def as_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a header and rows of JSON values as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([visible(str(name)) for name in header])
    writer.writerows([field(value) for value in row] for row in rows)
    return buffer.getvalue()


def field(value: Any) -> Any:
    """Return a value as a field: lists and objects as texts of JSON, other texts visible."""
    if isinstance(value, (list, tuple, dict)):
        return compact(value)
    return visible(value) if isinstance(value, str) else value
