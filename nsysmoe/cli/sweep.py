"""``nsysmoe sweep``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli import capturing
from nsysmoe.cli.capturing import POSITIVE
from nsysmoe.cli.options import FILE, Finite, grouped, output_options
from nsysmoe.cli.progress import working
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Spec
    from nsysmoe.cli.options import Printer
    from nsysmoe.sweep.grid import Grid, Value

_WHOLE = re.compile(r"-?\d{1,18}")
_DECIMAL = re.compile(r"-?\d+\.\d+")


@click.group("sweep")
def command() -> None:
    """Sweeps over options of vLLM: which runs to make, making them, and one table of all.

    \b
    Example:
      nsysmoe sweep plan --repeats 3 -o plan.json
      nsysmoe sweep run --model mistralai/Mixtral-8x7B-v0.1 --tensor-parallel 2 -o sweep/
      nsysmoe sweep collect sweep/ --table sweep.parquet

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


_grid_options = grouped(
    click.option(
        "--axis",
        "axes",
        multiple=True,
        type=_Option(),
        help="Values of an option of vLLM, in turn.",
    ),
    click.option(
        "--only-axes",
        is_flag=True,
        help="Only the axes named with --axis, not the paper's as well.",
    ),
    click.option("--set", "fixed", multiple=True, type=_Option(), help="An option with one value."),
    click.option(
        "--routing",
        "routings",
        multiple=True,
        help="A routing configuration by name; may be repeated.  [default: all]",
    ),
    click.option(
        "--config", type=FILE, help="TOML with axes and routing configurations of your own."
    ),
    click.option(
        "--dataset", "datasets", multiple=True, help="A file of prompts; may be repeated."
    ),
    click.option("--repeats", type=POSITIVE, default=3, show_default=True),
    click.option(
        "--start-seconds",
        type=Finite(min=0),
        default=120.0,
        show_default=True,
        help="What starting vLLM takes, for the cost.",
    ),
    click.option(
        "--run-seconds",
        type=Finite(min=0),
        default=60.0,
        show_default=True,
        help="What the requests of a run take, for the cost.",
    ),
)


@command.command("plan")
@_grid_options
@click.option("--gpus", type=POSITIVE, default=2, show_default=True, help="That a run holds.")
@click.option("--jobs", type=POSITIVE, default=1, show_default=True, help="Runs at the same time.")
@output_options
def plan(
    start_seconds: float, run_seconds: float, gpus: int, jobs: int, printer: Printer, **given: Any
) -> None:
    """The runs of a sweep, in order, and what they cost; without options, the paper's grid.

    \b
    Example:
      nsysmoe sweep plan --axis max-num-seqs=8,32 --repeats 5 -o plan.json
    """
    from nsysmoe.reports.pages.experiments.sweep import plan_page
    from nsysmoe.sweep.grid import Cost, runs_of

    grid = _grid(given)
    page = plan_page(grid, runs_of(grid), Cost(start_seconds, run_seconds, gpus, jobs))
    printer.show(page, [given["config"]] if given["config"] else [])


def _grid(given: dict[str, Any]) -> Grid:
    """Build the grid that the options ask for."""
    from nsysmoe.sweep.grid import Grid, paper_grid

    found = paper_grid(given["config"])
    paper = {} if given["only_axes"] else found["axes"]
    named = found["routing"]
    if missing := [name for name in given["routings"] if name not in named]:
        raise click.BadParameter(
            f"there is no {missing[0]}; there are {', '.join(named)}", param_hint="--routing"
        )
    if several := [name for name, values in given["fixed"] if len(values) > 1]:
        raise click.BadParameter(
            f"{several[0]} has several values; that is an --axis", param_hint="--set"
        )
    fixed = {name: values[0] for name, values in given["fixed"]}
    if both := sorted(set(fixed) & set(dict(given["axes"]))):
        raise click.UsageError(f"{both[0]} is asked for with --axis and with --set; it can be one")
    # What is set to one value is no axis of the paper's any longer.
    axes = {name: values for name, values in paper.items() if name not in fixed}
    return Grid(
        axes={name: tuple(values) for name, values in {**axes, **dict(given["axes"])}.items()},
        routings={name: named[name] for name in (given["routings"] or named)},
        fixed={**found["fixed"], **fixed},
        datasets=given["datasets"],
        repeats=given["repeats"],
    )


