"""``nsysmoe imbalance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.structure import ImbalanceBy
    from nsysmoe.cli.options import Printer, RunReading


@click.command("imbalance")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["layer", "phase", "step", "gemm"]),
    help="One row for each of these instead of one for all.",
)
@input_options
@run_options
@output_options
def command(
    trace: Path,
    by: ImbalanceBy | None,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Balance of the experts in TRACE: the slowest rank of each cell against the mean.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe imbalance off.sqlite --by layer
    """
    from nsysmoe.analysis.one_trace.structure import imbalance
    from nsysmoe.reports.pages.one_trace.structure import imbalance_page

    with working(f"Reading {trace}"):
        measured = imbalance(trace, by, **reading)
    printer.show(imbalance_page(measured, by), (trace,))
