"""``nsysmoe whatif``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, SCALE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, Reading


@click.command("whatif")
@click.argument("trace", type=FILE)
@click.option("--balanced-moe", is_flag=True, help="Every rank takes the mean in each MoE kernel.")
@click.option("--no-host-delay", is_flag=True, help="All work is launched before it can start.")
@click.option("--free-transfer", is_flag=True, help="Collectives end with the last arrival.")
@click.option("--no-stalls", is_flag=True, help="The host does not sit still for 10 ms or more.")
@click.option(
    "--scale",
    type=SCALE,
    multiple=True,
    help="Kernels of this name (or pattern) take so many times as long, collectives after their "
    "last arrival; may be repeated.",
)
@input_options
@output_options
def command(
    trace: Path,
    *,
    balanced_moe: bool,
    no_host_delay: bool,
    free_transfer: bool,
    no_stalls: bool,
    scale: tuple[tuple[str, float], ...],
    reading: Reading,
    printer: Printer,
) -> None:
    """What TRACE would have taken if some of it had cost less; without options, all of them.

    \b
    Example:
      nsysmoe whatif off.sqlite --no-host-delay --balanced-moe
    """
    from nsysmoe.analysis.one_trace.whatif import Change, whatif
    from nsysmoe.reports.pages.one_trace.whatif import whatif_page

    change = Change(balanced_moe, no_host_delay, free_transfer, no_stalls, scale)
    with working(f"Replaying {trace}"):
        found = whatif(trace, change, **reading)
    printer.show(whatif_page(found), (trace,))
