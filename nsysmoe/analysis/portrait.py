"""One run as a report draws it: small rows, whatever the size of the trace they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Rows = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Portrait:
    """What the pictures of one run are drawn from; times in ns, null where unknown.

    Attributes:
        label: The arm's name.
        source: The file.
        time_use: One row a device: ``rank``, ``process``, ``device``, and what its window was
            spent on, which adds up to ``window_ns``: ``moe_ns``, ``other_compute_ns``,
            ``exposed_transfer_ns``, ``exposed_wait_ns``, ``copy_ns``, ``idle_ns``.
        phases: One row a phase: ``phase``, ``cells``, ``mean_ns``, ``excess_ns``,
            ``critical_ns`` (mean + excess).
        durations: A histogram of MoE launches: ``phase``, ``low_ns``, ``high_ns`` (a bin's
            edges, equal on a log axis), ``launches``.
        communication: One row a rank: ``rank``, ``process``, ``device``, ``transfer_ns``,
            ``wait_ns`` of matched collectives, ``unmatched_ns`` of the others.
        layers: One row a layer and rank: ``layer``, ``rank``, ``dur_ns`` (summed), ``ratio``
            (the rank's time over the mean of ranks).
        steps: One row a step in order of time: ``step``, ``phase``, ``start_ns``, ``wall_ns``,
            ``p50`` and ``max`` (of slowest / mean over its cells), ``cause`` (why it is
            distorted, or None).
        rearrangements: One row each: ``start_ns``, ``end_ns``, ``transfers``, ``stall_ns``.
        timeline: Kernels of one step over all ranks: ``rank``, ``start_ns``, ``dur_ns``,
            ``name``, ``kind`` (``moe``, ``compute``, ``transfer``, ``wait``, ``copy``).
        timeline_step: Which step that is, and ``timeline_choice`` why: slowest, median, or asked.
        reduced: What was left out to keep the page small, a sentence each.
    """

    label: str
    source: str
    time_use: Rows = ()
    phases: Rows = ()
    durations: Rows = ()
    communication: Rows = ()
    layers: Rows = ()
    steps: Rows = ()
    rearrangements: Rows = ()
    timeline: Rows = ()
    timeline_step: int | None = None
    timeline_choice: str = ""
    reduced: tuple[str, ...] = ()
