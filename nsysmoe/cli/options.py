"""Options that commands share, and the one way in which they print."""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast

import click

from nsysmoe.cli.progress import working
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from nsysmoe.analysis.comparing.gates import Gate
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.reports import Document

F = TypeVar("F", bound="Callable[..., Any]")


class _File(click.Path):
    """A path that is one: an empty text, of a variable that was not set, would be this folder."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        if value == "":
            self.fail("the path is empty; name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


# What cannot be read is said as what does not exist: by the code that opens it.
FILE = _File(path_type=Path, readable=False)


class Reading(TypedDict):
    """How inputs are read: the keyword arguments of every question in ``analysis``."""

    class_map: ClassMap | None
    nsys: str | None


class RunReading(Reading):
    """The same for questions that a run of several files can answer."""

    gathering: Gathering


@dataclass(frozen=True)
class Printer:
    """Where a document goes, and how."""

    format_: str | None
    output: Path | None

    def show(self, document: Document, inputs: Iterable[Path] = ()) -> None:
        """Print a document, or write it to a file that is none of the inputs.

        Findings that the chosen format does not hold go to stderr, so that none is lost.
        """
        from nsysmoe.reports import encode, render, write
        from nsysmoe.reports.formats import BINARY_FORMATS

        format_, output = self._chosen()
        if format_ in {"csv", "json", "parquet"} and not _holds_findings(document, format_):
            for finding in document.findings:
                say(f"{finding.severity}: {finding.message}")
        if output is not None:
            with working(f"Writing {output}"):
                write(encode(document, format_ or "table"), output, inputs)
            say(f"Wrote {output}")
        elif format_ in BINARY_FORMATS:
            if sys.stdout.isatty():
                raise click.UsageError(f"{format_} is not for a terminal; name a file with -o")
            click.echo(encode(document, format_ or "table"), nl=False)
        elif format_ in {None, "table"} and sys.stdout.isatty():
            from nsysmoe.reports.formats.as_table import show

            show(document, sys.stdout)
        else:
            with working("Drawing up the answer"):
                text = render(document, format_ or "table")
            click.echo(text, nl=False)

    def _chosen(self) -> tuple[str | None, Path | None]:
        from nsysmoe.errors import OutputError
        from nsysmoe.reports import format_of

        output = None if str(self.output) == "-" else self.output
        if self.format_ is not None or output is None:
            return self.format_, output
        try:
            return format_of(output), output
        except OutputError as error:
            raise click.BadParameter(str(error), param_hint="-o") from error


def output_options(function: F) -> F:
    """Add ``--format`` and ``-o``; the command gets a ``printer``."""
    from nsysmoe.reports.formats import FORMATS

    @functools.wraps(function)
    def with_printer(*values: Any, format_: str | None, output: Path | None, **more: Any) -> Any:
        return function(*values, printer=Printer(format_, output), **more)

    decorated = click.option(
        "-o",
        "--output",
        type=FILE,
        help="Write here instead of the terminal; the suffix tells the format.",
    )(with_printer)
    return cast(
        "F",
        click.option(
            "--format",
            "format_",
            type=click.Choice(FORMATS),
            help="How to print.  [default: table, or by the suffix of -o]",
        )(decorated),
    )


def input_options(function: F) -> F:
    """Add ``--classes``, ``--nsys`` and the limits; the command gets ``reading``."""

    @functools.wraps(function)
    def with_reading(*values: Any, classes: Path | None, nsys: str | None, **more: Any) -> Any:
        from nsysmoe.resources import using

        limits = {name: more.pop(name) for name in ("threads", "memory_bytes", "has_cache")}
        with using(**limits):
            reading = Reading(class_map=_class_map(classes), nsys=nsys)
            return function(*values, reading=reading, **more)

    decorated: Any = with_reading
    for option in (_NO_CACHE, _MEMORY_LIMIT, _THREADS, _NSYS, _CLASSES):
        decorated = option(decorated)
    return cast("F", decorated)


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return the bytes that a size names."""
    from nsysmoe.errors import InputError
    from nsysmoe.resources import LEAST_MEMORY, bytes_of

    if value is None:
        return None
    try:
        found = bytes_of(value)
    except InputError as error:
        raise click.BadParameter(str(error)) from error
    if found < LEAST_MEMORY:
        raise click.BadParameter(f"queries need {LEAST_MEMORY // 10**6}MB or more")
    return found


