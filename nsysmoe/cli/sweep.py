"""``nsysmoe sweep``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer
    from nsysmoe.sweep.grid import Value

_WHOLE = re.compile(r"-?\d{1,18}")
_DECIMAL = re.compile(r"-?\d+\.\d+")


@click.group("sweep")
def command() -> None:
    """Sweeps over options of vLLM: which runs to make, and one table of their results.

    \b
    Example:
      nsysmoe sweep plan --repeats 3 -o plan.json
      nsysmoe sweep collect results --table sweep.parquet

    Subcommands have --format and -o, --output.
    """


# Generic in newer versions of click only.
class _Option(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """NAME=VALUE[,VALUE...]."""

    name = "option"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "NAME=VALUE[,VALUE...]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[Value, ...]]:
        name, _, values = str(value).partition("=")
        parts = [part.strip() for part in values.split(",")]
        if not name.strip("-") or not all(parts):
            self.fail(f"{value!r} is not NAME=VALUE, such as max-num-seqs=4,8", param, ctx)
        if len(set(parts)) < len(parts):
            self.fail(f"{value!r} names a value twice", param, ctx)
        return name.strip("-").replace("_", "-"), tuple(_value(part) for part in parts)


def _value(text: str) -> Value:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


@command.command("plan")
@click.option(
    "--axis", "axes", multiple=True, type=_Option(), help="Values of an option of vLLM, in turn."
)
@click.option(
    "--only-axes", is_flag=True, help="Only the axes named with --axis, not the paper's as well."
)
@click.option("--set", "fixed", multiple=True, type=_Option(), help="An option with one value.")
@click.option(
    "--routing",
    "routings",
    multiple=True,
    help="A routing configuration by name; may be repeated.  [default: all]",
)
@click.option("--config", type=FILE, help="TOML with axes and routing configurations of your own.")
@click.option("--dataset", "datasets", multiple=True, help="A file of prompts; may be repeated.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--start-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="What starting vLLM takes, for the cost.",
)
@click.option(
    "--run-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="What the requests of a run take, for the cost.",
)
@click.option("--gpus", type=click.IntRange(min=1), default=2, show_default=True)
@output_options
def plan(
    axes: tuple[tuple[str, tuple[Value, ...]], ...],
    only_axes: bool,
    fixed: tuple[tuple[str, tuple[Value, ...]], ...],
    routings: tuple[str, ...],
    config: Path | None,
    datasets: tuple[str, ...],
    repeats: int,
    start_seconds: float,
    run_seconds: float,
    gpus: int,
    printer: Printer,
) -> None:
    """The runs of a sweep, in order, and what they cost; without options, the paper's grid.

    \b
    Example:
      nsysmoe sweep plan --axis max-num-seqs=8,32 --repeats 5 -o plan.json
    """
    from nsysmoe.reports.pages.sweep import plan_page
    from nsysmoe.sweep.grid import Cost, Grid, paper_grid, runs_of

    found = paper_grid(config)
    known = {} if only_axes else {name: tuple(values) for name, values in found["axes"].items()}
    named = found["routing"]
    if missing := [name for name in routings if name not in named]:
        raise click.BadParameter(
            f"there is no {missing[0]}; there are {', '.join(named)}", param_hint="--routing"
        )
    if several := [name for name, values in fixed if len(values) > 1]:
        raise click.BadParameter(
            f"{several[0]} has several values; that is an --axis", param_hint="--set"
        )
    grid = Grid(
        axes={**known, **dict(axes)},
        routings={name: named[name] for name in (routings or named)},
        fixed={**found["fixed"], **{name: values[0] for name, values in fixed}},
        datasets=datasets,
        repeats=repeats,
    )
    page = plan_page(grid, runs_of(grid), Cost(start_seconds, run_seconds, gpus))
    printer.show(page, [config] if config else [])


@command.command("collect")
@click.argument("results", nargs=-1, required=True, type=FILE)
@click.option("--table", type=FILE, help="Write the table here, as Parquet.")
@click.option("--suite", type=FILE, help="manifest.json of the data sets, for expected scores.")
@click.option(
    "--experts",
    type=click.IntRange(min=1),
    help="Experts of a layer, for observed CVs.  [default: the highest in each log]",
)
@output_options
def collect(
    results: tuple[Path, ...],
    table: Path | None,
    suite: Path | None,
    experts: int | None,
    printer: Printer,
) -> None:
    """One table of all RESULTS: folders with run.json, or JSON of vllm bench serve and sweep.

    A routing.npz beside a result gives its observed CV.

    \b
    Example:
      nsysmoe sweep collect results --suite suite/manifest.json --table sweep.parquet
    """
    from nsysmoe.analysis.sweep import collect as gather
    from nsysmoe.reports.pages.sweep import collected_page
    from nsysmoe.sweep.table import write_table

    with working("Reading results"):
        found = gather(results, suite=suite, experts=experts)
    if table is not None:
        write_table(found.frame, table)
    printer.show(collected_page(found), [path for path in (*results, suite) if path])
