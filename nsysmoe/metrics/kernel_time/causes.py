"""The causes that wall time is split by, and what each of them bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


class BoundChange(NamedTuple):
    """What a bound adds to the wall time: in ns, with its 95 % interval where runs give one."""

    change_ns: float
    interval_ns: tuple[float, float] | None


def bound_changes(causes: Iterable[dict[str, Any]]) -> dict[str, BoundChange]:
    """Return the change of each bound that either arm has any of.

    Args:
        causes: ``Comparison.causes``.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in causes:
        if row["baseline_ns"] or row["candidate_ns"]:
            parts.setdefault(bound_of(row["cause"]), []).append(row)
    return {
        bound: BoundChange(sum(row["change_ns"] for row in rows), sum_interval(rows))
        for bound, rows in parts.items()
    }


def sum_interval(rows: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Return the 95 % interval of the change of several causes together; None without runs.

    Args:
        rows: Of ``Comparison.causes``; those of earlier versions hold no values of runs.
    """
    arms = [
        [sum(run) for run in zip(*(row.get(key, ()) for row in rows), strict=True)]
        for key in ("baseline_values", "candidate_values")
    ]
    if min(map(len, arms)) < 2:
        return None
    from nsysmoe.metrics.statistics.uncertainty import difference_over_runs  # noqa: PLC0415 - numpy

    return difference_over_runs(*arms)
