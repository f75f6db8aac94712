"""``nsysmoe advise``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nsysmoe.cli.options import FILE, eplb_options, input_options, output_options
from nsysmoe.cli.progress import working
from nsysmoe.cli.size import show_sizes, sizing_options

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, Reading

_OF_EPLB = ("trace", "run", "gpus", "redundant", "rearranged")
_OF_SIZES = ("now", "layouts", "max_num_seqs", "max_num_batched_tokens", "expert_share")


@click.command("advise")
@click.option("--routing", type=FILE, required=True, help="A routing log of any form.")
@click.option("--trace", type=FILE, help="The trace of that run, which gives times.")
@eplb_options("the record of that run")
@click.option(
    "--rearranged", type=FILE, help="A trace in which EPLB rearranged experts: what that costs."
)
@sizing_options(is_required=False)
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
    **sizing: Any,
) -> None:
    """Say whether EPLB is worth turning on for a workload, and by how much.

    With --replay: what layouts and batch limits would give that workload (as nsysmoe size).

    \b
    Example:
      nsysmoe advise --routing off.routed.npz --trace off.sqlite --run off.run.json
      nsysmoe advise --routing routes.parquet --gpus 8 --redundant 16
      nsysmoe advise --routing routes.parquet --replay replay/ --now 4 --layout 8 --layout 8+32
          --max-num-seqs 64 --max-num-seqs 256
    """
    from nsysmoe.analysis.placing.advise import advise
    from nsysmoe.reports.pages.placing.advise import advice_page

    _check_question(is_sizing=sizing["replay"] is not None)
    if sizing["replay"] is not None:
        show_sizes(printer, routing, sizing)
        return
    if trace is None and run is not None:
        raise click.UsageError("--run goes with --trace: it tells what ran in each step of one")
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


def _check_question(*, is_sizing: bool) -> None:
    """Refuse options of the question that was not asked."""
    context = click.get_current_context()
    names = {one.name: one.opts[0] for one in context.command.params}
    wrong = [
        names[name]
        for name in (_OF_EPLB if is_sizing else _OF_SIZES)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if wrong:
        verb = "does not go with" if is_sizing else "needs"
        raise click.UsageError(f"{wrong[0]} {verb} --replay")
