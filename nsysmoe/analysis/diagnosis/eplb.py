"""Whether EPLB is at work, what it cost and what it gained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.classes import COLLECTIVE, EPLB
from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.rearrangement import rearrangement_effects

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.run import Run


def eplb_activity(baseline: Run, candidate: Run) -> Finding | None:
    """What shows EPLB at work in each arm: its map kernel, and transfers of weights."""
    parts = {"baseline": _eplb(baseline), "candidate": _eplb(candidate)}
    before, after = (part["map_launches"] > 0 for part in parts.values())
    if before and not after:
        return Finding(
            "eplb_activity",
            "error",
            "EPLB's kernels run in the baseline and not in the candidate: are the arms swapped?",
            parts,
        )
    if after and not before:
        sent = parts["candidate"]["send_recv_launches"]
        moved = (
            f"{sent:,} SendRecv kernels, which move weights when experts are rearranged "
            f"({parts['candidate']['send_recv_ns'] / 1e6:,.1f} ms over all GPUs)"
            if sent
            else "no rearrangement falls into the capture (no SendRecv kernel)"
        )
        message = f"EPLB is at work in the candidate alone: {moved}"
        return Finding("eplb_activity", "info", message, parts)
    where = "both arms" if before else "neither arm"
    return Finding(
        "eplb_activity",
        "warning",
        f"{where} shows EPLB at work (its map kernel is there from vLLM 0.20.2 on): the "
        "comparison may not be of EPLB",
        parts,
    )


def _eplb(run: Run) -> dict[str, int]:
    """Return launches of EPLB's map kernel, and launches and time of NCCL's SendRecv."""
    maps = run.kernels.filter(pl.col("class") == EPLB)
    sent = run.kernels.filter((pl.col("class") == COLLECTIVE) & (pl.col("role") == "send_recv"))
    return {
        "map_launches": int(maps["launches"].sum()),
        "send_recv_launches": int(sent["launches"].sum()),
        "send_recv_ns": int(sent["total_ns"].sum()),
    }


def rearrangements(baseline: Run, candidate: Run) -> Finding | None:
    """Each time experts moved within a capture: what it cost, and what it gained."""
    parts = {"baseline": rearranged(baseline), "candidate": rearranged(candidate)}
    if not any(parts.values()):
        return None
    told = [
        f"{name}, at {row['start_ns'] / 1e6:,.0f} ms: {_effect(row)}"
        for name, rows in parts.items()
        for row in rows
    ]
    stalls = [row["stall_ns"] or 0.0 for rows in parts.values() for row in rows]
    return Finding(
        "rearrangements",
        "info",
        f"experts were rearranged {len(told)} time{'s' if len(told) > 1 else ''} in the capture "
        f"({'; '.join(told)})",
        parts,
    ).explaining(max(sum(stalls), 0.0))


def rearranged(run: Run) -> list[dict[str, Any]]:
    """Return the rearrangements of a run with their effects, as JSON values."""
    if run.schedule is None or run.step_table is None:
        return []
    found = rearrangement_effects(run.schedule.rearrangements, run.step_table, run.paired_cells)
    rows = found.to_dicts()
    if run.across is None:
        return rows
    # Waiting is left out of each transfer, and ends at an arrival that another clock may tell.
    apart = float(run.across["reach_ns"].max() or 0.0)  # type: ignore[arg-type]
    return [
        {**row, "moving_uncertainty_ns": min(row["transfers"] * apart, row["total_ns"])}
        for row in rows
    ]


def _effect(row: dict[str, Any]) -> str:
    parts = [
        f"{row['transfers']} transfers a rank, {row['moving_ns'] / 1e6:,.1f} ms of moving weights"
    ]
    if row["stall_ns"] is not None:
        parts.append(f"a stall of {row['stall_ns'] / 1e6:,.1f} ms")
    if row["before"] is not None:
        parts.append(
            f"slowest / mean in {row['phase']} from {row['before']:.3f} to {row['after']:.3f}"
        )
        parts.append(
            f"paid back after {row['payback_steps']:,.0f} steps"
            if row["payback_steps"] is not None
            else "which pays nothing back"
        )
    else:
        parts.append("no steps of one kind before and after to see what it gained")
    return ", ".join(parts)
