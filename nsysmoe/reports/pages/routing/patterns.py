"""Activation patterns: popularity and its shift, prefill against decode, what goes together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.patterns import Patterns

SCHEMA_VERSION = 1
_MEASURES = {"pearson": "Pearson", "spearman": "Spearman", "top_overlap": "Top-{} overlap"}
_NOTE = (
    "Distance: Jensen-Shannon, 0 for equal popularity, 1 for no expert in common. Dealt: the mean "
    "where requests are dealt to groups at random. Expected pairs: experts as popular as they are, "
    "without favourite pairs; expected steps: layers independent of each other."
)


def patterns_page(patterns: Patterns) -> Document:
    """Return shifts, agreement of phases, and the strongest pairs and steps."""
    tables = (
        _shifts(patterns),
        _agreement(patterns),
        _groups(patterns),
        _pairs(patterns),
        _transitions(patterns),
        _together(patterns),
    )
    return Document(
        title=f"Activation patterns: {patterns.source}",
        lead=patterns.sentences,
        tables=tuple(table for table in tables if table.rows),
        data=_data(patterns),
        records=patterns.popularity,
        findings=patterns.findings,
        notes=(_NOTE,),
        pictures=_pictures(patterns),
    )


def _data(patterns: Patterns) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "source": patterns.source,
        "by": patterns.by,
        **patterns.shape,
        "groups": list(patterns.groups),
        "shifts": list(patterns.shifts),
        "agreement": list(patterns.agreement),
        "top": patterns.top,
        "phases": list(patterns.phases),
        "pairs": list(patterns.pairs),
        "transitions": list(patterns.transitions),
        "together": list(patterns.together),
        "popularity": list(patterns.popularity),
        "findings": [finding.to_dict() for finding in patterns.findings],
    }


def _groups(patterns: Patterns) -> Table:
    columns = (Column("Group", "left"), *map(Column, ("Requests", "Choices", "CV, mean of layers")))
    rows = tuple(
        Row(
            (
                row["group"],
                numbers.count(row["requests"]),
                numbers.count(row["choices"]),
                numbers.decimal(row["cv"]),
            )
        )
        for row in patterns.groups
    )
    return Table("Groups", columns, rows)


def _shifts(patterns: Patterns) -> Table:
    titles = ("Distance", "p50", "Max", "Worst layer", "Dealt", "Dealt, p95", "p")
    keys = ("chance", "chance_p95", "p")
    rows = tuple(
        Row(
            (
                row["one"],
                row["other"],
                *(numbers.decimal(row[key]) for key in ("distance", "p50", "max")),
                str(row["worst_layer"]),
                *(numbers.decimal(row[key]) for key in keys),
            )
        )
        for row in patterns.shifts
    )
    columns = (Column("Between", "left"), Column("and", "left"), *map(Column, titles))
    return Table(f"Shift of popularity by {patterns.by}", columns, rows)


def _agreement(patterns: Patterns) -> Table:
    titles = ("Mean of layers", "Lowest layer", "By chance", "One request", "Another's decode")
    keys = ("mean", "min", "by_chance", "own", "others")
    rows = tuple(
        Row(
            (
                _MEASURES[row["measure"]].format(patterns.top),
                *(numbers.decimal(row[key]) for key in keys),
            )
        )
        for row in patterns.agreement
    )
    return Table("Prefill against decode", (Column("Measure", "left"), *map(Column, titles)), rows)


def _pairs(patterns: Patterns) -> Table:
    columns = tuple(map(Column, ("Layer", "Expert", "with", "Tokens", "Expected", "Lift", "z")))
    rows = tuple(Row((str(row["layer"]), *_cells(row))) for row in patterns.pairs)
    return Table("Pairs that tokens choose beyond chance", columns, rows)


def _transitions(patterns: Patterns) -> Table:
    titles = ("Layer", "Expert", "then layer", "expert", "Choices", "Expected", "Lift", "z")
    rows = []
    for row in patterns.transitions:
        one, other, *rest = _cells(row)
        rows.append(Row((str(row["layer"]), one, str(row["next_layer"]), other, *rest)))
    return Table("Steps to the next layer beyond chance", tuple(map(Column, titles)), tuple(rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["one"]),
        str(row["other"]),
        numbers.count(row["tokens"]),
        *(numbers.decimal(row[key]) for key in ("expected", "lift", "z")),
    )


def _together(patterns: Patterns) -> Table:
    titles = ("Layer", "Pairs apart", "by chance", "Next layer apart", "by chance")
    keys = ("pairs", "pairs_chance", "next", "next_chance")
    rows = tuple(
        Row((str(row["layer"]), *(numbers.share(row[key]) for key in keys)))
        for row in patterns.together
    )
    return Table("How far choices are from independent ones", tuple(map(Column, titles)), rows)


def _pictures(patterns: Patterns) -> tuple[Picture, ...]:
    drawn = patterns.pictures
    found = [
        Picture(
            "Popularity of experts by layer" + ("" if patterns.by is None else f": {name}"),
            partial(_heat, loads, drawn["layers"]),
            "Relative to the mean of the layer: 1 is a fair share.",
        )
        for name, loads in drawn["popularity"].items()
    ]
    found += [
        Picture(
            f"{what}, layer {drawn[key]['layer']}",
            partial(_lift, drawn[key]["lift"], across),
            "Choices over those expected: 1 is chance. Blank: fewer than one expected.",
        )
        for key, what, across in (
            ("pairs", "Experts that tokens choose together", "expert"),
            ("transitions", "Experts that follow in the next layer", "expert of the next layer"),
        )
        if drawn.get(key)
    ]
    if patterns.phases:
        found.append(Picture("Prefill against decode by layer", partial(_lines, patterns)))
    return tuple(found)


def _heat(loads: Any, layers: Any) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    return heatmap(loads, "expert", "layer", names=layers)


def _lift(cells: Any, across: str) -> Any:
    from nsysmoe.reports.pictures.loads import lift_heatmap  # noqa: PLC0415 - plotly

    return lift_heatmap(cells, across, "expert")


def _lines(patterns: Patterns) -> Any:
    from nsysmoe.reports.pictures.loads import lines  # noqa: PLC0415 - plotly

    layers = [row["layer"] for row in patterns.phases]
    series = {
        name.format(patterns.top): [row[key] for row in patterns.phases]
        for key, name in _MEASURES.items()
    }
    return lines(layers, series, "layer", "prefill against decode")
