"""Padding rerouted inside a model: balance, time, harm, and the loads before and after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Picture, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.padded_model import PaddingReport
    from nsysmoe.reports.tables import Shown, Values

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
        left("Batches", "setting"),
        right("Tokens", "real_tokens", numbers.count),
        right("Padding", "padding_share", numbers.share),
        *(_of_arm(f"CV {title}", arm, "cv") for arm, title in _ARMS.items()),
        *_of_both("In a batch", "batch_cv"),
        *_of_both("Max / mean", "layer_max_over_mean"),
    )
    return table("Balance of experts", report.rows, columns, lambda row: _order(row["sorted"]))


def _times(report: PaddingReport) -> Table:
    columns = (
        left("Batches", "run"),
        left("Experts by", "experts"),
        right("Timed batches", "batches", numbers.count),
        right("As it is (ms)", "baseline_ns", numbers.milliseconds),
        right("Rerouted (ms)", "rerouted_ns", numbers.milliseconds),
        right("Change", "change", numbers.change),
        right("Extremes", _extremes, str),
        right("Rerouting itself", "reroute_share", numbers.share),
    )
    return table("Time of a batch", report.times, columns)


def _extremes(row: Values) -> str:
    return f"{numbers.change(row['change_low'])} to {numbers.change(row['change_high'])}"


def _kernels(report: PaddingReport) -> Table:
    columns = (
        left("Batches", "run"),
        _of_arm("Active experts as it is", "baseline", "active_experts"),
        _of_arm("Rerouted", "rerouted", "active_experts"),
        _of_arm("Choices of the busiest as it is", "baseline", "busiest"),
        _of_arm("Rerouted", "rerouted", "busiest"),
        _of_arm("Blocks of 128 rows as it is", "baseline", "blocks"),
        _of_arm("Rerouted", "rerouted", "blocks"),
    )
    return table("What a layer's kernel gets in a batch", report.rows, columns)


def _harm(report: PaddingReport) -> tuple[Table, ...]:
    rows = [{"run": row["run"], **row["difference"]} for row in report.rows if row["difference"]]
    columns = (
        left("Batches", "run"),
        right("Equal bit for bit", lambda row: "yes" if row["equal"] else "no", str),
        right("Largest difference", "largest"),
        right("Largest output", "scale"),
        right("Routes that differ", "routes_changed", numbers.count),
        right("Of", "routes", numbers.count),
    )
    caption = "Outputs at real tokens, with and without"
    return (table(caption, rows, columns),) if rows else ()


def _accuracy(report: PaddingReport) -> tuple[Table, ...]:
    rows = [{"run": row["run"], **row["accuracy"]} for row in report.rows if row["accuracy"]]
    columns = (
        left("Batches", "run"),
        right("Questions", "questions", numbers.count),
        right("Right as it is", partial(_right, "baseline"), numbers.share),
        right("Right rerouted", partial(_right, "rerouted"), numbers.share),
        right("Answers that differ", "changed", numbers.count),
    )
    return (table("Multiple choice", rows, columns),) if rows else ()


def _right(arm: str, row: Values) -> float | None:
    right = row["right"]
    return right[arm] / row["questions"] if arm in right else None


def _of_both(title: str, key: str) -> tuple[Shown, Shown]:
    return (
        _of_arm(f"{title} as it is", "baseline", key),
        _of_arm(f"{title} rerouted", "rerouted", key),
    )


def _of_arm(title: str, arm: str, key: str) -> Shown:
    return right(title, lambda row: _of(row[arm], key), str)


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
