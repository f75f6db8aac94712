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
    if not document.records:
        return "".join(f"{column.title}," for column in document.tables[0].columns)[:-1] + "\n"
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([visible(str(name)) for name in document.records[0]])
    writer.writerows([_field(value) for value in record.values()] for record in document.records)
    return buffer.getvalue()


def _field(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value
