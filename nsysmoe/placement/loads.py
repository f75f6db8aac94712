"""What each device computes under a map of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replica_counts(map_: NDArray[np.int64], experts: int) -> NDArray[np.int64]:
    """Return how often each logical expert lives; shape [layers, experts].

    Args:
        map_: Logical expert of each physical one, shape [layers, slots].
        experts: Logical experts of a layer.

    Raises:
        PlacementError: Some expert lives nowhere, or a slot holds one that there is not.
    """
    if map_.size and (map_.min() < 0 or map_.max() >= experts):
        raise PlacementError(
            f"the map names expert {map_.max() if map_.max() >= experts else map_.min()}; "
            f"the loads have experts 0 to {experts - 1}"
        )
    layers = map_.shape[0]
    keys = map_ + experts * np.arange(layers)[:, None]
    counts = np.bincount(keys.reshape(-1), minlength=layers * experts).reshape(layers, experts)
    if not counts.all():
        layer, expert = np.argwhere(counts == 0)[0]
        raise PlacementError(f"the map of layer {layer} places expert {expert} nowhere")
    return counts


def device_loads(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int
) -> NDArray[np.float64]:
    """Return the load of each device; an expert's load is split evenly over its replicas.

    Args:
        map_: Logical expert of each physical one, shape [layers, slots], in the order of GPUs.
        loads: Load of each logical expert, shape [..., layers, experts].
        gpus: Devices; each holds slots / gpus neighbours.

    Returns:
        Shape [..., layers, gpus].

    Raises:
        PlacementError: Map and loads do not fit each other.
    """
    layers, slots = map_.shape
    if loads.shape[-2] != layers:
        raise PlacementError(f"the map has {layers} layers, the loads {loads.shape[-2]}")
    if gpus < 1 or slots % gpus:
        raise PlacementError(f"{slots} slots do not divide among {gpus} GPUs")
    each = loads / replica_counts(map_, loads.shape[-1])
    index = np.broadcast_to(map_, (*loads.shape[:-2], layers, slots))
    held = np.take_along_axis(each, index, axis=-1)
    summed: NDArray[np.float64] = held.reshape(*held.shape[:-1], gpus, slots // gpus).sum(axis=-1)
    return summed


def loads_without(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int, lost: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return what the loss of a device does before anything is placed anew.

    Replicas elsewhere take over the load of its experts, evenly. Experts that lived nowhere else
    are homeless: their load goes nowhere.

    Args:
        map_: Logical expert of each slot, shape [layers, slots], in the order of GPUs.
        loads: Load of each logical expert, shape [layers, experts].
        gpus: Devices before.
        lost: Which of them is gone.

    Returns:
        Which experts are homeless, shape [layers, experts]; loads of the devices that are left, in
        their order, shape [layers, gpus - 1].
    """
    layers, slots = map_.shape
    left = map_[:, np.arange(slots) // (slots // gpus) != lost]
    keys = left + loads.shape[1] * np.arange(layers)[:, None]
    counts = np.bincount(keys.reshape(-1), minlength=loads.size).reshape(loads.shape)
    each = np.divide(loads, counts, out=np.zeros(loads.shape), where=counts > 0)
    held = np.take_along_axis(each, left, axis=1)
    summed: NDArray[np.float64] = held.reshape(layers, gpus - 1, -1).sum(axis=-1)
    return counts == 0, summed


def slot_rows(map_: NDArray[np.int64], loads: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the choices that each physical expert is given: whole ones, unlike a split load.

    Replicas of an expert take its choices by turns, so the first ones are given one more where
    they do not divide: vLLM spreads choices over replicas by a hash of the row.

    Args:
        map_: Logical expert of each slot, shape [layers, slots].
        loads: Choices of each logical expert, shape [steps, layers, experts].

    Returns:
        Shape [steps, layers, slots].
    """
    count = np.take_along_axis(replica_counts(map_, loads.shape[2]), map_, axis=1)
    index = np.broadcast_to(map_, (len(loads), *map_.shape))
    held = np.take_along_axis(loads, index, axis=2).astype(np.int64)
    rows: NDArray[np.int64] = (held + count - 1 - _replica_numbers(map_)) // count
    return rows


def _replica_numbers(map_: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which replica of its expert each slot is, from 0."""
    same = map_[:, :, None] == map_[:, None, :]
    numbers: NDArray[np.int64] = np.tril(same, -1).sum(axis=-1)
    return numbers


def balancedness(devices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean / max over the last axis: 1 is balanced; 1 too where there is no load.

    DeepSeek's and SGLang's word, of one layer.
    """
    busiest = devices.max(axis=-1)
    balanced: NDArray[np.float64] = np.divide(
        devices.mean(axis=-1), busiest, out=np.ones_like(busiest), where=busiest > 0
    )
    return balanced
