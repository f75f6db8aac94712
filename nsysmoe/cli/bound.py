"""``nsysmoe bound``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.bound import By
    from nsysmoe.cli.options import Printer, Reading


@click.command("bound")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["phase", "rank"]),
    default="phase",
    show_default=True,
    help="What one row is; rank is a rank within a phase.",
)
@input_options
@output_options
def command(trace: Path, by: By, reading: Reading, printer: Printer) -> None:
    """What bounds each phase of TRACE: experts, other kernels, transfer, or the host.

    \b
    Example:
      nsysmoe bound off.sqlite --by rank
    """
    from nsysmoe.analysis.one_trace.bound import bound
    from nsysmoe.reports.pages.one_trace.bound import bound_page

    with working(f"Reading {trace}"):
        found = bound(trace, by, **reading)
    printer.show(bound_page(found), (trace,))
