"""``nsysmoe imbalance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.structure import ImbalanceBy
    from nsysmoe.cli.options import Printer, Reading


@click.command("imbalance")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["layer", "phase", "step", "gemm"]),
    help="One row for each of these instead of one for all.",
)
@input_options
@output_options
def command(
    trace: Path,
    by: ImbalanceBy | None,
    reading: Reading,
    printer: Printer,
) -> None:
    """Balance of the experts in TRACE: the slowest rank of each cell against the mean.

    \b
    Example:
      nsysmoe imbalance off.sqlite --by layer
    """
    from nsysmoe.analysis.structure import imbalance
    from nsysmoe.reports.pages.structure import imbalance_page

    with working(f"Reading {trace}"):
        measured = imbalance(trace, by, **reading)
    printer.show(imbalance_page(measured, by), (trace,))
