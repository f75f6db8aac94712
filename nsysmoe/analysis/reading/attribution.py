"""Which step and phase MoE kernels belong to, and how sure that is."""

from __future__ import annotations

import math
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


def read_launches(trace: Trace) -> pl.DataFrame:
    """Return ``moe_phases``, phases told by duration where nothing else tells them.

    Whatever is read of ``phased_launches`` afterwards goes by the same phases.
    """
    launches = trace.frame("moe_phases")
    if launches.is_empty() or launches["phase"].null_count() < launches.height:
        return launches
    if not (partings := _partings(trace.frame("moe_cell_durations"))):
        return launches
    trace.tell("nsysmoe.phase_partings", partings)
    return trace.frame("moe_phases")


def read_cells(trace: Trace) -> pl.DataFrame:
    """Return ``moe_cells`` with step, phase, layer and gemm, one row a cell, in order.

    ``read_launches`` comes first: it tells phases by duration.
    """
    cells, places = trace.frame("moe_cells"), trace.frame("moe_cell_places")
    return cells.join(places, on="cell", how="left").sort("cell")


def attribution(launches: pl.DataFrame) -> dict[str, Any]:
    """Return how phases are known, and the share of MoE time for which they are.

    Args:
        launches: What ``read_launches`` returned.

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
        "layers": _only(launches, "layer_source"),
    }


def trusted_steps(steps: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges of processes that ran MoE kernels; none where no call falls into them.

    Args:
        steps: View ``steps``.
        launches: What ``read_launches`` returned.
    """
    if "nvtx" not in launches["phase_source"].unique():
        return steps.clear()
    return steps.join(launches.select("global_pid").unique(), on="global_pid", how="semi")


def attribution_text(known: dict[str, Any]) -> str:
    """Say in one clause what ``attribution`` returned."""
    if known["method"] is None:
        return "no step or phase of MoE time is known"
    if known["time_ratio"] is None:
        return "MoE kernels took no time"
    layers = {"nvtx": "by NVTX ranges", "order": "by their order", None: "not known"}
    return (
        f"{known['time_ratio']:.1%} of MoE time belongs to a phase, told by "
        f"{_METHODS[known['method']]} (confidence {known['confidence']}); layers are "
        f"{layers[known['layers']]}"
    )


def _only(frame: pl.DataFrame, column: str) -> str | None:
    """Return the value of a column, of several that of most time; None where there is none."""
    import polars as pl  # noqa: PLC0415

    times = frame.drop_nulls(column).group_by(column).agg(pl.col("dur_ns").sum())
    most = times.sort("dur_ns", column, descending=[True, False])[column].head(1)
    return str(most.item()) if most.len() else None


def _partings(cells: pl.DataFrame) -> list[tuple[str | None, int]]:
    """Return what parts prefill from decode, product by product; none where one has no parting.

    Args:
        cells: View ``moe_cell_durations``.

    Returns:
        ``gemm``, and the longest duration of decode, ns.
    """
    from nsysmoe.metrics.kernel_time.mixture import split_durations  # noqa: PLC0415 - numpy

    found = []
    for (gemm,), product in cells.sort("gemm").group_by("gemm", maintain_order=True):
        durations = product["slowest_ns"].to_numpy().astype("float64")
        if (parting := split_durations(durations, product["cells"].to_numpy())) is None:
            return []
        # Durations are integers: none lies between the two.
        found.append((None if gemm is None else str(gemm), math.floor(parting)))
    return found
