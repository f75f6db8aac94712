"""Is EPLB worth it: the verdict, and what it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.advise import Advice

SCHEMA_VERSION = 1
_NAMES = {
    "measured": "now, as measured",
    "now": "now",
    "eplb": "EPLB's plan",
    "best": "best plan",
    "perfect_balance": "perfect balance",
    "uniform_router": "a uniform router",
}
_NOTE = (
    "Plans are made from one half of the {unit}s and judged on the other, both ways round. "
    "Critical: the busiest GPU of each layer and {unit}, added up; a replicated expert's load is "
    "split evenly. Intervals resample {unit}s of this one run: other runs vary more. Moving "
    "experts costs time and redundant ones memory, which is not in these numbers."
)


def advice_page(advice: Advice) -> Document:
    """Return the verdict, loads and times on held-out steps."""
    tables = [_times(advice)] if advice.times else []
    tables.append(_loads(advice))
    return Document(
        title=f"EPLB for {advice.source}",
        lead=advice.sentences,
        tables=tuple(tables),
        data={
            "schema_version": SCHEMA_VERSION,
            "source": advice.source,
            "worth": advice.is_worth,
            "verdict": list(advice.sentences),
            **advice.shape,
            "loads": list(advice.loads),
            "times": list(advice.times),
            "bound": list(advice.bound),
            "physical_to_logical_map": [list(row) for row in advice.map],
            "findings": [finding.to_dict() for finding in advice.findings],
        },
        records=advice.times or advice.loads,
        findings=advice.findings,
        notes=(_NOTE.format(unit=advice.shape["unit"]),),
        pictures=(
            Picture(
                "Work of the busiest GPUs on held-out steps",
                lambda: _draw(advice),
                "Relative to perfect balance: 1 is as good as any placement can be.",
            ),
        ),
    )


def _loads(advice: Advice) -> Table:
    columns = (
        Column("Placement", "left"),
        *map(Column, ("Critical (choices)", "Wasted share", "Saved", "95 %", "Active experts")),
    )
    rows = tuple(
        Row(
            (
                _NAMES[row["what"]],
                numbers.decimal(row["critical"]),
                numbers.share(row["wasted_share"]),
                numbers.share(row["saved"]),
                _interval(row),
                numbers.decimal(row["active"]),
            )
        )
        for row in advice.loads
    )
    return Table("Loads on held-out steps", columns, rows)


def _times(advice: Advice) -> Table:
    columns = (
        Column("Placement", "left"),
        *map(Column, ("Critical (ms)", "Excess (ms)", "Saved (ms)", "Saved", "95 %")),
    )
    rows = tuple(
        Row(
            (
                _NAMES[row["what"]],
                numbers.milliseconds(row["critical_ns"]),
                numbers.milliseconds(row["excess_ns"]),
                numbers.milliseconds(row["saved_ns"]),
                numbers.share(row["saved"]),
                _interval(row),
            ),
            row["phase"],
        )
        for row in advice.times
    )
    return Table("MoE time on held-out steps, by a fit on the trace", columns, rows)


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    return f"{numbers.share(row['low'])} to {numbers.share(row['high'])}"


def _draw(advice: Advice) -> Any:
    from nsysmoe.reports.pictures.loads import bars  # noqa: PLC0415 - plotly

    ideal = next(row for row in advice.loads if row["what"] == "perfect_balance")["critical"]
    return bars([(_NAMES[row["what"]], row["critical"] / ideal) for row in advice.loads])
