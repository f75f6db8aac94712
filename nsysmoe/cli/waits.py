"""``nsysmoe waits``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.waits import By
    from nsysmoe.cli.options import Printer, RunReading


@click.command("waits")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["cause", "phase", "layer", "rank", "collective"]),
    default="cause",
    show_default=True,
    help="What one row is; rank is the one that was waited for.",
)
@input_options
@run_options
@output_options
def command(trace: Path, by: By, reading: RunReading, printer: Printer) -> None:
    """Why ranks of TRACE waited for the last one: experts, other kernels, or the host.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe waits off.sqlite --by phase
    """
    from nsysmoe.analysis.one_trace.waits import waits
    from nsysmoe.reports.pages.one_trace.waits import waits_page

    with working(f"Reading {trace}"):
        found = waits(trace, by, **reading)
    printer.show(waits_page(found), (trace,))
