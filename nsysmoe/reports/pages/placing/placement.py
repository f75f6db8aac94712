"""What devices carry under a map of experts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.output import write
from nsysmoe.reports.tables import INTERVAL, left, right, table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nsysmoe.analysis.placing.placement import PlacementAnswer
    from nsysmoe.reports.tables import Values

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


_ACTIVITY_NOTE = (
    "Blocks: Σ over the experts of a GPU of ⌈rows / 16⌉, what a decode step reads; means over "
    "layers and steps of the GPU with most."
)
_TRAFFIC_NOTE = (
    "Token copies: other nodes that hold an expert that the token chose, each once; choice copies: "
    "choices of experts on other nodes. Both a token and layer, of tokens after those that say "
    "where a request runs. Bytes: token copies over all layers, dispatched and combined."
)
_REPLICAS_NOTE = (
    "A number of redundant experts pays where it saves 1 % and more of the busiest GPUs' load "
    "beyond the row before."
)
_REQUESTS = {"dealt": "dealt in turn", "grouped": "grouped"}


def placement_page(answer: PlacementAnswer) -> Document:
    """Return loads by layer, on held-out loads first where there are any."""
    # What the plan was made for comes first.
    parts = (_traffic, _activity) if answer.what == "locality" else (_activity, _traffic)
    tables = [table for part in (*parts, _replicas) for table in part(answer)]
    if answer.held_out:
        tables.append(_table("Device loads on held-out loads", answer.held_out))
    tables.append(_table(f"Device loads on {answer.source}", answer.layers))
    return Document(
        title=f"Placement of experts: {answer.what}",
        lead=(answer.sentence, *answer.also),
        tables=tuple(tables),
        data={
            "schema_version": SCHEMA_VERSION,
            "layers": list(answer.layers),
            "held_out": list(answer.held_out),
            "activity": list(answer.activity),
            "traffic": list(answer.traffic),
            "replicas": list(answer.replicas),
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
        notes=(
            _NOTE,
            *([_ACTIVITY_NOTE] if answer.activity else []),
            *([_TRAFFIC_NOTE] if answer.traffic else []),
            *([_REPLICAS_NOTE] if answer.replicas else []),
        ),
        pictures=(
            *(
                [
                    Picture(
                        "Copies between nodes",
                        lambda: _draw_traffic(answer),
                        f"Copies of a token{_unseen(answer, 'requests')}. Dealt: requests run on "
                        "nodes in turn; grouped: where the experts of their first tokens live.",
                    )
                ]
                if answer.traffic
                else []
            ),
            Picture(
                "Load of each device by layer, before and after",
                lambda: _draw(answer),
                "Relative to the mean of the layer, on one scale: 1 is a fair share. Before: "
                "experts in order, without replicas.",
            ),
            Picture(
                "What a step waits for",
                lambda: _draw_layers(answer),
                "The busiest GPU of each layer over the mean: how long the layer takes, where "
                "tokens are what it pays for, relative to perfect balance.",
            ),
        ),
    )


def write_map(answer: PlacementAnswer, path: Path, inputs: Iterable[Path]) -> None:
    """Write ``{"physical_to_logical_map": layers x slots}`` and nothing else.

    Raises:
        OutputError: It cannot be written, or is an input.
    """
    rows = [layer["physical_to_logical_map"] for layer in answer.layers]
    text = json.dumps({"physical_to_logical_map": rows}) + "\n"
    write(text.encode(), path, inputs)


def _draw(answer: PlacementAnswer) -> Any:
    from nsysmoe.reports.pictures.placement import heatmaps  # noqa: PLC0415 - plotly

    shown = {"before": answer.before, "after": _after(answer)}
    return heatmaps({name: rows for name, rows in shown.items() if rows}, "GPU", "layer")


def _draw_layers(answer: PlacementAnswer) -> Any:
    from nsysmoe.reports.pictures.placement import busiest  # noqa: PLC0415 - plotly

    shown = {"before": answer.before, "after": _after(answer)}
    return busiest({name: rows for name, rows in shown.items() if rows})


def _draw_traffic(answer: PlacementAnswer) -> Any:
    from nsysmoe.reports.pictures.placement import copy_bars  # noqa: PLC0415 - plotly

    return copy_bars(
        [
            (f"{row['what']}, {row['requests']}", row["token_copies"], row["choice_copies"])
            for row in answer.traffic
        ]
    )


def _after(answer: PlacementAnswer) -> list[list[float]]:
    return [layer["device_loads"] for layer in answer.held_out or answer.layers]


def _activity(answer: PlacementAnswer) -> list[Table]:
    if not answer.activity:
        return []
    columns = (
        left("Placement", "what"),
        right("Blocks, busiest GPU", "blocks", "{:.3f}".format),
        right("Blocks, mean", "mean_blocks", "{:.3f}".format),
        right("Active experts", "active", "{:.3f}".format),
        right("Saved", "saved", numbers.share),
        INTERVAL,
    )
    return [table(f"What decode reads{_unseen(answer, 'steps')}", answer.activity, columns)]


def _unseen(answer: PlacementAnswer, what: str) -> str:
    """Say that plans are judged on what they were not made from; a map that was given is not."""
    return f" on held-out {what}" if answer.held_out else ""


def _traffic(answer: PlacementAnswer) -> list[Table]:
    if not answer.traffic:
        return []
    columns = (
        left("Placement", "what"),
        left("Requests", "requests", _REQUESTS.__getitem__),
        right("Token copies", "token_copies", "{:.4f}".format),
        right("Choice copies", "choice_copies", "{:.4f}".format),
        right("Bytes a token", "bytes"),
        right("Saved", "saved", numbers.share),
        INTERVAL,
    )
    return [table(f"Copies between nodes{_unseen(answer, 'requests')}", answer.traffic, columns)]


def _replicas(answer: PlacementAnswer) -> list[Table]:
    if not answer.replicas:
        return []
    first = answer.replicas[0]["redundant"]

    def pays(row: Values) -> str:
        return "" if row["redundant"] == first else "yes" if row["pays"] else "no"

    columns = (
        right("Redundant", "redundant", numbers.count),
        right("Slots", "slots", numbers.count),
        right("GB a GPU", lambda row: f"{row['bytes'] / 1e9:,.2f}", str),
        right("Busiest GPUs", "critical"),
        right("Saved", "saved", numbers.share),
        right("Gained", "gained", numbers.share),
        right("Pays", pays, str),
    )
    return [table("Replicas within the memory budget", answer.replicas, columns)]


def _table(caption: str, layers: tuple[dict[str, Any], ...]) -> Table:
    # Null in every layer where experts do not divide among the GPUs.
    shown = len(_COLUMNS) - (layers[0]["contiguous_max_load"] is None)
    rows = tuple(
        Row(
            (
                str(number),
                numbers.decimal(layer["max_load"]),
                numbers.decimal(sum(layer["device_loads"]) / len(layer["device_loads"])),
                f"{layer['balancedness']:.4f}",
                numbers.decimal(layer["contiguous_max_load"]),
            )[:shown]
        )
        for number, layer in enumerate(layers)
    )
    return Table(caption, _COLUMNS[:shown], rows)
