"""``nsysmoe timeline``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, STEP, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.comparing.portrait import Choice
    from nsysmoe.cli.options import Printer, Reading


@click.command("timeline")
@click.argument("trace", type=FILE)
@click.option(
    "--step",
    type=STEP,
    default="median",
    show_default=True,
    help="A step's number; slowest or median picks one by wall time.",
)
@input_options
@output_options
def command(
    trace: Path,
    step: Choice,
    reading: Reading,
    printer: Printer,
) -> None:
    """What ran in one step of TRACE, on every rank.

    \b
    Example:
      nsysmoe timeline on.sqlite --step slowest -o step.html
    """
    from nsysmoe.analysis.comparing.report import timeline
    from nsysmoe.reports.pages.one_trace.timeline import timeline_page

    with working(f"Reading {trace}"):
        portrait = timeline(trace, step, **reading)
    printer.show(timeline_page(portrait), (trace,))
