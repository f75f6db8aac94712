"""Padding of batches: balance without it, with it, and with it moved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Picture, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.padding import Padding

SCHEMA_VERSION = 1
_WHATS = {"real": "real tokens alone", "padded": "with padding", "rerouted": "padding rerouted"}
_HEATS = {"real": "Real tokens", "padding": "Padding", "rerouted": "Padding, rerouted"}
_NOTE = (
    "CV: σ/μ over the experts of a layer in one batch, the mean over layers and batches; over the "
    "run: batches added up first. Rerouted: padding goes to the experts with the fewest real "
    "tokens; no real token moves."
)


def padding_page(padding: Padding) -> Document:
    """Return measures of what the log marks, and of batches formed of its requests."""
    tables = [table for table in (_marked(padding), _settings(padding)) if table.rows]
    return Document(
        title=f"Padding and balance: {padding.source}",
        lead=padding.sentences or ("Batches of these requests need no padding.",),
        tables=tuple(tables),
        data={
            "schema_version": SCHEMA_VERSION,
            "source": padding.source,
            **padding.shape,
            "marked": list(padding.marked),
            "settings": list(padding.settings),
            "layer_numbers": list(padding.layers),
            "heat": padding.heat,
            "findings": [finding.to_dict() for finding in padding.findings],
        },
        records=padding.settings or padding.marked,
        findings=padding.findings,
        notes=(_NOTE,),
        pictures=_pictures(padding),
    )


def _marked(padding: Padding) -> Table:
    columns = (
        left("Loads", "what", _WHATS.__getitem__),
        right("CV", "cv"),
        right("CV, p95", "cv_p95"),
        right("Max / mean", "max_over_mean"),
        right("CV over the run", "run_cv"),
    )
    return table("As the log marks it", padding.marked, columns)


def _settings(padding: Padding) -> Table:
    columns = (
        left("Batch size × batches", lambda row: f"{row['batch_size']} × {row['batches']}"),
        left("Requests", "order"),
        right("Padding", "padding_share", numbers.share),
        right("CV, real", "real_cv"),
        right("CV, padded", "padded_cv"),
        right("CV, rerouted", "rerouted_cv"),
        right("Max / mean, padded", "padded_max_over_mean"),
        right("rerouted", "rerouted_max_over_mean"),
    )
    return table("Batches of the log's requests", padding.settings, columns)


def _pictures(padding: Padding) -> tuple[Picture, ...]:
    where = "" if padding.marked else ", in batches of the largest size, unsorted"
    heats = [
        Picture(
            f"{what} by layer and expert{where}",
            partial(_heat, padding, key),
            "Relative to the mean of real tokens in the layer, all three on one scale.",
        )
        for key, what in _HEATS.items()
    ]
    curves = [Picture("CV by batch size", partial(_curves, padding))] if padding.settings else []
    return (*curves, *heats)


def _heat(padding: Padding, key: str) -> Any:
    from nsysmoe.reports.pictures.loads import scaled_heatmap  # noqa: PLC0415 - plotly

    means = [sum(row) / len(row) for row in padding.heat["real"]]
    highest = max(
        (
            value / mean
            for rows in padding.heat.values()
            for row, mean in zip(rows, means, strict=True)
            for value in row
            if mean
        ),
        default=2.0,
    )
    return scaled_heatmap(padding.heat[key], means, highest, padding.layers)


def _curves(padding: Padding) -> Any:
    from nsysmoe.reports.pictures.loads import lines  # noqa: PLC0415 - plotly

    sizes = sorted({row["batch_size"] for row in padding.settings})
    found = {(row["batch_size"], row["order"]): row for row in padding.settings}
    series = {
        f"{_WHATS[what]}, {order}": [found[size, order][f"{what}_cv"] for size in sizes]
        for order in ("unsorted", "sorted")
        for what in ("padded", "rerouted")
    }
    return lines(sizes, series, "requests of a batch", "CV of experts")
