"""``nsysmoe placement``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working
from nsysmoe.placement.cluster import ALGORITHMS

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer
    from nsysmoe.placement.cluster import Algorithm

_COUNT = click.IntRange(min=1)


@click.group("placement")
def command() -> None:
    """Where experts should live: plans from loads, and what devices carry under a plan.

    \b
    Example:
      nsysmoe placement plan --loads loads.csv --gpus 8 --slots 288

    Subcommands have --format and -o, --output.
    """


@command.command("plan")
@click.option(
    "--loads",
    type=FILE,
    required=True,
    help="CSV without header: one line a layer, one column an expert.",
)
@click.option("--gpus", type=_COUNT, required=True, help="GPUs that share the experts.")
@click.option(
    "--slots", type=_COUNT, required=True, help="Physical experts of a layer over all GPUs."
)
@click.option("--nodes", type=_COUNT, default=1, show_default=True, help="Servers.")
@click.option(
    "--groups",
    type=_COUNT,
    default=1,
    show_default=True,
    help="Groups of experts, each kept on one node (eplb and best).",
)
@click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    default="best",
    show_default=True,
    help="lpt is greedy, eplb DeepSeek's, exact proven (small cases), best improves on eplb.",
)
@click.option("--held-out", type=FILE, help="Loads of other steps to judge the plan on.")
@output_options
def plan(
    loads: Path,
    gpus: int,
    slots: int,
    nodes: int,
    groups: int,
    algorithm: Algorithm,
    held_out: Path | None,
    printer: Printer,
) -> None:
    """Place the experts of every layer, some of them twice; JSON holds vLLM's map.

    \b
    Example:
      nsysmoe placement plan --loads loads.csv --gpus 8 --slots 288 -o plan.json
    """
    from nsysmoe.analysis.placement import plan as ask
    from nsysmoe.placement.cluster import Cluster
    from nsysmoe.reports.pages.placement import placement_page

    with working(f"Placing the experts of {loads}"):
        found = ask(loads, Cluster(gpus, slots, nodes, groups), algorithm, held_out)
    printer.show(placement_page(found), (loads, *([held_out] if held_out else [])))


@command.command("evaluate")
@click.option(
    "--map",
    "map_path",
    type=FILE,
    required=True,
    help="A plan, a physical_to_logical_map as JSON, or a run's record.",
)
@click.option("--loads", type=FILE, required=True, help="Loads to judge it on.")
@click.option("--gpus", type=_COUNT, help="GPUs that share the experts.  [default: by the plan]")
@output_options
def evaluate(map_path: Path, loads: Path, gpus: int | None, printer: Printer) -> None:
    """Say what each device carries under a map of experts.

    \b
    Example:
      nsysmoe placement evaluate --map plan.json --loads other-steps.csv
    """
    from nsysmoe.analysis.placement import evaluate as ask
    from nsysmoe.reports.pages.placement import placement_page

    printer.show(placement_page(ask(map_path, loads, gpus)), (map_path, loads))
