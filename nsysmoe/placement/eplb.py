"""DeepSeek's EPLB, after the description that they published with it (DeepSeek-V3, 2024).

Replicate: give each further slot to the expert whose replicas carry most. Pack: the heaviest
first, each onto the lightest GPU that still has a slot (longest processing time, with equal
counts). Hierarchical: pack groups of experts onto nodes, then do both within each node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.placement.loads import replica_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replicate(loads: NDArray[np.float64], slots: int) -> NDArray[np.int64]:
    """Return the experts of a layer's slots: all of them once, then replicas of the hottest.

    Args:
        loads: Shape [layers, experts].
        slots: Physical experts of a layer.

    Returns:
        Logical experts, shape [layers, slots]; the first ``experts`` columns are 0, 1, ...
    """
    layers, experts = loads.shape
    rows = np.arange(layers)
    held = np.tile(np.arange(slots), (layers, 1))
    counts = np.ones((layers, experts), dtype=np.int64)
    for slot in range(experts, slots):
        hottest = (loads / counts).argmax(axis=1)
        held[:, slot] = hottest
        counts[rows, hottest] += 1
    return held


def pack(weights: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return which item lies where: equal counts in every bin, the heaviest placed first.

    Args:
        weights: Shape [layers, items]; ``bins`` divides the items.
        bins: How many.

    Returns:
        Item of each place, shape [layers, items], the places of one bin next to each other.
    """
    layers, items = weights.shape
    size = items // bins
    if size == 1:
        return np.tile(np.arange(items), (layers, 1))
    rows = np.arange(layers)
    placed = np.empty((layers, items), dtype=np.int64)
    filled = np.zeros((layers, bins), dtype=np.int64)
    sums = np.zeros((layers, bins))
    for item in np.argsort(-weights, axis=1, kind="stable").T:
        # Full bins are no choice.
        lightest = np.where(filled < size, sums, np.inf).argmin(axis=1)
        placed[rows, lightest * size + filled[rows, lightest]] = item
        filled[rows, lightest] += 1
        sums[rows, lightest] += weights[rows, item]
    return placed


def place_globally(loads: NDArray[np.float64], gpus: int, slots: int) -> NDArray[np.int64]:
    """Replicate and pack over all GPUs; shape [layers, slots]."""
    held = replicate(loads, slots)
    each = np.take_along_axis(loads / replica_counts(held, loads.shape[1]), held, axis=1)
    placed: NDArray[np.int64] = np.take_along_axis(held, pack(each, gpus), axis=1)
    return placed


def group_nodes(loads: NDArray[np.float64], nodes: int, groups: int) -> NDArray[np.int64]:
    """Return the experts of each node, whole groups of them; shape [layers, experts].

    Args:
        loads: Shape [layers, experts].
        nodes: Servers; they divide the groups.
        groups: Groups of neighbouring experts; they divide the experts.
    """
    layers, experts = loads.shape
    size = experts // groups
    order = pack(loads.reshape(layers, groups, size).sum(axis=2), nodes)
    members: NDArray[np.int64] = (order[:, :, None] * size + np.arange(size)).reshape(
        layers, experts
    )
    return members
