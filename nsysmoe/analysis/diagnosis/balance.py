"""What ranks wait for in MoE kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.imbalance import imbalance, slowest_ranks
from nsysmoe.metrics.kernel_time.table1 import relative_change

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.run import Run


def balance(baseline: Run, candidate: Run) -> Finding | None:
    """What ranks wait for in MoE kernels: the slowest of each cell, mean and excess."""
    before, after = _balance(baseline), _balance(candidate)
    if before is None or after is None:
        return None
    change = relative_change(before["critical_ns"], after["critical_ns"]) or 0.0
    slowest = [part["slowest"][0] for part in (before, after)]
    return Finding(
        "balance",
        "info",
        f"critical MoE time (the slowest rank of each cell) went from "
        f"{before['critical_ns'] / 1e6:,.1f} to {after['critical_ns'] / 1e6:,.1f} ms "
        f"({change:+.1%}); the part that balance could save from "
        f"{before['excess_ns'] / 1e6:,.1f} to {after['excess_ns'] / 1e6:,.1f} ms; most often "
        f"the slowest was rank {slowest[0]['rank']} in the baseline ({slowest[0]['share']:.0%} of "
        f"cells) and rank {slowest[1]['rank']} in the candidate ({slowest[1]['share']:.0%})",
        {"baseline": before, "candidate": after, "critical_change": change},
    ).explaining(max(before["excess_ns"], after["excess_ns"]))


def _balance(run: Run) -> dict[str, Any] | None:
    """Return the sums over cells, by phase too; None where ranks cannot be paired."""
    cells = run.paired_cells
    if cells.is_empty():
        return None
    keys = ("cells", "critical_ns", "mean_ns", "excess_ns")
    row = imbalance(cells).row(0, named=True)
    phases = imbalance(cells, ["phase"]).to_dicts() if "phase" in cells.columns else []
    return {
        **{key: row[key] for key in keys},
        "phases": {part["phase"]: {key: part[key] for key in keys} for part in phases},
        "slowest": slowest_ranks(cells).to_dicts(),
    }
