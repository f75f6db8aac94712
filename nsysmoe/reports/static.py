"""Pictures and their rows as files: CSV always, SVG or PNG where the machine can draw them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.reports.drawing import PATIENCE_S, draw
from nsysmoe.reports.formats.as_csv import as_csv
from nsysmoe.reports.output import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nsysmoe.reports.document import Document

Suffix = Literal["svg", "png"]


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows of the same keys as CSV.

    Raises:
        OutputError: It cannot be written.
    """
    write(as_csv(list(rows[0]), (row.values() for row in rows)).encode(), path)


def write_pictures(
    document: Document, folder: Path, suffix: Suffix, *, patience_s: float = PATIENCE_S
) -> list[Path]:
    """Write what is drawn on a page, a file a picture, named as its caption; return the files.

    Args:
        document: The page.
        folder: Where the files go.
        suffix: What they are.
        patience_s: As of ``drawing.draw``.

    Raises:
        OutputError: The folder cannot be written, or pictures cannot be drawn here.
    """
    figures = {}
    for picture in document.pictures:
        if (figure := picture.draw()) is not None:
            name = re.sub(r"[^a-z0-9]+", "-", picture.caption.lower()).strip("-")
            figures[folder / f"{name}.{suffix}"] = figure
    return write_images(figures, suffix, patience_s=patience_s)


def write_images(
    figures: Mapping[Path, Any], suffix: Suffix, *, patience_s: float = PATIENCE_S
) -> list[Path]:
    """Write plotly figures as pictures, none before all are drawn; return the files.

    Raises:
        OutputError: kaleido, or the browser that it draws with, is not there or does not answer,
            or a file cannot be written.
    """
    for figure in figures.values():
        # Pictures of the page are clear; on their own they stand on white.
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        for number, trace in enumerate(figure.data):
            # Else plotly draws a name by lot, and a picture is another file each time.
            trace.uid = str(number)
    pictures = draw(list(figures.values()), suffix, patience_s=patience_s)
    for path, picture in zip(figures, pictures, strict=True):
        write(_same_each_time(picture) if suffix == "svg" else picture, path)
    return list(figures)


def _same_each_time(svg: bytes) -> bytes:
    """Put one name in the place of the one that plotly draws by lot for each picture."""
    lot = re.search(rb'id="defs-([0-9a-f]{6})"', svg)
    # Of names and what refers to them alone: digits may be anywhere.
    return svg if lot is None else re.sub(rb'((?:id="|#)[A-Za-z-]+)' + lot[1], rb"\1lot", svg)
