"""``nsysmoe advise``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, Reading


@click.command("advise")
@click.option("--routing", type=FILE, required=True, help="A routing log of any form.")
@click.option("--trace", type=FILE, help="The trace of that run, which gives times.")
@click.option("--run", type=FILE, help="The record of that run: lengths, maps.")
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    help="GPUs that share the experts.  [default: the trace's]",
)
@click.option(
    "--redundant",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Redundant experts of a layer, over all GPUs.",
)
@click.option(
    "--rearranged", type=FILE, help="A trace in which EPLB rearranged experts: what that costs."
)
@input_options
@output_options
def command(
    routing: Path,
    trace: Path | None,
    run: Path | None,
    gpus: int | None,
    redundant: int,
    rearranged: Path | None,
    reading: Reading,
    printer: Printer,
) -> None:
    """Say whether EPLB is worth turning on for a workload, and by how much.

    \b
    Example:
      nsysmoe advise --routing off.routed.npz --trace off.sqlite --run off.run.json
    """
    from nsysmoe.analysis.advise import advise
    from nsysmoe.reports.pages.advise import advice_page

    if (trace is None) != (run is None):
        raise click.UsageError("--trace and --run go together")
    with working(f"Reading {routing}"):
        found = advise(
            routing,
            trace=trace,
            run=run,
            gpus=gpus,
            redundant=redundant,
            rearranged=rearranged,
            **reading,
        )
    inputs = [path for path in (routing, trace, run, rearranged) if path is not None]
    printer.show(advice_page(found), inputs)
