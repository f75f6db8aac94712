"""Pictures and their rows as files: CSV always, SVG or PNG where the machine can draw them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import OutputError
from nsysmoe.reports.formats.as_csv import as_csv
from nsysmoe.reports.output import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nsysmoe.reports.document import Document

_WIDTH_PX = 1000
_SCALE = 2


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows of the same keys as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    write(as_csv(list(rows[0]), (row.values() for row in rows)).encode(), path)


def write_pictures(document: Document, folder: Path, suffix: str) -> list[Path]:
    """Write what is drawn on a page, a file a picture, named as its caption; return the files.

    Raises:
        OutputError: The folder cannot be written, or pictures cannot be drawn here.
    """
    written = []
    for picture in document.pictures:
        if (figure := picture.draw()) is None:
            continue
        name = re.sub(r"[^a-z0-9]+", "-", picture.caption.lower()).strip("-")
        path = folder / f"{name}.{suffix}"
        write_image(figure, path)
        written.append(path)
    return written


def write_image(figure: Any, path: Path) -> None:
    """Write a plotly figure as the picture that the suffix names.

    Raises:
        OutputError: kaleido, or the browser that it draws with, is not there.
    """
    # Pictures of the page are clear; on their own they stand on white.
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    for number, trace in enumerate(figure.data):
        # Else plotly draws a name by lot, and a picture is another file each time.
        trace.uid = str(number)
    write(_drawn(figure, path), path)


def _drawn(figure: Any, path: Path) -> bytes:
    kind = path.suffix[1:]
    try:
        found: bytes = figure.to_image(format=kind, width=_WIDTH_PX, scale=_SCALE)
    # Each version of kaleido fails in its own way where it or its browser is missing.
    except Exception as error:
        raise OutputError(
            f"{path.name} cannot be drawn ({type(error).__name__}); pip install "
            "'nsysmoe[static]' and Chrome or Chromium, or leave out --static"
        ) from error
    return _same_each_time(found) if kind == "svg" else found


def _same_each_time(svg: bytes) -> bytes:
    """Put one name in the place of the one that plotly draws by lot for each picture."""
    lot = re.search(rb'id="defs-([0-9a-f]{6})"', svg)
    # Of names and what refers to them alone: digits may be anywhere.
    return svg if lot is None else re.sub(rb'((?:id="|#)[A-Za-z-]+)' + lot[1], rb"\1lot", svg)
