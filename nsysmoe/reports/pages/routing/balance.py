"""Balance of routing, and what was read of logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.balance import Balance
    from nsysmoe.analysis.routing.routing_load import Loading
    from nsysmoe.reports.tables import Values

SCHEMA_VERSION = 1
_MOST_GROUPS = 40
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
            *_devices(balance),
            *_groups(balance),
            _worst(balance),
            _worst_experts(balance),
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
            "observed": list(balance.observed),
            "worst_experts": list(balance.worst_experts),
            "needed_factor": balance.needed_factor,
            "devices": balance.devices,
            "by": balance.by,
            "groups": list(balance.groups),
            "layer_numbers": list(balance.layers),
            "loads": [list(row) for row in balance.heat],
            "findings": [finding.to_dict() for finding in balance.findings],
        },
        records=balance.groups or balance.measures,
        findings=balance.findings,
        notes=(_NOTE,),
        pictures=_pictures(balance),
    )


def _pictures(balance: Balance) -> tuple[Picture, ...]:
    found = [
        Picture(
            "Load of each expert by layer",
            lambda: _heat(balance),
            "Relative to the mean of the layer: 1 is a fair share.",
        ),
        sweep_picture(balance),
    ]
    if balance.devices is not None:
        found.insert(
            1,
            Picture(
                f"Load of each device by layer, {balance.devices['placement']}",
                lambda: _device_heat(balance),
                "Relative to the mean of the layer, over the run.",
            ),
        )
    return tuple(found)


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
        left("Measure", "measure", _NAMES.__getitem__),
        right("Mean", "mean"),
        right("p50", "p50"),
        right("p95", "p95"),
        right("Max", "max"),
        right("Uniform router", "uniform"),
    )
    return table("Balance of experts", balance.measures, columns, lambda row: _SCOPES[row["scope"]])


def _engines(balance: Balance) -> Table:
    columns = (
        left("Over", "over"),
        right("vLLM's balancedness", "vllm_balancedness"),
        right("SGLang's balancedness", "sglang_balancedness"),
        right("TensorRT-LLM's ratio", "tensorrt_ratio"),
        right("Wasted share", "wasted_share", numbers.share),
    )
    return table("By the engines' definitions, over the run", balance.engines, columns)


def _devices(balance: Balance) -> tuple[Table, ...]:
    """Return what the busiest device of each cell costs, and its active experts."""
    found = balance.devices
    if found is None:
        return ()
    active = found["active"]
    values = (
        ("Efficiency, sum / (devices × busiest)", numbers.share(found["efficiency"])),
        ("Wasted share", numbers.share(found["wasted_share"])),
        ("Wasted share, uniform router", numbers.share(found["uniform_wasted_share"])),
        ("Choices of the busiest device, summed", numbers.decimal(found["critical"])),
        ("Mean of the devices, summed", numbers.decimal(found["mean"])),
        ("Experts that a device holds", numbers.count(active["held"])),
        ("Active experts of the device with most, mean", numbers.decimal(active["mean"])),
        ("p50, p95, max", ", ".join(numbers.decimal(active[key]) for key in ("p50", "p95", "max"))),
        ("Uniform router, mean", numbers.decimal(active["uniform"])),
    )
    shared = f", {found['shared']} shared experts a token" if found["shared"] else ""
    what = "layers in single steps" if found["per"] == "step" else "layers over the run"
    caption = f"{found['gpus']} devices, {found['placement']}{shared}: {what}"
    columns = (Column("What", "left"), Column("Value"))
    return (Table(caption, columns, tuple(Row(value) for value in values)),)


def _groups(balance: Balance) -> tuple[Table, ...]:
    """Return groups, the most imbalanced ones where there are many."""
    if balance.by is None:
        return ()
    columns = (
        left(str(balance.by).capitalize(), "group"),
        right("Choices", "choices", numbers.count),
        right("CV", "cv"),
        right("CV, uniform", "uniform_cv"),
        right("Max / mean", "max_over_mean"),
        right("Worst layer", _worst_layer, str),
        right("Gini", "gini"),
    )
    shown = sorted(balance.groups, key=lambda row: -(row["cv"] or 0))[:_MOST_GROUPS]
    kept = [row for row in balance.groups if row in shown]
    more = len(balance.groups) - len(kept)
    caption = f"By {balance.by}" + (f" (the {len(kept)} least even; {more:,} more)" if more else "")
    return (table(caption, kept, columns),)


def _worst_layer(row: Values) -> str:
    return f"{row['worst_layer']}: {numbers.decimal(row['max_over_mean_max'])}"


def _worst_experts(balance: Balance) -> Table:
    columns = (
        right("Layer", "layer", str),
        right("Expert", "expert", str),
        right("Choices", "tokens", numbers.count),
        right("× mean", "over_mean"),
        right("Share of the layer", "share", numbers.share),
    )
    return table("Worst experts", balance.worst_experts, columns)


def _worst(balance: Balance) -> Table:
    columns = (
        right("Layer", "layer", str),
        right("Max / mean", "max_over_mean"),
        right("Hottest expert", "hottest", str),
        right("Its share", "share", numbers.share),
        right("Experts never used", "unused", numbers.count),
    )
    return table("Worst layers", balance.worst, columns)


def _capacity(balance: Balance) -> Table:
    columns = (
        right("Capacity factor", "factor"),
        right("Dropped", "dropped", numbers.count),
        right("Share", "drop_ratio", numbers.share),
        right("Experts that overflow", "overflow_ratio", numbers.share),
    )
    least = numbers.decimal(balance.needed_factor)
    caption = f"What a capacity factor would drop; {least} drops nothing"
    return table(caption, balance.capacity, columns)


def sweep_picture(balance: Balance) -> Picture:
    """Return the curve of a uniform router over batch sizes, with the log's own points."""
    return Picture(
        "A uniform router's imbalance by batch size",
        lambda: _curve(balance),
        "What chance alone gives falls with the square root of the batch; the log's own points "
        "stand above it by as much as the router prefers some experts.",
    )


def _sweep(balance: Balance) -> Table:
    columns = (
        right("Tokens", "tokens", numbers.count),
        right("CV, exact", "expected_cv"),
        right("CV", "cv"),
        right("Max / mean", "max_over_mean"),
        right("Gini", "gini"),
    )
    return table("A uniform router by batch size", balance.sweep, columns)


def _heat(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    return heatmap(balance.heat, "expert", "layer", names=balance.layers)


def _device_heat(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    loads = (balance.devices or {})["loads"]
    return heatmap(loads, "device", "layer", names=balance.layers)


def _curve(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import curve  # noqa: PLC0415 - plotly

    return curve(balance.sweep, balance.observed)
