"""``nsysmoe stalls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.stalls import By
    from nsysmoe.cli.options import Printer, Reading


@click.command("stalls")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["stall", "kind"]),
    default="stall",
    show_default=True,
    help="What one row is; kind adds them up, no moment twice.",
)
@input_options
@output_options
def command(trace: Path, by: By, reading: Reading, printer: Printer) -> None:
    """What stopped TRACE: slow steps, loads of compiled code, rearrangements, silences.

    \b
    Example:
      nsysmoe stalls off.sqlite --by kind
    """
    from nsysmoe.analysis.one_trace.stalls import stalls
    from nsysmoe.reports.pages.one_trace.stalls import stalls_page

    with working(f"Reading {trace}"):
        found = stalls(trace, **reading)
    printer.show(stalls_page(found, by), (trace,))
