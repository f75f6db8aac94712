"""The causes that wall time is split by, and what each of them bounds."""

from __future__ import annotations

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
