"""``nsysmoe summary``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, RunReading


@click.command("summary")
@click.argument("trace", type=FILE)
@input_options
@run_options
@output_options
def command(
    trace: Path,
    reading: RunReading,
    printer: Printer,
) -> None:
    """The metrics of Table 1 for one TRACE, overall and by device.

    TRACE may be the folder of a run, or of several: the median one is then shown.

    \b
    Example:
      nsysmoe summary on.sqlite --format markdown
    """
    from nsysmoe.analysis.one_trace.summary import summarize
    from nsysmoe.reports.pages.one_trace.summary import summary_page

    with working(f"Reading {trace}"):
        summary = summarize(trace, **reading)
    printer.show(summary_page(summary), (trace,))
