"""Activation patterns: popularity and its shift, prefill against decode, what goes together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Picture, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.patterns import Patterns

SCHEMA_VERSION = 1
_MEASURES = {"pearson": "Pearson", "spearman": "Spearman", "top_overlap": "Top-{} overlap"}
_NOTE = (
    "Distance: Jensen-Shannon, 0 for equal popularity, 1 for no expert in common. Dealt: the mean "
    "where requests are dealt to groups at random. Expected pairs: experts as popular as they are, "
    "without favourite pairs; expected steps: layers independent of each other."
)
_BEYOND_CHANCE = (right("Expected", "expected"), right("Lift", "lift"), right("z", "z"))


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
    columns = (
        left("Group", "group"),
        right("Requests", "requests", numbers.count),
        right("Choices", "choices", numbers.count),
        right("CV, mean of layers", "cv"),
    )
    return table("Groups", patterns.groups, columns)


def _shifts(patterns: Patterns) -> Table:
    columns = (
        left("Between", "one"),
        left("and", "other"),
        right("Distance", "distance"),
        right("p50", "p50"),
        right("Max", "max"),
        right("Worst layer", "worst_layer", str),
        right("Dealt", "chance"),
        right("Dealt, p95", "chance_p95"),
        right("p", "p"),
    )
    return table(f"Shift of popularity by {patterns.by}", patterns.shifts, columns)


def _agreement(patterns: Patterns) -> Table:
    columns = (
        left("Measure", "measure", lambda key: _MEASURES[key].format(patterns.top)),
        right("Mean of layers", "mean"),
        right("Lowest layer", "min"),
        right("By chance", "by_chance"),
        right("One request", "own"),
        right("Another's decode", "others"),
    )
    return table("Prefill against decode", patterns.agreement, columns)


def _pairs(patterns: Patterns) -> Table:
    columns = (
        right("Layer", "layer", str),
        right("Expert", "one", str),
        right("with", "other", str),
        right("Tokens", "tokens", numbers.count),
        *_BEYOND_CHANCE,
    )
    return table("Pairs that tokens choose beyond chance", patterns.pairs, columns)


def _transitions(patterns: Patterns) -> Table:
    columns = (
        right("Layer", "layer", str),
        right("Expert", "one", str),
        right("then layer", "next_layer", str),
        right("expert", "other", str),
        right("Choices", "tokens", numbers.count),
        *_BEYOND_CHANCE,
    )
    return table("Steps to the next layer beyond chance", patterns.transitions, columns)


def _together(patterns: Patterns) -> Table:
    columns = (
        right("Layer", "layer", str),
        right("Pairs apart", "pairs", numbers.share),
        right("by chance", "pairs_chance", numbers.share),
        right("Next layer apart", "next", numbers.share),
        right("by chance", "next_chance", numbers.share),
    )
    return table("How far choices are from independent ones", patterns.together, columns)


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
