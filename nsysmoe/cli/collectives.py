"""``nsysmoe collectives``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, class_map, emit, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path


@click.command("collectives")
@click.argument("trace", type=FILE)
@input_options
@output_options
def command(
    trace: Path,
    classes: Path | None,
    nsys: str | None,
    format_: str | None,
    output: Path | None,
) -> None:
    """Communication of TRACE: transfer, and waiting for the last rank, by kernel and device.

    \b
    Example:
      nsysmoe collectives off.sqlite
    """
    from nsysmoe.analysis.structure import collectives
    from nsysmoe.reports.pages.structure import collectives_page

    with working(f"Reading {trace}"):
        measured = collectives(trace, class_map=class_map(classes), nsys=nsys)
    emit(collectives_page(measured), format_, output, (trace,))
