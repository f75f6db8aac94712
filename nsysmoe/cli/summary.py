"""``nsysmoe summary``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, class_map, emit, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path


@click.command("summary")
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
    """The metrics of Table 1 for one TRACE, overall and by device.

    \b
    Example:
      nsysmoe summary on.sqlite --format markdown
    """
    from nsysmoe.analysis.summary import summarize
    from nsysmoe.reports.pages.summary import summary_page

    with working(f"Reading {trace}"):
        summary = summarize(trace, class_map=class_map(classes), nsys=nsys)
    emit(summary_page(summary), format_, output, (trace,))
