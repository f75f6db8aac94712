"""``nsysmoe collectives``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, RunReading


@click.command("collectives")
@click.argument("trace", type=FILE)
@click.option("--by", type=click.Choice(["communicator"]), help="Tell communicators apart as well.")
@input_options
@run_options
@output_options
def command(
    trace: Path,
    by: Literal["communicator"] | None,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Communication of TRACE: transfer, and waiting for the last rank, by kernel and GPU.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe collectives off.sqlite
    """
    from nsysmoe.analysis.one_trace.structure import collectives
    from nsysmoe.reports.pages.one_trace.structure import collectives_page

    with working(f"Reading {trace}"):
        measured = collectives(trace, by, **reading)
    printer.show(collectives_page(measured, by), (trace,))
