"""One file a format; each turns a document into text, or into bytes.

A format is a module with ``render(document) -> str``, or ``encode(document) -> bytes``. The
table for a terminal is the one that also takes the width and whether colours may be used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nsysmoe.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.reports.document import Document

TEXT_FORMATS = ("table", "markdown", "csv", "json", "latex", "html")
BINARY_FORMATS = ("parquet",)
FORMATS = (*TEXT_FORMATS, *BINARY_FORMATS)
_SUFFIXES = {
    ".txt": "table",
    ".md": "markdown",
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}
# Named for what they write, without hiding the standard library's csv, json and html.
_MODULES = {name: f"nsysmoe.reports.formats.as_{name}" for name in FORMATS}


def render(document: Document, name: str) -> str:
    """Render a document in one of ``TEXT_FORMATS``."""
    text: str = import_module(_MODULES[name]).render(document)
    return text


def encode(document: Document, name: str) -> bytes:
    """Return what a file of one of ``FORMATS`` holds; text is UTF-8."""
    if name in TEXT_FORMATS:
        return render(document, name).encode()
    found: bytes = import_module(_MODULES[name]).encode(document)
    return found


def format_of(path: Path) -> str:
    """Return the format that a file's suffix stands for.

    Raises:
        OutputError: The suffix stands for none.
    """
    if (found := _SUFFIXES.get(path.suffix.lower())) is None:
        known = ", ".join(suffix for suffix in _SUFFIXES if suffix != ".htm")
        raise OutputError(
            f"cannot tell the format of {path} by its suffix; use one of {known}, or --format"
        )
    return found
