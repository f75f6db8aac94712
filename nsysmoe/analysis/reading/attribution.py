"""Which step and phase MoE kernels belong to, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.trace import Trace

_METHODS = {
    "nvtx": "vLLM's NVTX ranges",
    "grid": "grid size, for want of ranges",
    "duration": "duration alone, for want of ranges",
}
_CONFIDENCE = {"nvtx": "high", "grid": "medium", "duration": "low"}


def read_launches(trace: Trace, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
    """Return ``moe_launches``, phases told by duration where nothing else tells them."""
    needed = (*columns, "phase", "phase_source", "ordinal", "gemm", "dur_ns") if columns else None
    return _phased_by_duration(trace.frame("moe_launches", needed))


def read_cells(trace: Trace, launches: pl.DataFrame) -> pl.DataFrame:
    """Return ``moe_cells`` with step, phase, layer and gemm, one row a cell.

    Args:
        trace: The trace.
        launches: What ``read_launches`` returned.
    """
    import polars as pl  # noqa: PLC0415

    cells = trace.frame("moe_cells")
    places = trace.frame("moe_cell_places")
    if "duration" in launches["phase_source"].unique():
        # The slowest launch decides, as it does for the cell's time.
        told = launches.group_by(pl.col("ordinal").alias("cell")).agg(
            pl.col("phase").sort_by("dur_ns").last()
        )
        places = places.drop("phase").join(told, on="cell", how="left")
    return cells.join(places, on="cell", how="left").sort("cell")


def attribution(launches: pl.DataFrame) -> dict[str, Any]:
    """Return how phases are known, and the share of MoE time for which they are.

    Returns:
        ``method`` (nvtx, grid, duration or None), ``confidence`` (high, medium, low or None),
        ``time_ratio`` (0 to 1, None without MoE time), ``layers`` (how layers are known: nvtx,
        order or None).
    """
    known = launches.select("phase", "phase_source", "dur_ns").drop_nulls("phase")
    total = int(launches["dur_ns"].sum())
    # Dummy passes (pass) follow from the ranges of the others.
    method = _only(known.filter(known["phase_source"] != "pass"), "phase_source")
    return {
        "method": method,
        "confidence": _CONFIDENCE.get(method or ""),
        "time_ratio": int(known["dur_ns"].sum()) / total if total else None,
        "layers": _only(launches, "layer_source") if "layer_source" in launches.columns else None,
    }


def trusted_steps(steps: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges of processes that ran MoE kernels; none where no call falls into them.

    Args:
        steps: View ``steps``.
        launches: What ``read_launches`` returned, with ``global_pid``.
    """
    if "nvtx" not in launches["phase_source"].unique():
        return steps.clear()
    return steps.join(launches.select("global_pid").unique(), on="global_pid", how="semi")


def attribution_text(known: dict[str, Any]) -> str:
    """Say in one clause what ``attribution`` returned."""
    if known["method"] is None:
        return "no step or phase of MoE time is known"
    layers = {"nvtx": "by NVTX ranges", "order": "by their order", None: "not known"}
    return (
        f"{known['time_ratio']:.1%} of MoE time belongs to a phase, told by "
        f"{_METHODS[known['method']]} (confidence {known['confidence']}); layers are "
        f"{layers[known['layers']]}"
    )


def _only(frame: pl.DataFrame, column: str) -> str | None:
    values = frame[column].drop_nulls()
    return str(values[0]) if values.len() else None


def _phased_by_duration(launches: pl.DataFrame) -> pl.DataFrame:
    """Tell prefill from decode by duration, product by product, where no launch has a phase."""
    if launches.is_empty() or launches["phase"].null_count() < launches.height:
        return launches
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.mixture import split_durations  # noqa: PLC0415

    parts = []
    for product in launches.partition_by("gemm", maintain_order=True):
        slowest = product.group_by("ordinal").agg(pl.col("dur_ns").max())["dur_ns"]
        parting = split_durations(slowest.cast(pl.Float64).to_numpy())
        if parting is None:
            return launches
        is_long = pl.col("dur_ns").max().over("ordinal") > parting
        parts.append(
            product.with_columns(
                pl.when(is_long).then(pl.lit("prefill")).otherwise(pl.lit("decode")).alias("phase"),
                pl.lit("duration").alias("phase_source"),
            )
        )
    return pl.concat(parts)
