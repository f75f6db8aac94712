"""Where wall time went that no kernel explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.run import Run

_CAUSES = {
    "code_load": "kernels were compiled or loaded",
    "silence": "the host fell silent",
    "stall": "no cause in the trace",
}
# Below this share of the window idle time is what any launch leaves.
_NOTABLE_IDLE = 0.2


def distorted_steps(baseline: Run, candidate: Run) -> Finding | None:
    """Steps that something else than the workload stretched."""
    parts = {"baseline": _distorted(baseline), "candidate": _distorted(candidate)}
    if not any(parts.values()):
        return None
    told = [
        f"{name} {_step(row)}: {row['wall_ns'] / 1e6:,.0f} ms"
        + (f" against {row['typical_ns'] / 1e6:,.0f}" if row["typical_ns"] else "")
        + f", {_CAUSES[row['cause']]}"
        for name, rows in parts.items()
        for row in sorted(rows, key=lambda row: -row["wall_ns"])
    ]
    more = f"; and {len(told) - 4} more" if len(told) > 4 else ""
    return Finding(
        "distorted_steps",
        "warning",
        f"steps that the workload does not explain: {'; '.join(told[:4])}{more}; results as if "
        "they had been usual stand beside those with them",
        parts,
    ).explaining(max(_stretched_ns(rows) for rows in parts.values()))


def idle_devices(baseline: Run, candidate: Run) -> Finding | None:
    """GPUs that had nothing to do for a notable part of the time."""
    parts = {"baseline": _idle(baseline), "candidate": _idle(candidate)}
    known = {name: part for name, part in parts.items() if part}
    if not known or max(part["idle_ratio"] for part in known.values()) < _NOTABLE_IDLE:
        return None
    told = " and ".join(f"{part['idle_ratio']:.0%} of the {name}'s" for name, part in known.items())
    return Finding(
        "idle_devices",
        "warning",
        f"GPUs were idle for {told} time: between kernels nothing was launched, which balancing "
        "experts cannot shorten",
        parts,
    ).explaining(max(part["idle_ns"] for part in known.values()))


def _step(row: dict[str, Any]) -> str:
    if row["step"] is None:
        return f"outside any step, at {row['start_ns'] / 1e6:,.0f} ms"
    return f"step {row['step']} ({row['phase']})"


def _distorted(run: Run) -> list[dict[str, Any]]:
    found = run.distorted_steps
    return [] if found is None else found.drop("slice").to_dicts()


def _stretched_ns(rows: list[dict[str, Any]]) -> float:
    return float(sum(row["wall_ns"] - (row["typical_ns"] or 0.0) for row in rows))


def _idle(run: Run) -> dict[str, Any] | None:
    """Return idle and window, means over devices."""
    if run.schedule is None or run.schedule.device_time.is_empty():
        return None
    spent = (
        run.schedule.device_time.group_by("global_pid", "device_id")
        .agg(pl.col("idle_ns", "window_ns").sum())
        .select(pl.col("idle_ns", "window_ns").mean())
        .row(0, named=True)
    )
    return {
        **spent,
        "idle_ratio": spent["idle_ns"] / spent["window_ns"] if spent["window_ns"] else 0.0,
    }
