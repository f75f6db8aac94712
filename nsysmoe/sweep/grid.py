"""Which runs a sweep is made of: axes, routing configurations, data sets, repeats."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain, product
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_toml, shipped_toml
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Value = str | int | float | bool
# As vllm serve has it: letters, digits, and dots in front of a key of an object.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
# So many runs are no plan but a slip of a finger.
_MOST_RUNS = 100_000


@dataclass(frozen=True)
class Grid:
    """A sweep.

    Attributes:
        axes: Options of vLLM with their values.
        routings: Named sets of options.
        fixed: Options with one value.
        datasets: Files of prompts; empty for the one that the runner has.
        repeats: Runs of each point.
    """

    axes: dict[str, tuple[Value, ...]]
    routings: dict[str, dict[str, Value]]
    fixed: dict[str, Value] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    repeats: int = 3

    @property
    def points(self) -> int:
        """Settings that differ."""
        number = max(1, len(self.datasets)) * len(self.routings)
        for values in self.axes.values():
            number *= len(values)
        return number


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        number: Its place in the order of runs, from 1.
        point: What repeats of it share: routing, settings and data set.
        repeat: From 1.
        routing: Name of the routing configuration.
        dataset: File of prompts; None for the one that the runner has.
        settings: All options of vLLM.
    """

    number: int
    point: str
    repeat: int
    routing: str
    dataset: str | None
    settings: dict[str, Value]

    def arguments(self) -> list[str]:
        """Return the options as ``vllm serve`` takes them."""
        found: list[str] = []
        for name, value in self.settings.items():
            if isinstance(value, bool):
                found.append(f"--{name}" if value else f"--no-{name}")
            else:
                found += [f"--{name}", str(value)]
        return found


@dataclass(frozen=True)
class Cost:
    """What a sweep takes, from guesses that the user can correct.

    Attributes:
        start_s: Of starting vLLM, once a run.
        run_s: Of the requests of a run.
        gpus: That each run holds.
        at_once: Runs that are made at the same time, on GPUs of their own.
    """

    start_s: float = 120.0
    run_s: float = 60.0
    gpus: int = 2
    at_once: int = 1

    def hours(self, runs: int) -> float:
        """Return the wall time of that many runs."""
        return ceil(runs / self.at_once) * (self.start_s + self.run_s) / 3600

    def gpu_hours(self, runs: int) -> float:
        """Return what they hold of GPUs."""
        return runs * (self.start_s + self.run_s) / 3600 * self.gpus

    def sentence(self, grid: Grid, runs: int) -> str:
        """Return the cost in words."""
        beside = f", {self.at_once} at a time" if self.at_once > 1 else ""
        hours = self.hours(runs)
        time = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
        return (
            f"{runs:,} runs ({grid.points} points, {grid.repeats} of each{beside}) take about "
            f"{time}, {self.gpu_hours(runs):.1f} GPU hours on {self.gpus * self.at_once} GPUs."
        )


def paper_grid(config: Path | None = None) -> dict[str, Any]:
    """Return ``axes``, ``fixed`` and ``routing`` of the paper, or of a TOML file where it has them.

    Raises:
        InputError: The file is unreadable or of another form.
    """
    found = shipped_toml("nsysmoe.sweep", "sweep.toml")
    if config is None:
        return found
    own = read_toml(config, fix="check --config")
    _check(own, str(config))
    own = _with_dashes(own)
    # Routing configurations are added; axes are a whole.
    routing = {**found["routing"], **own.get("routing", {})}
    return {**found, **own, "routing": routing}


def runs_of(grid: Grid) -> list[Run]:
    """Return all runs: repeats outermost, routings innermost.

    What drifts over hours then meets every point alike, and two routings of one setting run one
    right after the other.

    Raises:
        InputError: There are more runs than anybody could want, an option is set twice or no
            name of one, or an axis has a value twice.
    """
    _check_options(grid)
    if grid.points * grid.repeats > _MOST_RUNS:
        raise InputError(f"the plan has over {_MOST_RUNS:,} runs; name fewer values for the axes")
    return list(_runs(grid))


def _check_options(grid: Grid) -> None:
    for routing, options in grid.routings.items():
        if both := sorted(set(options) & set(grid.axes)):
            raise InputError(f"{both[0]} is an axis and an option of {routing}; it can be one")
    for name in (*grid.axes, *grid.fixed, *chain.from_iterable(grid.routings.values())):
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is no name of an option, such as max-num-seqs")
    for name, values in {**grid.axes, "dataset": grid.datasets}.items():
        # To Python, true is 1.
        if len({str(value) for value in values}) < len(values):
            raise InputError(f"{name} has a value twice")


def _runs(grid: Grid) -> Iterator[Run]:
    number = 0
    datasets: tuple[str | None, ...] = grid.datasets or (None,)
    for repeat in range(1, grid.repeats + 1):
        for dataset, values in product(datasets, product(*grid.axes.values())):
            for routing, options in grid.routings.items():
                number += 1
                chosen = dict(zip(grid.axes, values, strict=True))
                settings = {**grid.fixed, **chosen, **options}
                point = _point(routing, chosen, dataset)
                yield Run(number, point, repeat, routing, dataset, settings)


def _point(routing: str, chosen: dict[str, Value], dataset: str | None) -> str:
    parts = [routing, *(f"{name}={value}" for name, value in chosen.items())]
    return ",".join([*parts, dataset] if dataset else parts)


def _with_dashes(own: dict[str, Any]) -> dict[str, Any]:
    """Return options by their names on the command line: underscores are Python's."""

    def dashed(options: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("_", "-"): value for name, value in options.items()}

    routing = {name: dashed(options) for name, options in own.get("routing", {}).items()}
    tables: dict[str, Any] = {name: dashed(own[name]) for name in ("axes", "fixed") if name in own}
    return {**own, **tables, **({"routing": routing} if routing else {})}


def _check(own: dict[str, Any], where: str) -> None:
    for name in ("axes", "fixed", "routing"):
        if not isinstance(own.get(name, {}), dict):
            raise InputError(f"{where}: [{name}] is no table; docs/workload.md has the form")
    for name, values in own.get("axes", {}).items():
        if not isinstance(values, list) or not values or not all(map(_is_value, values)):
            raise InputError(f"{where}: [axes] {name} needs a list of values")
    named = {"fixed": own.get("fixed", {}), **own.get("routing", {})}
    for name, options in named.items():
        if not isinstance(options, dict) or not all(map(_is_value, options.values())):
            raise InputError(f"{where}: {name} needs options with one value each")


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and not (
        isinstance(value, float) and not isfinite(value)
    )
