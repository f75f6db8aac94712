"""Padding rerouted inside a model: balance, time, harm, and the loads before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.padded_model import PaddingReport

SCHEMA_VERSION = 1
_ARMS = {"real": "real tokens", "baseline": "as it is", "rerouted": "rerouted"}
_NOTE = (
    "CV: σ / μ of the choices of all experts of all layers, over all batches together; in a batch: "
    "the mean over batches. Max / mean: of a layer's experts, mean over layers. Time: of the "
    "decoder, on the device, median over batches of the median of each; change: median over "
    "batches, with the extremes."
)


def padding_page(report: PaddingReport) -> Document:
    """Return the settings side by side."""
    return Document(
        title=f"Padding in {report.model['model']}",
        lead=report.sentences,
        tables=(
            _balance(report),
            _times(report),
            _kernels(report),
            *_harm(report),
            *_accuracy(report),
        ),
        data={
            "schema_version": SCHEMA_VERSION,
            "source": report.source,
            "model": report.model,
            "runs": list(report.rows),
            "times": list(report.times),
            "findings": [finding.to_dict() for finding in report.findings],
        },
        records=tuple(_record(row) for row in report.rows),
        findings=report.findings,
        notes=(_what(report.model), _NOTE),
        pictures=(
            Picture("CV by setting", lambda: _lines(report), "Over all experts of all layers."),
            *(_pair(report, place) for place in range(len(report.rows))),
        ),
    )


def _what(model: dict[str, Any]) -> str:
    return (
        f"{model['model']}: {model['layers']} layers of {model['experts']} experts, "
        f"{model['top_k']} a token, {model['dtype']}, on {model['device']} (torch "
        f"{model['torch']}, transformers {model['transformers']}); prompts of {model['prompts']} "
        f"by {model['tokenizer']} tokenizer; {model['repeats']} timed passes a batch."
    )


def _balance(report: PaddingReport) -> Table:
    columns = (
        Column("Batches", "left"),
        Column("Tokens"),
        Column("Padding"),
        *(Column(f"CV {name}") for name in _ARMS.values()),
        Column("In a batch as it is"),
        Column("In a batch rerouted"),
        Column("Max / mean as it is"),
        Column("Max / mean rerouted"),
    )
    rows = tuple(
        Row(
            (
                row["setting"],
                numbers.count(row["real_tokens"]),
                numbers.share(row["padding_share"]),
                *(_of(row[arm], "cv") for arm in _ARMS),
                _of(row["baseline"], "batch_cv"),
                _of(row["rerouted"], "batch_cv"),
                _of(row["baseline"], "layer_max_over_mean"),
                _of(row["rerouted"], "layer_max_over_mean"),
            ),
            _order(row["sorted"]),
        )
        for row in report.rows
    )
    return Table("Balance of experts", columns, rows)


def _times(report: PaddingReport) -> Table:
    columns = (
        Column("Batches", "left"),
        Column("Experts by", "left"),
        Column("Timed batches"),
        Column("As it is (ms)"),
        Column("Rerouted (ms)"),
        Column("Change"),
        Column("Extremes"),
        Column("Rerouting itself"),
    )
    rows = tuple(
        Row(
            (
                row["run"],
                row["experts"],
                numbers.count(row["batches"]),
                numbers.milliseconds(row["baseline_ns"]),
                numbers.milliseconds(row["rerouted_ns"]),
                numbers.change(row["change"]),
                f"{numbers.change(row['change_low'])} to {numbers.change(row['change_high'])}",
                numbers.share(row["reroute_share"]),
            )
        )
        for row in report.times
    )
    return Table("Time of a batch", columns, rows)


def _kernels(report: PaddingReport) -> Table:
    columns = (
        Column("Batches", "left"),
        Column("Active experts as it is"),
        Column("Rerouted"),
        Column("Choices of the busiest as it is"),
        Column("Rerouted"),
        Column("Blocks of 128 rows as it is"),
        Column("Rerouted"),
    )
    keys = ("active_experts", "busiest", "blocks")
    rows = tuple(
        Row((row["run"], *(_of(row[arm], key) for key in keys for arm in ("baseline", "rerouted"))))
        for row in report.rows
    )
    return Table("What a layer's kernel gets in a batch", columns, rows)


def _harm(report: PaddingReport) -> tuple[Table, ...]:
    rows = tuple(
        Row(
            (
                row["run"],
                "yes" if row["difference"]["equal"] else "no",
                numbers.decimal(row["difference"]["largest"]),
                numbers.decimal(row["difference"]["scale"]),
                numbers.count(row["difference"]["routes_changed"]),
                numbers.count(row["difference"]["routes"]),
            )
        )
        for row in report.rows
        if row["difference"]
    )
    columns = (
        Column("Batches", "left"),
        Column("Equal bit for bit"),
        Column("Largest difference"),
        Column("Largest output"),
        Column("Routes that differ"),
        Column("Of"),
    )
    return (Table("Outputs at real tokens, with and without", columns, rows),) if rows else ()


def _accuracy(report: PaddingReport) -> tuple[Table, ...]:
    rows = tuple(
        Row(
            (
                row["run"],
                numbers.count(row["accuracy"]["questions"]),
                *(
                    numbers.share(row["accuracy"]["right"][arm] / row["accuracy"]["questions"])
                    if arm in row["accuracy"]["right"]
                    else numbers.UNKNOWN
                    for arm in ("baseline", "rerouted")
                ),
                numbers.count(row["accuracy"]["changed"]),
            )
        )
        for row in report.rows
        if row["accuracy"]
    )
    columns = (
        Column("Batches", "left"),
        Column("Questions"),
        Column("Right as it is"),
        Column("Right rerouted"),
        Column("Answers that differ"),
    )
    return (Table("Multiple choice", columns, rows),) if rows else ()


def _pair(report: PaddingReport, place: int) -> Picture:
    run = report.rows[place]["run"]

    def draw() -> Any:
        from nsysmoe.reports.pictures.heat_pairs import heat_pair  # noqa: PLC0415 - plotly

        return heat_pair({_ARMS[arm]: rows for arm, rows in report.heat[place].items()})

    return Picture(f"Load of each expert by layer: {run}", draw, "1 is a fair share of the layer.")


def _lines(report: PaddingReport) -> Any:
    from nsysmoe.reports.pictures.heat_pairs import measure_by_setting  # noqa: PLC0415 - plotly

    settings = list(dict.fromkeys(row["setting"] for row in report.rows))
    values = {}
    for is_sorted in (False, True):
        own = {row["setting"]: row for row in report.rows if row["sorted"] is is_sorted}
        for arm, name in _ARMS.items():
            if any(row[arm] for row in own.values()):
                values[f"{name}, {_order(is_sorted).lower()}"] = [
                    own[setting][arm]["cv"] if setting in own else None for setting in settings
                ]
    return measure_by_setting(settings, values, "CV")


def _record(row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
    for arm in _ARMS:
        flat |= {f"{key}_{arm}": value for key, value in (row[arm] or {}).items()}
    return {key: value for key, value in flat.items() if key not in {"difference", "accuracy"}}


def _order(is_sorted: bool) -> str:
    return "Sorted" if is_sorted else "Unsorted"


def _of(values: dict[str, float | None] | None, key: str) -> str:
    return numbers.decimal(values[key] if values else None)
