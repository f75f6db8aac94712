"""Values made readable: one file a page, one file a format, and the only place that draws."""

from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.formats import FORMATS, TEXT_FORMATS, encode, format_of, render
from nsysmoe.reports.output import write

__all__ = [
    "FORMATS",
    "TEXT_FORMATS",
    "Column",
    "Document",
    "Picture",
    "Row",
    "Table",
    "encode",
    "format_of",
    "render",
    "write",
]
