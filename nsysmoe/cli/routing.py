"""``nsysmoe routing``."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from nsysmoe.cli.options import FILE, grouped, input_options, output_options, routed_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nsysmoe.analysis.routing.routed import Inputs
    from nsysmoe.analysis.routing.routing_load import Beside
    from nsysmoe.cli.options import Printer, Reading
    from nsysmoe.routing.labels import Side


_COUNT = click.IntRange(min=1)
_BATCH = re.compile(r"(\d{1,6})[x×](\d{1,6})")
_MOST_REQUESTS = 100_000
F = TypeVar("F", bound="Callable[..., Any]")


# Generic in newer versions of click only.
class _Batches(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Sizes and counts of batches: SIZExCOUNT, by commas."""

    name = "batches"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "SIZExCOUNT,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        found = [_BATCH.fullmatch(part.strip()) for part in str(value).split(",")]
        pairs = tuple((int(match[1]), int(match[2])) for match in found if match)
        if len(pairs) != len(found) or not all(0 < a * b <= _MOST_REQUESTS for a, b in pairs):
            self.fail(
                f"{value!r} is not SIZExCOUNT,… such as 8x50,64x5, of {_MOST_REQUESTS:,} requests "
                "at most",
                param,
                ctx,
            )
        return pairs


def _labels_options(function: F) -> F:
    """Add ``--run`` and ``--domains``; the command gets ``beside``."""
    return _with_beside(function, _LABELS)


def _beside_options(function: F) -> F:
    """Add all files that stand beside a log; the command gets ``beside``."""
    return _with_beside(function, (*_LABELS, *_PADDING))


def _with_beside(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    @functools.wraps(function)
    def with_beside(
        *values: Any,
        run: Path | None,
        domains: Path | None,
        lengths: Path | None = None,
        padding_side: Side = "left",
        **more: Any,
    ) -> Any:
        from nsysmoe.analysis.routing.routing_load import Beside

        beside = Beside(run, domains, lengths, padding_side)
        return function(*values, beside=beside, **more)

    return grouped(*options)(cast("F", with_beside))


_LABELS = (
    click.option(
        "--run",
        type=FILE,
        help="JSON record of the run: prompts' lengths tell prefill from decode.",
    ),
    click.option(
        "--domains",
        type=FILE,
        help="Domain of each request: JSON object, CSV (request, domain), or JSON lines of prompts "
        "with `domain` in the order of requests.",
    ),
)
_PADDING = (
    click.option(
        "--lengths",
        type=FILE,
        help="Real tokens of the rows of padded batches: CSV (batch, length, and request where "
        "the log numbers tokens by request).",
    ),
    click.option(
        "--padding-side",
        type=click.Choice(["left", "right"]),
        default="left",
        show_default=True,
        help="Where padding stands in a row; with --lengths.",
    ),
)
_logs = click.argument("paths", metavar="LOG...", type=FILE, nargs=-1, required=True)
_experts = click.option("--experts", type=_COUNT, help="Experts of a layer.  [default: by the log]")
_keep_dummy = click.option(
    "--keep-dummy", is_flag=True, help="Count rows of the engine's dummy runs too."
)


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
@routed_options
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
    from nsysmoe.analysis.routing.routed import Choices, Inputs
    from nsysmoe.analysis.routing.routing_cost import explain as ask
    from nsysmoe.reports.pages.routing.routing_cost import routing_cost_page

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
@_beside_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="How to say what was written.  [default: table]",
)
def load(
    paths: tuple[Path, ...], output: Path, keep_dummy: bool, beside: Beside, format_: str | None
) -> None:
    """Turn routing logs (PATHS, or folders of them) of any form into one Parquet file.

    \b
    Example:
      nsysmoe routing load moe_routes.jsonl -o routes.parquet
    """
    from nsysmoe.analysis.routing.routing_load import load as ask
    from nsysmoe.cli.options import Printer
    from nsysmoe.reports.pages.routing.balance import loading_page

    with working(f"Reading {paths[0]}"):
        found = ask(paths, output, keep_dummy=keep_dummy, beside=beside)
    Printer(format_, None).show(loading_page(found))


