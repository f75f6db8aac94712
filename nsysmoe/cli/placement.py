"""``nsysmoe placement``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, Finite, output_options
from nsysmoe.cli.progress import working
from nsysmoe.placement.cluster import ALGORITHMS, ROUTED_ALGORITHMS

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.placing.placement import Memory
    from nsysmoe.cli.options import Printer
    from nsysmoe.placement.cluster import Algorithm, RoutedAlgorithm

_COUNT = click.IntRange(min=1)
_AMOUNT = Finite(min=0, min_open=True)
_nodes = click.option("--nodes", type=_COUNT, default=1, show_default=True, help="Servers.")
_token_size = click.option(
    "--token-bytes",
    type=_AMOUNT,
    help="A token's hidden state as it is sent.  [default: by --config, 16 bits a number]",
)


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
    help="CSV without header: one line a layer, one column an expert.",
)
@click.option("--routing", type=FILE, help="A routing log in place of loads: steps, tokens.")
@click.option("--gpus", type=_COUNT, required=True, help="GPUs that share the experts.")
@click.option("--slots", type=_COUNT, help="Physical experts of a layer over all GPUs.")
@click.option(
    "--memory-budget",
    type=Finite(min=0),
    metavar="GB",
    help="In place of --slots: what redundant experts may take of each GPU, over all layers.",
)
@click.option("--config", type=FILE, help="The model's config.json: sizes of experts and tokens.")
@click.option(
    "--expert-bytes", type=_AMOUNT, help="Weights of one expert of a layer.  [default: by --config]"
)
@_token_size
@_nodes
@click.option(
    "--groups",
    type=_COUNT,
    default=1,
    show_default=True,
    help="Groups of experts, each kept on one node (eplb and best).",
)
@click.option(
    "--algorithm",
    type=click.Choice([*ALGORITHMS, *ROUTED_ALGORITHMS]),
    default="best",
    show_default=True,
    help="lpt is greedy, eplb DeepSeek's, exact proven (small cases), best improves on eplb; with "
    "--routing: active balances what decode reads, locality keeps tokens on their node.",
)
@click.option("--held-out", type=FILE, help="Loads of other steps to judge the plan on.")
@click.option(
    "--map-output", type=FILE, help="Write the map alone here, as engines and `evaluate` read it."
)
@output_options
def plan(
    loads: Path | None,
    routing: Path | None,
    gpus: int,
    slots: int | None,
    memory_budget: float | None,
    config: Path | None,
    expert_bytes: float | None,
    token_bytes: float | None,
    nodes: int,
    groups: int,
    algorithm: Algorithm | RoutedAlgorithm,
    held_out: Path | None,
    map_output: Path | None,
    printer: Printer,
) -> None:
    """Place the experts of every layer, some of them twice; JSON holds vLLM's map.

    \b
    Example:
      nsysmoe placement plan --loads loads.csv --gpus 8 --slots 288 -o plan.json
      nsysmoe placement plan --routing routes.parquet --gpus 16 --slots 64 --nodes 2
          --algorithm locality
    """
    from nsysmoe.placement.cluster import Cluster
    from nsysmoe.reports.pages.placing.placement import placement_page, write_map

    _check(loads, routing, algorithm, held_out)
    if (slots is None) == (memory_budget is None):
        raise click.UsageError("give --slots or --memory-budget, one of them")
    cluster = Cluster(gpus, slots or gpus, nodes, groups)
    memory = None
    if memory_budget is not None:
        memory = _memory(memory_budget, expert_bytes, config)
    if routing is not None:
        from nsysmoe.analysis.placing.routed_placement import plan_routed

        with working(f"Reading {routing}"):
            sent = token_bytes or _token_bytes(config)
            found = plan_routed(routing, cluster, algorithm, memory=memory, copy_bytes=sent)
    else:
        from nsysmoe.analysis.placing.placement import plan as ask

        assert loads is not None  # noqa: S101 - one of the two is given
        with working(f"Placing the experts of {loads}"):
            found = ask(loads, cluster, algorithm, held_out, memory)  # type: ignore[arg-type]
    inputs = [path for path in (loads, routing, held_out, config) if path is not None]
    if map_output is not None:
        write_map(found, map_output, inputs)
        click.echo(f"Wrote {map_output}", err=True)
    printer.show(placement_page(found), inputs)


@command.command("evaluate")
@click.option(
    "--map",
    "map_path",
    type=FILE,
    required=True,
    help="A plan, a physical_to_logical_map as JSON, or a run's record.",
)
@click.option("--loads", type=FILE, help="Loads to judge it on: a line a layer.")
@click.option("--routing", type=FILE, help="A routing log in place of loads: steps, tokens.")
@click.option("--gpus", type=_COUNT, help="GPUs that share the experts.  [default: by the plan]")
@_nodes
@_token_size
@click.option("--config", type=FILE, help="The model's config.json: size of tokens.")
@output_options
def evaluate(
    map_path: Path,
    loads: Path | None,
    routing: Path | None,
    gpus: int | None,
    nodes: int,
    token_bytes: float | None,
    config: Path | None,
    printer: Printer,
) -> None:
    """Say what each device carries under a map of experts.

    With a routing log also what decode steps read, and with nodes what tokens send between them.

    \b
    Example:
      nsysmoe placement evaluate --map plan.json --loads other-steps.csv
      nsysmoe placement evaluate --map plan.json --routing other-run.parquet
    """
    from nsysmoe.reports.pages.placing.placement import placement_page

    if (loads is None) == (routing is None):
        raise click.UsageError("give --loads or --routing, one of them")
    if routing is not None:
        from nsysmoe.analysis.placing.routed_placement import evaluate_routed

        with working(f"Reading {routing}"):
            sent = token_bytes or _token_bytes(config)
            found = evaluate_routed(map_path, routing, gpus, nodes=nodes, copy_bytes=sent)
    else:
        from nsysmoe.analysis.placing.placement import evaluate as ask

        assert loads is not None  # noqa: S101 - one of the two is given
        if nodes > 1:
            raise click.UsageError("--nodes needs --routing: loads do not tell tokens")
        found = ask(map_path, loads, gpus)
    inputs = [path for path in (map_path, loads, routing, config) if path is not None]
    printer.show(placement_page(found), inputs)


def _check(loads: Path | None, routing: Path | None, algorithm: str, held_out: Path | None) -> None:
    if (loads is None) == (routing is None):
        raise click.UsageError("give --loads or --routing, one of them")
    if routing is None and algorithm in ROUTED_ALGORITHMS:
        raise click.UsageError(f"{algorithm} needs --routing: loads do not tell steps or tokens")
    if routing is not None and held_out is not None:
        raise click.UsageError(
            "--held-out goes with --loads: a routing log is judged on its own held-out half"
        )


def _memory(gigabytes: float, expert_bytes: float | None, config: Path | None) -> Memory:
    from nsysmoe.analysis.placing.placement import Memory
    from nsysmoe.routing import read_model

    if expert_bytes is None:
        shape = read_model(config)
        if shape is None:
            raise click.UsageError("--memory-budget needs --config or --expert-bytes")
        expert_bytes = sum(shape.weights().values()) * shape.weight_bytes
    return Memory(gigabytes * 1e9, expert_bytes)


def _token_bytes(config: Path | None) -> float | None:
    """Return the bytes of a token's hidden state in 16 bits; None without the model's sizes."""
    from nsysmoe.routing import read_model

    # What a token is sent as does not depend on how weights are kept.
    shape = read_model(config, weight_bytes=2.0)
    return None if shape is None else 2.0 * shape.hidden