_NO_CACHE = click.option(
    "--no-cache",
    "has_cache",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Neither use nor keep answers of earlier calls.",
)
_MEMORY_LIMIT = click.option(
    "--memory-limit",
    "memory_bytes",
    metavar="SIZE",
    callback=_size,
    help="What tables may hold in memory before they go to disk.  [default: 500MB]",
)
_THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads for queries.  [default: one for each core]",
)
_NSYS = click.option(
    "--nsys",
    metavar="PATH",
    help="The nsys that exports a .nsys-rep.  [default: the one on PATH]",
)
_CLASSES = click.option(
    "--classes",
    type=FILE,
    help="TOML file with kernel classes of your own, asked before the shipped ones.",
)


def run_options(function: F) -> F:
    """Add the options for runs of several files, below ``input_options``.

    The command's ``reading`` then holds ``gathering``.
    """

    @functools.wraps(function)
    def with_gathering(
        *values: Any,
        reading: Reading,
        as_runs: Literal["one-run", "runs"] | None,
        engine: Literal["here", "processes", "ray"] | None,
        workers: int | None,
        ray_address: str | None,
        scratch: Path | None,
        **more: Any,
    ) -> Any:
        from nsysmoe.analysis.reading.gathering import Gathering
        from nsysmoe.engines.processes import kept_workers

        if ray_address is not None and engine != "ray":
            raise click.UsageError("--ray-address is for --engine ray")
        gathering = Gathering(as_runs, engine, workers, ray_address, scratch)
        with kept_workers():
            return function(*values, reading={**reading, "gathering": gathering}, **more)

    return grouped(*_RUN_OPTIONS)(cast("F", with_gathering))


_RUN_OPTIONS = (
    click.option(
        "--one-run",
        "as_runs",
        flag_value="one-run",
        help="Read several files as ranks of one run.  [default: what host, process and time say]",
    ),
    click.option("--runs", "as_runs", flag_value="runs", help="Read each file as a run."),
    click.option(
        "--engine",
        type=click.Choice(["here", "processes", "ray"]),
        help="Where the work on each file of a run is done.  [default: processes for large files]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes at once.  [default: one a thread of --threads]",
    ),
    click.option(
        "--ray-address", metavar="ADDRESS", help="The Ray cluster of --engine ray.  [default: auto]"
    ),
    click.option(
        "--scratch",
        type=FILE,
        metavar="FOLDER",
        help="Where parts of files lie meanwhile: with Ray, a folder that all nodes share.",
    ),
)


def detail_options(function: F) -> F:
    """Add ``--full`` and ``--by``."""
    function = click.option(
        "--by",
        type=click.Choice(["phase", "rank", "run"]),
        help="Add Table 1 for each phase or rank, or a row for each run.",
    )(function)
    return click.option(
        "--full", is_flag=True, help="Add tails, launches, and the time by kernel and device."
    )(function)


def label_options(function: F) -> F:
    """Add ``--baseline-label`` and ``--candidate-label``."""
    from nsysmoe.metrics.kernel_time.table1 import BASELINE_LABEL, CANDIDATE_LABEL

    for side, default, which in (
        ("candidate", CANDIDATE_LABEL, "second"),
        ("baseline", BASELINE_LABEL, "first"),
    ):
        function = click.option(
            f"--{side}-label",
            callback=not_empty,
            default=default,
            show_default=True,
            help=f"Name of the {which}.",
        )(function)
    return function


