"""Where wall time went that no kernel explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.phases import DUMMY

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.run import Run

_CAUSES = {
    "code_load": "kernels were compiled or loaded",
    "silence": "the host fell silent",
    "stall": "no cause in the trace",
}
# Below this share of the window dummy passes change no conclusion.
_NOTABLE_DUMMY = 0.05
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


def dummy_passes(baseline: Run, candidate: Run) -> Finding | None:
    """Passes in which data-parallel ranks had no request and kept step with others."""
    parts = {"baseline": _dummy(baseline), "candidate": _dummy(candidate)}
    if not any(part["passes"] for part in parts.values()):
        return None
    passes, ms, critical = (
        " and ".join(f"{part[key] / scale:,.{digits}f}" for part in parts.values())
        for key, scale, digits in (("passes", 1, 0), ("wall_ns", 1e6, 1), ("critical_ns", 1e6, 1))
    )
    is_notable = max(part["wall_ratio"] for part in parts.values()) >= _NOTABLE_DUMMY
    return Finding(
        "dummy_passes",
        "warning" if is_notable else "info",
        f"data-parallel ranks made {passes} passes that serve no request, to keep step with one "
        f"another: {ms} ms of a GPU's wall time and {critical} ms of critical MoE time are theirs, "
        "and what changes in them no user sees; --by phase shows the phases apart",
        parts,
    ).explaining(max(part["wall_ns"] for part in parts.values()))


def _dummy(run: Run) -> dict[str, Any]:
    """Return the passes of a rank, their wall time (mean over devices) and critical MoE time."""
    none = {"passes": 0, "wall_ns": 0.0, "wall_ratio": 0.0, "critical_ns": 0}
    if run.schedule is None or (done := run.schedule.work["phases"].get(DUMMY)) is None:
        return none
    spent = run.schedule.device_time.group_by("global_pid", "device_id").agg(
        pl.col("window_ns").sum().alias("whole"),
        pl.col("window_ns").filter(pl.col("phase") == DUMMY).sum().alias("dummy"),
    )
    cells = run.paired_cells.filter(pl.col("phase") == DUMMY)
    whole = float(spent["whole"].sum())
    return {
        "passes": done["steps"],
        "wall_ns": float(spent["dummy"].sum()) / spent.height,
        "wall_ratio": float(spent["dummy"].sum()) / whole if whole else 0.0,
        "critical_ns": int(cells["slowest_ns"].sum()),
    }


def phases_apart(baseline: Run, candidate: Run) -> Finding | None:
    """Steps of a rank in another phase than the ranks that it meets in every layer."""
    parts = {"baseline": _apart(baseline), "candidate": _apart(candidate)}
    if not any(part["steps"] for part in parts.values()):
        return None
    steps, ms = (
        " and ".join(f"{part[key] / scale:,.{digits}f}" for part in parts.values())
        for key, scale, digits in (("steps", 1, 0), ("wall_ns", 1e6, 1))
    )
    return Finding(
        "phases_apart",
        "info",
        f"ranks that meet were in different phases in {steps} steps of a rank, {ms} ms of a GPU's "
        "wall time: what the others had to do sets the pace there, so MoE and wall time count as "
        "mixed; communication and causes count to the rank's own phase",
        parts,
    ).explaining(max(part["wall_ns"] for part in parts.values()))


def _apart(run: Run) -> dict[str, Any]:
    """Return the steps whose phase is not that of all ranks, and their wall time.

    Times are means over GPUs; ``phases`` splits them by the phase of the step's own rank.
    """
    if run.schedule is None or (apart := run.schedule.apart).is_empty():
        return {"steps": 0, "wall_ns": 0.0, "phases": {}}
    devices = run.schedule.device_time.select("global_pid", "device_id").n_unique()
    served = apart.filter(pl.col("phase") != DUMMY)
    by_phase = served.group_by("phase").agg(pl.col("window_ns").sum() / devices).sort("phase")
    return {
        "steps": served.height,
        "wall_ns": float(served["window_ns"].sum()) / devices,
        "phases": dict(by_phase.iter_rows()),
    }


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
