"""What devices carry under a map of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.placement import PlacementAnswer

SCHEMA_VERSION = 1
_NOTE = (
    "A replicated expert's load is split evenly over its replicas. Balancedness: mean / max of "
    "the devices' loads in a layer; 1 is balanced."
)
_COLUMNS = (
    Column("Layer"),
    Column("Max load"),
    Column("Mean load"),
    Column("Balancedness"),
    Column("Max load, contiguous"),
)


def placement_page(answer: PlacementAnswer) -> Document:
    """Return loads by layer, on held-out loads first where there are any."""
    tables = []
    if answer.held_out:
        tables.append(_table("Device loads on held-out loads", answer.held_out))
    tables.append(_table(f"Device loads on {answer.source}", answer.layers))
    return Document(
        title=f"Placement of experts: {answer.what}",
        lead=(answer.sentence,),
        tables=tuple(tables),
        data={
            "schema_version": SCHEMA_VERSION,
            "layers": list(answer.layers),
            "held_out": list(answer.held_out),
            "findings": [finding.to_dict() for finding in answer.findings],
        },
        records=tuple(
            {
                "layer": number,
                **{key: value for key, value in layer.items() if not isinstance(value, list)},
            }
            for number, layer in enumerate(answer.layers)
        ),
        findings=answer.findings,
        notes=(_NOTE,),
        pictures=(
            Picture(
                "Load of each device by layer",
                lambda: _draw(answer),
                "Relative to the mean of the layer: 1 is a fair share.",
            ),
        ),
    )


def _draw(answer: PlacementAnswer) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    return heatmap(
        [layer["device_loads"] for layer in answer.held_out or answer.layers], "GPU", "layer"
    )


def _table(caption: str, layers: tuple[dict[str, Any], ...]) -> Table:
    rows = tuple(
        Row(
            (
                str(number),
                numbers.decimal(layer["max_load"]),
                numbers.decimal(sum(layer["device_loads"]) / len(layer["device_loads"])),
                f"{layer['balancedness']:.4f}",
                numbers.decimal(layer["contiguous_max_load"]),
            )
        )
        for number, layer in enumerate(layers)
    )
    return Table(caption, _COLUMNS, rows)