def arms_options(function: F) -> F:
    """Add the arguments BASELINE and CANDIDATE, and their labels."""
    arms = (click.argument(side, type=FILE) for side in ("baseline", "candidate"))
    return grouped(*arms, label_options)(function)


def step_option(what: str) -> Callable[[F], F]:
    """Return ``--step``, with ``what`` as its help."""
    return click.option("--step", type=_Step(), default="median", show_default=True, help=what)


def routed_options(function: F) -> F:
    """Add ``--routed`` and ``--run``: what vLLM returned of a run, and its record."""
    return grouped(
        click.option(
            "--routed",
            type=FILE,
            required=True,
            help="Experts that vLLM returned: .npz, an array rN each.",
        ),
        click.option(
            "--run", type=FILE, required=True, help="JSON record of the run: lengths, maps."
        ),
    )(function)


def eplb_options(whose: str, when: str = "") -> Callable[[F], F]:
    """Return a decorator that adds ``--run``, ``--gpus`` and ``--redundant``: what EPLB would have.

    Args:
        whose: Whose record ``--run`` is, as its help says it.
        when: With which other option these go; empty for a command that is about them.
    """

    def said(what: str) -> str:
        return f"{when}{what}" if when else f"{what[0].upper()}{what[1:]}"

    return grouped(
        click.option(
            "--run",
            type=FILE,
            help=said(f"{whose}: lengths, maps.  [default: the run.json beside the trace]"),
        ),
        click.option(
            "--gpus",
            type=click.IntRange(min=1),
            help=said("GPUs that share the experts.  [default: the trace's]"),
        ),
        click.option(
            "--redundant",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help=said("redundant experts of a layer, over all GPUs."),
        ),
    )


def grouped(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that adds several options, in their order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


class Finite(click.FloatRange):
    """A range of numbers proper: NaN lies in every range of click's, and ∞ in those without end."""

    def __init__(self, *args: Any, or_infinite: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._or_infinite = or_infinite

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or refuse what is none."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number) or (math.isinf(number) and not self._or_infinite):
            self.fail(f"{value!r} is no number that can be used", param, ctx)
        return number


# Generic in newer versions of click only.
class _Step(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A step's number, or the word for one that is picked."""

    name = "step"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "N|slowest|median"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value in {"slowest", "median"}:
            return str(value)
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor slowest or median", param, ctx)


class _Gate(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """METRIC=PCT."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Gate:
        from nsysmoe.analysis.comparing.gates import GATED, Gate

        metric, _, percent = str(value).partition("=")
        try:
            limit = float(percent)
        except ValueError:
            limit = math.nan
        if not metric or not math.isfinite(limit):
            self.fail(f"{value!r} is not METRIC=PCT, such as wall_time_ns=1", param, ctx)
        if metric not in GATED:
            self.fail(f"there is no metric {metric}; there are {', '.join(GATED)}", param, ctx)
        return Gate(metric, limit)


# Generic in newer versions of click only.
class _Scale(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """KERNEL=FACTOR."""

    name = "scale"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "KERNEL=FACTOR"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        kernel, _, factor = str(value).rpartition("=")
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if not kernel or not math.isfinite(number) or number < 0:
            self.fail(f"{value!r} is not KERNEL=FACTOR, such as fused_moe_kernel=0.8", param, ctx)
        return kernel, number


GATE = _Gate()
SCALE = _Scale()


def not_empty(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse a label that nobody would see."""
    if not value.strip():
        raise click.BadParameter("a label must not be empty")
    return value


def _class_map(classes: Path | None) -> ClassMap | None:
    """Return the shipped classes with the user's before them; None means the shipped ones."""
    from nsysmoe.classes import default_class_map

    return default_class_map().extended_by(classes) if classes else None


def _holds_findings(document: Document, format_: str) -> bool:
    return format_ == "json" and isinstance(document.data, dict) and "findings" in document.data
