"""``nsysmoe phases``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, RunReading


@click.command("phases")
@click.argument("trace", type=FILE)
@input_options
@run_options
@output_options
def command(
    trace: Path,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Prefill, decode and mixed steps of TRACE: launches, MoE time and tokens.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe phases off.sqlite
    """
    from nsysmoe.analysis.one_trace.structure import phases
    from nsysmoe.reports.pages.one_trace.structure import phases_page

    with working(f"Reading {trace}"):
        measured = phases(trace, **reading)
    printer.show(phases_page(measured), (trace,))
