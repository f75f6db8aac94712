"""``nsysmoe kernels``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.kernels import By
    from nsysmoe.cli.options import Printer, Reading


@click.command("kernels")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["name", "class", "device"]),
    default="name",
    show_default=True,
    help="What one row is.",
)
@input_options
@output_options
def command(
    trace: Path,
    by: By,
    reading: Reading,
    printer: Printer,
) -> None:
    """Every kernel of TRACE: launches, total, mean, median, min, max, standard deviation.

    \b
    Examples:
      nsysmoe kernels off.sqlite
      nsysmoe kernels off.sqlite --by class --format csv -o classes.csv
    """
    from nsysmoe.analysis.one_trace.kernels import kernel_table
    from nsysmoe.reports.pages.one_trace.kernels import kernels_page

    with working(f"Reading {trace}"):
        table = kernel_table(trace, by, **reading)
    printer.show(kernels_page(table), (trace,))
