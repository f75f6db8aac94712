"""Sweeps: the plan with its cost, and the table that was collected."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.sweep.table import MEASURES, ROUTING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.experiments.sweep import Collected
    from nsysmoe.sweep.grid import Cost, Grid, Run

_SCALES = {"ttft_s": ("TTFT (ms)", 1e3), "tpot_s": ("TPOT (ms)", 1e3)}
_COST_NOTE = (
    "The cost takes each run to start vLLM anew, and the seconds of a start and of a run as they "
    "were given: measure one run and plan again."
)


def plan_page(grid: Grid, runs: Sequence[Run], cost: Cost) -> Document:
    """Return the runs in order; the JSON has the options of each and the cost."""
    columns = [Column("Run"), Column("Repeat"), Column("Routing", "left")]
    columns += [Column(name) for name in grid.axes]
    columns += [Column("Data set", "left")] if grid.datasets else []
    rows = tuple(
        Row(
            (
                str(run.number),
                str(run.repeat),
                run.routing,
                *(str(run.settings[name]) for name in grid.axes),
                *([run.dataset or ""] if grid.datasets else []),
            )
        )
        for run in runs
    )
    hours, gpu_hours = cost.hours(len(runs)), cost.gpu_hours(len(runs))
    return Document(
        title="Plan of a sweep",
        lead=(cost.sentence(grid, len(runs)),),
        tables=(Table("Runs, in order", tuple(columns), rows),),
        data={
            "points": grid.points,
            "repeats": grid.repeats,
            "cost": {**asdict(cost), "hours": hours, "gpu_hours": gpu_hours},
            "runs": [_run(run) for run in runs],
        },
        records=tuple(_record(run) for run in runs),
        notes=(_COST_NOTE,),
    )


def _run(run: Run) -> dict[str, Any]:
    return {**asdict(run), "arguments": run.arguments()}


def _record(run: Run) -> dict[str, Any]:
    head = {key: value for key, value in asdict(run).items() if key != "settings"}
    return {**head, "arguments": " ".join(run.arguments())}


def collected_page(found: Collected) -> Document:
    """Return a row a point: means over its repeats, and how far they lie apart."""
    points = found.frame["point"].n_unique()
    shown = _varying(found)
    columns = (
        *(Column(name.replace("_", "-"), "left") for name in shown),
        Column("Runs"),
        *(Column(_SCALES.get(key, (title, 1.0))[0]) for key, title in MEASURES.items()),
        Column("Expected score"),
        Column("Observed CV"),
    )
    return Document(
        title="Results of a sweep",
        lead=(f"{found.frame.height} runs of {points} points were collected.",),
        tables=(
            Table("Means over repeats (and their range)", columns, tuple(_rows(found, shown))),
        ),
        data=found.frame.to_dicts(),
        records=tuple(found.frame.iter_rows(named=True)),
        findings=found.findings,
    )


def _varying(found: Collected) -> list[str]:
    """Return the routing and the settings that tell points apart: most are the same in all."""
    names = found.frame.columns
    settings = [name for name in names[: names.index("source")] if name not in {"point", "repeat"}]
    return [name for name in settings if name == ROUTING or found.frame[name].n_unique() > 1]


def _rows(found: Collected, shown: Sequence[str]) -> list[Row]:
    rows = []
    # As numbers, not as files happen to be called: 4 before 16.
    ordered = found.frame.sort(shown, nulls_last=True, maintain_order=True)
    for _, part in ordered.group_by(["point"], maintain_order=True):
        measures = [_text(part[key].drop_nulls().to_list(), key) for key in MEASURES]
        imbalance = [_text(part[key].to_list(), key) for key in ("expected_score", "observed_cv")]
        first = part.row(0, named=True)
        names = (numbers.UNKNOWN if first[name] is None else str(first[name]) for name in shown)
        rows.append(Row((*names, str(part.height), *measures, *imbalance)))
    return rows


def _text(values: Sequence[float | None], key: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return numbers.UNKNOWN
    scale = _SCALES.get(key, ("", 1.0))[1]
    mean = numbers.decimal(sum(known) / len(known) * scale)
    if min(known) == max(known):
        return mean
    return f"{mean} ({numbers.decimal(min(known) * scale)}-{numbers.decimal(max(known) * scale)})"
