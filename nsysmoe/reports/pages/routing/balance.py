"""Balance of routing, and what was read of logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.balance import Balance
    from nsysmoe.analysis.routing.routing_load import Loading

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
        Column(str(balance.by).capitalize(), "left"),
        *map(Column, ("Choices", "CV", "CV, uniform", "Max / mean", "Worst layer", "Gini")),
    )
    shown = sorted(balance.groups, key=lambda row: -(row["cv"] or 0))[:_MOST_GROUPS]
    kept = [row for row in balance.groups if row in shown]
    rows = tuple(
        Row(
            (
                str(row["group"]),
                numbers.count(row["choices"]),
                numbers.decimal(row["cv"]),
                numbers.decimal(row["uniform_cv"]),
                numbers.decimal(row["max_over_mean"]),
                f"{row['worst_layer']}: {numbers.decimal(row['max_over_mean_max'])}",
                numbers.decimal(row["gini"]),
            )
        )
        for row in kept
    )
    more = len(balance.groups) - len(kept)
    caption = f"By {balance.by}" + (f" (the {len(kept)} least even; {more:,} more)" if more else "")
    return (Table(caption, columns, rows),)


def _worst_experts(balance: Balance) -> Table:
    columns = tuple(map(Column, ("Layer", "Expert", "Choices", "× mean", "Share of the layer")))
    rows = tuple(
        Row(
            (
                str(row["layer"]),
                str(row["expert"]),
                numbers.count(row["tokens"]),
                numbers.decimal(row["over_mean"]),
                numbers.share(row["share"]),
            )
        )
        for row in balance.worst_experts
    )
    return Table("Worst experts", columns, rows)


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
    least = numbers.decimal(balance.needed_factor)
    return Table(f"What a capacity factor would drop; {least} drops nothing", columns, rows)


def sweep_picture(balance: Balance) -> Picture:
    """Return the curve of a uniform router over batch sizes, with the log's own points."""
    return Picture(
        "A uniform router's imbalance by batch size",
        lambda: _curve(balance),
        "What chance alone gives falls with the square root of the batch; the log's own points "
        "stand above it by as much as the router prefers some experts.",
    )


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

    return heatmap(balance.heat, "expert", "layer", names=balance.layers)


def _device_heat(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    loads = (balance.devices or {})["loads"]
    return heatmap(loads, "device", "layer", names=balance.layers)


def _curve(balance: Balance) -> Any:
    from nsysmoe.reports.pictures.loads import curve  # noqa: PLC0415 - plotly

    return curve(balance.sweep, balance.observed)