@command.command("balance")
@_logs
@_experts
@click.option("--top-k", type=_COUNT, help="Experts a token.  [default: by the log]")
@click.option("--gpus", type=_COUNT, help="GPUs that share the experts in order.")
@click.option(
    "--map",
    "map_",
    type=FILE,
    help="A map of experts instead of experts in order: a plan, or the record of a run.",
)
@click.option(
    "--shared",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Experts that every token visits besides, on its own GPU.",
)
@click.option(
    "--by",
    type=click.Choice(["layer", "step", "phase", "domain"]),
    help="Measure each of these; CSV is then of them.",
)
@_keep_dummy
@_labels_options
@output_options
def balance(
    paths: tuple[Path, ...],
    experts: int | None,
    top_k: int | None,
    gpus: int | None,
    map_: Path | None,
    shared: int,
    by: Literal["layer", "step", "phase", "domain"] | None,
    keep_dummy: bool,
    beside: Beside,
    printer: Printer,
) -> None:
    """How balanced LOG is by every definition in use, beside a perfectly uniform router.

    \b
    Example:
      nsysmoe routing balance routes.parquet --gpus 8
    """
    from nsysmoe.analysis.routing.balance import balance as ask
    from nsysmoe.reports.pages.routing.balance import balance_page

    with working(f"Reading {paths[0]}"):
        found = ask(
            paths,
            experts=experts,
            top_k=top_k,
            gpus=gpus,
            map_=map_,
            shared=shared,
            by=by,
            keep_dummy=keep_dummy,
            beside=beside,
        )
    files = (*paths, *beside.inputs(), *([] if map_ is None else [map_]))
    printer.show(balance_page(found), files)


@command.command("patterns")
@_logs
@click.option(
    "--by",
    type=click.Choice(["domain", "phase"]),
    help="What groups popularity.  [default: domain where the log tells it, else phase]",
)
@click.option(
    "--top", type=_COUNT, help="Experts whose overlap is counted.  [default: an eighth, k at least]"
)
@_keep_dummy
@_beside_options
@output_options
def patterns(
    paths: tuple[Path, ...],
    by: Literal["domain", "phase"] | None,
    top: int | None,
    keep_dummy: bool,
    beside: Beside,
    printer: Printer,
) -> None:
    """Which experts are popular where in LOG, and which go together.

    Popularity by domain and its shift, prefill against decode, pairs within a token, steps from
    one layer to the next; each beside what chance would give.

    \b
    Example:
      nsysmoe routing patterns routes.parquet --domains prompts.jsonl -o patterns.html
    """
    from nsysmoe.analysis.routing.patterns import patterns as ask
    from nsysmoe.reports.pages.routing.patterns import patterns_page

    with working(f"Reading {paths[0]}"):
        found = ask(paths, by=by, top=top, keep_dummy=keep_dummy, beside=beside)
    printer.show(patterns_page(found), (*paths, *beside.inputs()))


@command.command("padding")
@_logs
@click.option(
    "--batches",
    type=_Batches(),
    help="Batch size x batches, formed of the log's requests.  [default: 8x50,16x20,32x10,64x5]",
)
@_experts
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the draw of requests.",
)
@_keep_dummy
@_beside_options
@output_options
def padding(
    paths: tuple[Path, ...],
    batches: tuple[tuple[int, int], ...] | None,
    experts: int | None,
    seed: int,
    keep_dummy: bool,
    beside: Beside,
    printer: Printer,
) -> None:
    """What padding does to the balance of experts in LOG, and what rerouting it would give.

    Padding is what the log marks, and what batches of its requests would need, sorted by length
    and unsorted. Rerouted, it goes to the experts with the fewest real tokens.

    \b
    Example:
      nsysmoe routing padding routes.parquet --run run.json --batches 8x50,64x5
    """
    from nsysmoe.analysis.routing.padding import BATCHES
    from nsysmoe.analysis.routing.padding import padding as ask
    from nsysmoe.reports.pages.routing.padding import padding_page

    with working(f"Reading {paths[0]}"):
        found = ask(
            paths,
            batches=batches or BATCHES,
            experts=experts,
            seed=seed,
            keep_dummy=keep_dummy,
            beside=beside,
        )
    printer.show(padding_page(found), (*paths, *beside.inputs()))


def _candidate(trace: Path | None, routed: Path | None, run: Path | None) -> Inputs | None:
    from nsysmoe.analysis.routing.routed import Inputs

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
