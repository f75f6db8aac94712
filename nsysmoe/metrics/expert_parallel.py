"""What balance costs under expert parallelism: a step lasts as long as its busiest device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.metrics.load_balance import known, sglang_balancedness, vllm_balancedness
from nsysmoe.placement.loads import device_loads

if TYPE_CHECKING:
    from numpy.typing import NDArray


def step_cost(devices: NDArray[np.float64]) -> dict[str, float | None]:
    """Sum what devices do and what the busiest of each cell sets, over all cells.

    Args:
        devices: Loads, shape [..., devices]; a cell is a layer in a step.

    Returns:
        ``critical`` (sum of the busiest device: the step time, in units of load), ``mean`` (what
        perfect balance would leave), ``efficiency`` (sum / (devices x max)), ``wasted_share`` (of
        the devices' time, 1 - efficiency); the last two None without load.
    """
    critical = float(devices.max(axis=-1).sum())
    mean = float(devices.mean(axis=-1).sum())
    efficiency = mean / critical if critical else None
    return {
        "critical": critical,
        "mean": mean,
        "efficiency": efficiency,
        "wasted_share": None if efficiency is None else 1 - efficiency,
    }


def under_placement(
    loads: NDArray[np.float64], map_: NDArray[np.int64], gpus: int
) -> dict[str, Any]:
    """Judge a placement on the loads of steps.

    Args:
        loads: Shape [steps, layers, experts].
        map_: Logical expert of each slot, shape [layers, slots].
        gpus: Devices.

    Returns:
        What ``step_cost`` returns over all cells; ``vllm_balancedness`` and
        ``sglang_balancedness`` of the loads of the whole run by device; ``active``: mean experts
        with work on the device that has most of them, over cells.
    """
    devices = device_loads(map_, loads, gpus)
    whole = devices.sum(axis=0)
    return {
        **step_cost(devices),
        "vllm_balancedness": vllm_balancedness(whole),
        "sglang_balancedness": sglang_balancedness(whole),
        "active": known(active_experts(loads, map_, gpus).max(axis=-1).mean()),
    }


def active_experts(
    loads: NDArray[np.float64], map_: NDArray[np.int64], gpus: int
) -> NDArray[np.int64]:
    """Count the physical experts with work on each device: what decode pays for.

    A replica is taken to have work where its expert has as many choices as replicas, else the
    first ones have: vLLM spreads choices over replicas by a hash of the row.

    Args:
        loads: Choices of each logical expert, shape [steps, layers, experts].
        map_: Logical expert of each slot, shape [layers, slots].
        gpus: Devices.

    Returns:
        Shape [steps, layers, gpus].
    """
    steps, layers, _ = loads.shape
    slots = map_.shape[1]
    held = np.take_along_axis(loads, np.broadcast_to(map_, (steps, layers, slots)), axis=-1)
    active: NDArray[np.int64] = (
        (held > _replica_number(map_)).reshape(steps, layers, gpus, slots // gpus).sum(axis=-1)
    )
    return active


def _replica_number(map_: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which replica of its expert each slot is, from 0."""
    same = map_[:, :, None] == map_[:, None, :]
    numbers: NDArray[np.int64] = np.tril(same, -1).sum(axis=-1)
    return numbers
