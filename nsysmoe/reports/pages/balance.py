"""Balance of routing, and what was read of logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.balance import Balance
    from nsysmoe.analysis.routing_load import Loading

SCHEMA_VERSION = 1
_NAMES = {
    "cv": "CV (σ/μ)",
    "max_over_mean": "max / mean",
    "mean_over_max": "mean / max",
    "excess_over_mean": "(max − mean) / mean",
    "entropy": "normalised entropy",
    "gini": "Gini",
    "max_over_min": "max / min over non-zero",
}
_SCOPES = {"run": "Layers over the run", "step": "Layers in single steps"}
_NOTE = (
    "Uniform: the mean that a router would show which gives every expert the same chance, with as "
    "many tokens. An expert that a token chose twice counts twice."
)


def balance_page(balance: Balance) -> Document:
    """Return measures, engines' definitions, worst layers, capacity, and the sweep."""
    return Document(
        title=f"Balance of routing: {balance.source}",
        lead=(balance.sentence,),
        tables=(
            _measures(balance),
            _engines(balance),
            _worst(balance),
            _capacity(balance),
            _sweep(balance),
        ),
        data={
            "schema_version": SCHEMA_VERSION,
            "source": balance.source,
            **balance.shape,
            "measures": list(balance.measures),
            "engines": list(balance.engines),
            "worst": list(balance.worst),
            "capacity": list(balance.capacity),
            "sweep": list(balance.sweep),
            "findings": [finding.to_dict() for finding in balance.findings],
        },
        records=balance.measures,
        findings=balance.findings,
        notes=(_NOTE,),
        pictures=(
            Picture(
                "Load of each expert by layer",
                lambda: _heat(balance),
                "Relative to the mean of the layer: 1 is a fair share.",
            ),
            Picture(
                "A uniform router's imbalance by batch size",
                lambda: _curve(balance),
                "What chance alone gives: it falls with the square root of the batch.",
            ),
        ),
    )


def loading_page(loading: Loading) -> Document:
    """Return what was written."""
    written = loading.written
    what = "choices" if written.level == "tokens" else "counts"
    values = {
        "schema_version": SCHEMA_VERSION,
        "output": loading.output,
        "level": written.level,
        "files": written.files,
        "rows": written.rows,
        "dummy_rows": written.dummy_rows,
        "dummy_tokens": written.dummy_tokens,
        "kept_dummy": loading.is_kept,
        "findings": [finding.to_dict() for finding in loading.findings],
    }
    sentence = (
        f"Wrote {written.rows:,} {what} of {written.files} "
        f"log{'s' if written.files > 1 else ''} to {loading.output}."
    )
    columns = (Column("What", "left"), Column("Value"))
    shown = ("files", "rows", "dummy_rows", "dummy_tokens")
    rows = tuple(
        Row((key.replace("_", " "), numbers.count(value)))
        for key, value in values.items()
        if key in shown and isinstance(value, int)
    )
    return Document(
        title="Routing logs",
        lead=(sentence,),
        tables=(Table("Read", columns, rows),),
        data=values,
        records=({key: value for key, value in values.items() if key != "findings"},),
        findings=loading.findings,
    )


def _measures(balance: Balance) -> Table:
    columns = (
        Column("Measure", "left"),
        *map(Column, ("Mean", "p50", "p95", "Max", "Uniform router")),
    )
    rows = tuple(
        Row(
            (
                _NAMES[row["measure"]],
                *(numbers.decimal(row[key]) for key in ("mean", "p50", "p95", "max", "uniform")),
            ),
            _SCOPES[row["scope"]],
        )
        for row in balance.measures
    )
    return Table("Balance of experts", columns, rows)


def _engines(balance: Balance) -> Table:
    columns = (
        Column("Over", "left"),
        Column("vLLM's balancedness"),
        Column("SGLang's balancedness"),
        Column("TensorRT-LLM's ratio"),
        Column("Wasted share"),
    )
    keys = ("vllm_balancedness", "sglang_balancedness", "tensorrt_ratio")
    rows = tuple(
        Row(
            (
                row["over"],
                *(numbers.decimal(row[key]) for key in keys),
                numbers.share(row["wasted_share"]),
            )
        )
        for row in balance.engines
    )
    return Table("By the engines' definitions, over the run", columns, rows)


def _worst(balance: Balance) -> Table:
    columns = tuple(
        map(Column, ("Layer", "Max / mean", "Hottest expert", "Its share", "Experts never used"))
    )
    rows = tuple(
        Row(
            (
                str(row["layer"]),
                numbers.decimal(row["max_over_mean"]),
                str(row["hottest"]),
                numbers.share(row["share"]),
                numbers.count(row["unused"]),
            )
        )
        for row in balance.worst
    )
    return Table("Worst layers", columns, rows)


def _capacity(balance: Balance) -> Table:
    columns = tuple(map(Column, ("Capacity factor", "Dropped", "Share", "Experts that overflow")))
    rows = tuple(
        Row(
            (
                numbers.decimal(row["factor"]),
                numbers.count(row["dropped"]),
                numbers.share(row["drop_ratio"]),
                numbers.share(row["overflow_ratio"]),
            )
        )
        for row in balance.capacity
    )
    return Table("What a capacity factor would drop", columns, rows)


def _sweep(balance: Balance) -> Table:
    columns = tuple(map(Column, ("Tokens", "CV, exact", "CV", "Max / mean", "Gini")))
    rows = tuple(
        Row(
            (
                numbers.count(row["tokens"]),
                *(
                    numbers.decimal(row[key])
                    for key in ("expected_cv", "cv", "max_over_mean", "gini")
                ),
            )
        )
        for row in balance.sweep
    )
    return Table("A uniform router by batch size", columns, rows)


def _heat(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    return heatmap(balance.heat, "expert", "layer")


def _curve(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import curve  # noqa: PLC0415 - plotly

    return curve(balance.sweep)