# Generic in newer versions of click only.
class _Sets(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """GPUs of a run, with a colon before those of the next."""

    name = "sets"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "GPUS[:GPUS...]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, ...], ...]:
        sets = [[gpu.strip() for gpu in one.split(",")] for one in str(value).split(":")]
        if not all(gpu.isdigit() for gpus in sets for gpu in gpus):
            self.fail(f"{value!r} names no GPUs, such as 0,1:2,3", param, ctx)
        return tuple(map(tuple, sets))


_run_options = grouped(
    click.option(
        "-o", "--output", type=FILE, default=Path("sweep"), show_default=True, help="The folder."
    ),
    click.option(
        "--jobs",
        type=POSITIVE,
        default=1,
        show_default=True,
        help="Runs at the same time, each on as many of the visible GPUs as it needs.",
    ),
    click.option(
        "--gpu-sets", type=_Sets(), help="The GPUs of runs at the same time, such as 0,1:2,3."
    ),
    click.option(
        "--warm-rounds",
        type=POSITIVE,
        default=2,
        show_default=True,
        help="Rounds before those that are measured.",
    ),
    click.option(
        "--measured-rounds",
        type=POSITIVE,
        default=3,
        show_default=True,
        help="Rounds that are measured, of the same requests.",
    ),
    click.option(
        "--warm-steps/--no-warm-steps",
        "warms_steps",
        default=True,
        show_default=True,
        help="Whether a step of every size runs first; without, code may be compiled in a round.",
    ),
    click.option(
        "--profile",
        "is_profiled",
        is_flag=True,
        help="Profile one more round of each run with nsys, as capture does.",
    ),
    capturing.rearrange_option("any", "in configurations with EPLB"),
    click.option(
        "--routed-experts/--no-routed-experts",
        default=False,
        show_default=True,
        help="Keep which experts each token chose, for observed CVs; what it costs is measured.",
    ),
)


@command.command("run")
@capturing.layout_options
@_grid_options
@_run_options
@capturing.workload_options
@capturing.engine_options
@capturing.eplb_options
@capturing.dummy_options
@capturing.how_options
def run(
    output: Path,
    dry_run: bool,
    check: bool,
    format_: str,
    start_seconds: float,
    run_seconds: float,
    **given: Any,
) -> None:
    """Make the runs of a sweep on this GPU node, each with its run.json.

    The grid is that of `sweep plan` with the same options. A run that fails does not keep the
    others from being made; the same command goes on where an earlier one ended.

    \b
    Example:
      nsysmoe sweep run --model mistralai/Mixtral-8x7B-v0.1 --tensor-parallel 2 --jobs 2 -o sweep/
      nsysmoe sweep collect sweep/ --table sweep.parquet
    """
    from nsysmoe.sweep.grid import Cost

    output = output.absolute()
    grid = _grid(given)
    spec = _spec(given, grid, is_dry=dry_run)
    if dry_run:
        from nsysmoe.capture.plan import script

        click.echo(script(spec, str(output)), nl=False)
        return
    facts = capturing.checked(spec, output, format_, is_asked=check)
    if not check:
        cost = Cost(start_seconds, run_seconds, spec.ranks, max(1, len(spec.gpu_sets)))
        say(cost.sentence(grid, grid.points * grid.repeats))
        capturing.make(spec, output, facts, format_)


def _spec(given: dict[str, Any], grid: Grid, *, is_dry: bool) -> Spec:
    """Build the spec of all points."""
    from dataclasses import replace

    from nsysmoe.capture.engine import check
    from nsysmoe.capture.points import arms_of
    from nsysmoe.capture.probe import is_profiled
    from nsysmoe.sweep.grid import runs_of

    if is_profiled(os.environ):
        raise click.UsageError("nsys is profiling already; sweep run starts its own (--profile)")
    profiled = given["is_profiled"]
    workloads = {name: capturing.workload(given, Path(name)) for name in grid.datasets}
    spec = capturing.base_spec(
        given,
        arms_of(runs_of(grid), capturing.layout(given), workloads),
        runs=grid.repeats,
        profile="nsys" if profiled else "none",
        load=capturing.load(
            given,
            1 if profiled else given["measured_rounds"],
            warms_steps=given["warms_steps"],
        ),
        export_json=profiled and (is_dry or capturing.exports_json(given["nsys"])),
        keeps_going=True,
    )
    spec = replace(spec, gpu_sets=given["gpu_sets"] or _sets(given["jobs"], spec.ranks))
    check(spec)
    return spec


def _sets(jobs: int, ranks: int) -> tuple[tuple[str, ...], ...]:
    """Cut the visible GPUs into sets; whether there are as many is seen later."""
    if jobs == 1:
        return ()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(gpu) for gpu in range(jobs * ranks)]
    if len(names) < jobs * ranks:
        raise click.BadParameter(
            f"CUDA_VISIBLE_DEVICES shows {len(names)} GPUs, and {jobs} runs need {jobs * ranks}",
            param_hint="--jobs",
        )
    return tuple(tuple(names[place * ranks : (place + 1) * ranks]) for place in range(jobs))


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
    from nsysmoe.analysis.experiments.sweep import collect as gather
    from nsysmoe.reports.pages.experiments.sweep import collected_page
    from nsysmoe.sweep.table import write_table

    with working("Reading results"):
        found = gather(results, suite=suite, experts=experts)
    if table is not None:
        write_table(found.frame, table)
    printer.show(collected_page(found), [path for path in (*results, suite) if path])
