"""Wall time of a replay, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

_DEVICE = ["global_pid", "device_id"]


@dataclass(frozen=True)
class Boundaries:
    """Where the time of one device is cut.

    Attributes:
        first: Number of the work that opens each step, in order of time.
        phases: Phase of each.
        is_step: Whether it is a step at all.
        kernels: Numbers of the device's kernels: the last to end closes the window.
    """

    first: Ints
    phases: tuple[str, ...]
    is_step: tuple[bool, ...]
    kernels: Ints


def boundaries(work: pl.DataFrame, device_steps: pl.DataFrame) -> list[Boundaries]:
    """Return where the time of each device is cut.

    Args:
        work: The rows that ``work_of`` returned.
        device_steps: View ``device_steps``.
    """
    return [
        _boundaries(work, steps.sort("start_ns"))
        for steps in device_steps.sort("device_id", "global_pid").partition_by(
            _DEVICE, maintain_order=True
        )
    ]


def _boundaries(work: pl.DataFrame, steps: pl.DataFrame) -> Boundaries:
    """Return the same of one device."""
    kernels = (
        work.with_row_index("number")
        .filter(pl.col("kernel_id").is_not_null())
        .join(steps.head(1).select(_DEVICE), on=_DEVICE, nulls_equal=True)
        .sort("number")
    )
    numbers = kernels["number"].cast(pl.Int64).to_numpy()
    opened = np.searchsorted(kernels["start_ns"].to_numpy(), steps["start_ns"].to_numpy())
    return Boundaries(
        first=numbers[opened],
        phases=tuple(steps["phase"].fill_null(UNATTRIBUTED)),
        is_step=tuple(steps["step"].is_not_null()),
        kernels=numbers,
    )


def phase_walls(
    start: Floats, end: Floats, devices: list[Boundaries]
) -> tuple[Boundaries, dict[str, float]]:
    """Return the device whose window is longest, and its wall time by phase, ns.

    Args:
        start: Starts of all work, ns.
        end: Ends of all work, ns.
        devices: What ``boundaries`` returned.
    """
    walls = [(cuts, _phase_walls(start, end, cuts)) for cuts in devices]
    return max(walls, key=lambda found: sum(found[1].values()))


def _phase_walls(start: Floats, end: Floats, cuts: Boundaries) -> dict[str, float]:
    edges = np.append(start[cuts.first], end[cuts.kernels].max())
    walls: dict[str, float] = {}
    for phase, wall in zip(cuts.phases, np.diff(edges), strict=True):
        walls[phase] = walls.get(phase, 0.0) + float(wall)
    return walls
