"""``nsysmoe whatif``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.one_trace import trace_command
from nsysmoe.cli.options import SCALE

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "whatif",
    click.option(
        "--balanced-moe", is_flag=True, help="Every rank takes the mean in each MoE kernel."
    ),
    click.option("--no-host-delay", is_flag=True, help="All work is launched before it can start."),
    click.option("--free-transfer", is_flag=True, help="Collectives end with the last arrival."),
    click.option(
        "--no-stalls", is_flag=True, help="The host does not sit still for 10 ms or more."
    ),
    click.option(
        "--scale",
        type=SCALE,
        multiple=True,
        help="Kernels of this name (or pattern) take so many times as long, collectives after "
        "their last arrival; may be repeated.",
    ),
    doing="Replaying",
)
def command(
    trace: Path,
    *,
    balanced_moe: bool,
    no_host_delay: bool,
    free_transfer: bool,
    no_stalls: bool,
    scale: tuple[tuple[str, float], ...],
    reading: Reading,
) -> Document:
    """What TRACE would have taken if some of it had cost less; without options, all of them.

    \b
    Example:
      nsysmoe whatif off.sqlite --no-host-delay --balanced-moe
    """
    from nsysmoe.analysis.one_trace.whatif import Change, whatif
    from nsysmoe.cli.speech import say
    from nsysmoe.reports.pages.one_trace.whatif import whatif_page

    change = Change(balanced_moe, no_host_delay, free_transfer, no_stalls, scale)
    return whatif_page(whatif(trace, change, tell=say, **reading))
