"""Values made readable: one file a page, one file a format, and the only place that draws."""

from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.formats import FORMATS, format_of, render
from nsysmoe.reports.output import write

__all__ = [
    "FORMATS",
    "Column",
    "Document",
    "Picture",
    "Row",
    "Table",
    "format_of",
    "render",
    "write",
]
