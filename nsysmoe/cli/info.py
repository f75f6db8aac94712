"""``nsysmoe info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, RunReading


@click.command("info")
@click.argument("trace", type=FILE)
@input_options
@run_options
@output_options
def command(
    trace: Path,
    reading: RunReading,
    printer: Printer,
) -> None:
    """What TRACE is and holds: versions, host, GPUs, processes, classes, tables, warnings.

    Exits with 1, after printing, where TRACE holds no kernels: no other command can use it.

    TRACE may be the folder of a run, or of several: the first one is then shown.

    \b
    Example:
      nsysmoe info off.sqlite
    """
    from nsysmoe.analysis.one_trace.info import describe
    from nsysmoe.errors import MissingDataError
    from nsysmoe.reports.pages.one_trace.info import info_page

    with working(f"Reading {trace}"):
        info = describe(trace, **reading)
    printer.show(info_page(info), (trace,))
    if info.no_kernels_reason:
        raise MissingDataError(info.no_kernels_reason)
