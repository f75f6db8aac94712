"""The causes that wall time is split by, and what each of them bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BOUNDS = {
    "moe": ("moe", "wait_moe"),
    "other_compute": ("other_compute", "copy", "wait_other_kernels"),
    "transfer": ("transfer", "unmatched"),
    "host": ("host", "wait_host"),
    "sync": ("sync",),
    "latency": ("latency", "wait_other_gap"),
    "unexplained": ("unknown_launch", "wait_unexplained"),
}
TIME_CAUSES = tuple(cause for causes in BOUNDS.values() for cause in causes)
# What the last arrival divides, whose rank may be on another clock.
ACROSS_CLOCKS = ("transfer", *(cause for cause in TIME_CAUSES if cause.startswith("wait_")))
_BOUND_OF = {cause: bound for bound, causes in BOUNDS.items() for cause in causes}


def bound_of(cause: str) -> str:
    """Return what a cause bounds; one that a later version named is unexplained here."""
    return _BOUND_OF.get(cause, "unexplained")


def bound_changes(causes: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the change of each bound that either arm has any of, in ns.

    Args:
        causes: ``Comparison.causes``.
    """
    changes: dict[str, float] = {}
    for row in causes:
        if row["baseline_ns"] or row["candidate_ns"]:
            bound = bound_of(row["cause"])
            changes[bound] = changes.get(bound, 0.0) + row["change_ns"]
    return changes
