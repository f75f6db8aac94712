"""What balance costs under expert parallelism: a step lasts as long as its busiest device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.routed_load.load_balance import known, sglang_balancedness, vllm_balancedness
from nsysmoe.placement.loads import device_loads, slot_rows

if TYPE_CHECKING:
    import numpy as np
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

    A replica has work where its expert has more choices than replicas before it
    (``placement.loads.slot_rows``).

    Args:
        loads: Choices of each logical expert, shape [steps, layers, experts].
        map_: Logical expert of each slot, shape [layers, slots].
        gpus: Devices.

    Returns:
        Shape [steps, layers, gpus].
    """
    return active_blocks(loads, map_, gpus, block_rows=None)


def active_blocks(
    loads: NDArray[np.float64], map_: NDArray[np.int64], gpus: int, block_rows: int | None
) -> NDArray[np.int64]:
    """Count the blocks of rows that each device computes: Σ over its experts of ⌈rows / block⌉.

    Args:
        loads: Choices of each logical expert, shape [steps, layers, experts].
        map_: Logical expert of each slot, shape [layers, slots].
        gpus: Devices.
        block_rows: Rows of a block; None for blocks that hold any number.

    Returns:
        Shape [steps, layers, gpus].
    """
    steps, layers, _ = loads.shape
    rows = slot_rows(map_, loads)
    blocks = rows > 0 if block_rows is None else -(-rows // block_rows)
    each = map_.shape[1] // gpus
    counted: NDArray[np.int64] = blocks.reshape(steps, layers, gpus, each).sum(axis=-1)
    return counted
