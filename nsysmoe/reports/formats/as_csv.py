"""CSV: the document's exact records with a header, as RFC 4180 quotes them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from nsysmoe.reports.document import Document


def render(document: Document) -> str:
    """Return the records; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    titles = [column.title for column in document.tables[0].columns]
    header = document.records[0] if document.records else titles
    writer.writerow([visible(str(name)) for name in header])
    writer.writerows([_field(value) for value in record.values()] for record in document.records)
    return buffer.getvalue()


def _field(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value
