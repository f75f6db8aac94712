"""Wall time of a replay, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.metrics.replay.model import Work

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


def boundaries(
    work: Work, is_kernel: NDArray[np.bool_], streams: pl.DataFrame, device_steps: pl.DataFrame
) -> list[Boundaries]:
    """Return where the time of each device is cut.

    Args:
        work: What ran.
        is_kernel: Shape (work,): whether each is a kernel, and no copy.
        streams: View ``replayed_streams``.
        device_steps: View ``device_steps``, on the clock of the work.
    """
    numbers = {tuple(row[:-1]): row[-1] for row in streams.select(*_DEVICE, "device").iter_rows()}
    return [
        _boundaries(work, is_kernel & (work.device == numbers[device]), steps.sort("start_ns"))
        for device, steps in device_steps.sort("device_id", "global_pid")
        .partition_by(_DEVICE, maintain_order=True, as_dict=True)
        .items()
    ]


def _boundaries(work: Work, is_own: NDArray[np.bool_], steps: pl.DataFrame) -> Boundaries:
    """Return the same of one device, by its kernels."""
    numbers = np.flatnonzero(is_own)
    opened = np.searchsorted(work.start[numbers], steps["start_ns"].to_numpy())
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
