"""Each run of two arms: what means and intervals over runs are made of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.schedule import SCHEDULE
from nsysmoe.metrics.kernel_time.table1 import METRICS
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Picture, Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparing.comparison import Comparison, Side

# Titles, and what seconds are multiplied with.
LATENCIES = {
    "ttft_p50_s": ("Time to first token, median (ms)", 1e3),
    "ttft_p99_s": ("Time to first token, p99 (ms)", 1e3),
    "tpot_p50_s": ("Time per output token, median (ms)", 1e3),
    "tpot_p99_s": ("Time per output token, p99 (ms)", 1e3),
    "output_tok_per_s": ("Output tokens per second (more is better)", 1.0),
}
# What a reader looks for run by run; CSV and Parquet hold every metric.
_TRACED = {
    "total_time_ns": "MoE total (ms)",
    "critical_moe_ns": "Critical MoE (ms)",
    "excess_moe_ns": "Excess (ms)",
    "wait_ns": "Waiting (ms)",
    "idle_ns": "GPU idle (ms)",
    "wall_time_ns": "Wall (ms)",
}
_SERVED = {
    "ttft_p50_s": "TTFT (ms), not profiled",
    "tpot_p50_s": "TPOT (ms), not profiled",
    "output_tok_per_s": "Tokens/s, not profiled",
}
_NOTE = "A point is a run; what lies apart from its arm is noise between runs, or a run to look at."


def run_records(comparison: Comparison) -> tuple[dict[str, Any], ...]:
    """Return a flat row for each run: every metric, and what users saw where records tell it."""
    keys = [metric.key for metric in (*METRICS, *SCHEDULE)]
    return tuple(
        {
            "arm": side.label,
            "run": number + 1,
            "source": source,
            **{key: _traced(comparison, key, place, number) for key in keys},
            **{
                f"{key}{end}": _served(comparison, key, end, place, number)
                for key in LATENCIES
                for end in ("", "_unprofiled")
            },
        }
        for place, side in enumerate((comparison.baseline, comparison.candidate))
        for number, source in enumerate(side.sources)
    )


def runs_table(comparison: Comparison) -> Table:
    """Return a row for each run, with the metrics that most depend on the run."""
    rows = run_records(comparison)
    traced = {key: title for key, title in _TRACED.items() if _is_known(rows, key)}
    served = {key: title for key, title in _SERVED.items() if _is_known(rows, f"{key}_unprofiled")}
    columns = (
        Column("Run", "left"),
        *(Column(title) for title in (*traced.values(), *served.values())),
    )
    return Table("Each run", columns, tuple(_row(row, list(traced), list(served)) for row in rows))


def runs_pictures(comparison: Comparison) -> tuple[Picture, ...]:
    """Return every run as a point; nothing where each arm has one run."""
    if max(len(side.sources) for side in _sides(comparison)) == 1:
        return ()
    shown = [
        *((title, _lanes(comparison, key, 1e-6)) for key, title in _TRACED.items()),
        *(
            (title, _lanes(comparison, key, LATENCIES[key][1], "_unprofiled"))
            for key, title in _SERVED.items()
        ),
    ]
    known = [(title, lanes) for title, lanes in shown if any(lanes)]
    labels = [side.label for side in _sides(comparison)]
    return (Picture("Each run", partial(_draw, known, labels), _NOTE),)


def _draw(rows: list[tuple[str, list[list[float]]]], labels: list[str]) -> Any:
    from nsysmoe.reports.pictures import each_run  # noqa: PLC0415 - plotly

    return each_run(rows, labels)


def _sides(comparison: Comparison) -> tuple[Side, Side]:
    return comparison.baseline, comparison.candidate


def _lanes(
    comparison: Comparison, key: str, scale: float, end: str | None = None
) -> list[list[float]]:
    """Return the known values of each arm's runs."""
    lanes = []
    for place, side in enumerate(_sides(comparison)):
        values = [
            _traced(comparison, key, place, run)
            if end is None
            else _served(comparison, key, end, place, run)
            for run in range(len(side.sources))
        ]
        lanes.append([value * scale for value in values if value is not None])
    return lanes


def _is_known(rows: Sequence[dict[str, Any]], key: str) -> bool:
    return any(row[key] is not None for row in rows)


def _row(row: dict[str, Any], traced: list[str], served: list[str]) -> Row:
    texts = [numbers.milliseconds(row[key]) for key in traced]
    for key in served:
        value = row[f"{key}_unprofiled"]
        texts.append(numbers.decimal(None if value is None else value * LATENCIES[key][1]))
    return Row((row["source"], *texts), row["arm"])


def _traced(comparison: Comparison, key: str, place: int, run: int) -> Any:
    change = next((one for one in comparison.metrics if one.metric == key), None)
    if change is None:
        return None
    values = (change.baseline_values, change.candidate_values)[place]
    return values[run] if run < len(values) else None


def _served(comparison: Comparison, key: str, end: str, place: int, run: int) -> Any:
    """Return a run's value; None where some run has no record, which would shift the others."""
    row = next((one for one in comparison.latency if one["metric"] == key), None)
    side = _sides(comparison)[place]
    name = ("baseline", "candidate")[place]
    values = [] if row is None else row.get(f"{name}_values{end}", [])
    return values[run] if len(values) == len(side.sources) else None
