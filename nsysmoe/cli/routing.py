"""``nsysmoe routing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.routed import Inputs
    from nsysmoe.cli.options import Printer, Reading


_COUNT = click.IntRange(min=1)


@click.group("routing")
def command() -> None:
    """Routing logs: read them, measure their balance, and set them against durations.

    \b
    Example:
      nsysmoe routing balance off.routed.npz --gpus 2

    Subcommands have --format and -o, --output.
    """


@command.command("explain")
@click.argument("trace", type=FILE)
@click.option(
    "--routed", type=FILE, required=True, help="Experts that vLLM returned: .npz, an array rN each."
)
@click.option("--run", type=FILE, required=True, help="JSON record of the run: lengths, maps.")
@click.option("--against", type=FILE, help="Trace of another run to predict with the fit.")
@click.option("--against-routed", type=FILE, help="Its experts.")
@click.option("--against-run", type=FILE, help="Its record.")
@click.option(
    "--config", type=FILE, help="The model's config.json: sizes that tell blocks for certain."
)
@click.option(
    "--block-m",
    type=click.IntRange(min=1),
    help="Rows of a block in every MoE kernel.  [default: read off the grids]",
)
@input_options
@output_options
def explain(
    trace: Path,
    routed: Path,
    run: Path,
    against: Path | None,
    against_routed: Path | None,
    against_run: Path | None,
    config: Path | None,
    block_m: int | None,
    reading: Reading,
    printer: Printer,
) -> None:
    """Fit durations of MoE kernels of TRACE to active experts and rows, and predict another run.

    \b
    Example:
      nsysmoe routing explain off.sqlite --routed off.routed.npz --run off.run.json
          --against on.sqlite --against-routed on.routed.npz --against-run on.run.json
    """
    from nsysmoe.analysis.routed import Choices, Inputs
    from nsysmoe.analysis.routing_cost import explain as ask
    from nsysmoe.reports.pages.routing_cost import routing_cost_page

    baseline = Inputs(trace, routed, run)
    candidate = _candidate(against, against_routed, against_run)
    with working(f"Reading {trace}"):
        choices = Choices(block_m=block_m, **_sizes(config))
        found = ask(baseline, candidate, choices, **reading)
    files = (*baseline.paths(), *(candidate.paths() if candidate else ()))
    printer.show(routing_cost_page(found), (*files, *([config] if config else [])))


@command.command("load")
@click.argument("paths", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="The Parquet file to write.")
@click.option("--keep-dummy", is_flag=True, help="Keep rows of the engine's dummy runs.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="How to say what was written.  [default: table]",
)
def load(paths: tuple[Path, ...], output: Path, keep_dummy: bool, format_: str | None) -> None:
    """Turn routing logs (PATHS, or folders of them) of any form into one Parquet file.

    \b
    Example:
      nsysmoe routing load moe_routes.jsonl -o routes.parquet
    """
    from nsysmoe.analysis.routing_load import load as ask
    from nsysmoe.cli.options import Printer
    from nsysmoe.reports.pages.balance import loading_page

    with working(f"Reading {paths[0]}"):
        found = ask(paths, output, keep_dummy=keep_dummy)
    Printer(format_, None).show(loading_page(found))


@command.command("balance")
@click.argument("paths", metavar="LOG...", type=FILE, nargs=-1, required=True)
@click.option("--experts", type=_COUNT, help="Experts of a layer.  [default: by the log]")
@click.option("--top-k", type=_COUNT, help="Experts a token.  [default: by the log]")
@click.option("--gpus", type=_COUNT, help="GPUs that share the experts in order.")
@click.option("--keep-dummy", is_flag=True, help="Count rows of the engine's dummy runs too.")
@output_options
def balance(
    paths: tuple[Path, ...],
    experts: int | None,
    top_k: int | None,
    gpus: int | None,
    keep_dummy: bool,
    printer: Printer,
) -> None:
    """How balanced LOG is by every definition in use, beside a perfectly uniform router.

    \b
    Example:
      nsysmoe routing balance routes.parquet --gpus 8
    """
    from nsysmoe.analysis.balance import balance as ask
    from nsysmoe.reports.pages.balance import balance_page

    with working(f"Reading {paths[0]}"):
        found = ask(paths, experts=experts, top_k=top_k, gpus=gpus, keep_dummy=keep_dummy)
    printer.show(balance_page(found), paths)


def _candidate(trace: Path | None, routed: Path | None, run: Path | None) -> Inputs | None:
    from nsysmoe.analysis.routed import Inputs

    if trace is None and routed is None and run is None:
        return None
    if trace is None or routed is None or run is None:
        raise click.UsageError("--against, --against-routed and --against-run go together")
    return Inputs(trace, routed, run)


def _sizes(config: Path | None) -> dict[str, Any]:
    from nsysmoe.routing import read_model

    # The type of the weights does not matter to blocks.
    shape = read_model(config, weight_bytes=2.0)
    return {} if shape is None else {"widths": shape.widths(), "experts": shape.experts}
