"""One question, six answers: where each layer's experts and their replicas should live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import PlacementError
from nsysmoe.placement.cluster import HIERARCHICAL
from nsysmoe.placement.eplb import group_nodes, place_globally
from nsysmoe.placement.exact import place_all_exactly
from nsysmoe.placement.search import place_better
from nsysmoe.placement.simple import contiguous, round_robin

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nsysmoe.placement.cluster import Algorithm, Cluster

    Place = Callable[[NDArray[np.float64], int, int], NDArray[np.int64]]


def place(
    loads: NDArray[np.float64], cluster: Cluster, algorithm: Algorithm = "best"
) -> NDArray[np.int64]:
    """Return which logical expert each slot holds; shape [layers, slots], in the order of GPUs.

    Args:
        loads: Load of each logical expert, shape [layers, experts]; finite, not negative.
        cluster: Where they can live.
        algorithm: ``contiguous`` and ``round-robin`` do not look at loads; ``lpt`` and ``eplb``
            are greedy (the same where there is one node); ``exact`` is proven, for small cases;
            ``best`` improves on ``eplb``.

    Raises:
        PlacementError: The experts do not fit, loads are not numbers, or ``exact`` is too slow.
    """
    layers, experts = loads.shape
    cluster.check(experts)
    if not np.isfinite(loads).all() or (loads < 0).any():
        raise PlacementError("loads must be numbers of 0 and above")
    loads = np.asarray(loads, dtype=np.float64)
    gpus, slots = cluster.gpus, cluster.slots
    if algorithm == "contiguous":
        return contiguous(layers, experts, slots)
    if algorithm == "round-robin":
        return round_robin(layers, experts, gpus, slots)
    if algorithm == "exact":
        return place_all_exactly(loads, gpus, slots, place_better(loads, gpus, slots))
    how: Place = place_better if algorithm == "best" else place_globally
    if algorithm in HIERARCHICAL and cluster.is_hierarchical:
        return _by_node(loads, cluster, how)
    return how(loads, gpus, slots)


def place_on_nodes(
    loads: NDArray[np.float64], node_of: NDArray[np.int64], cluster: Cluster
) -> NDArray[np.int64]:
    """Place experts within the nodes that they were given, replicas too; balanced like ``best``.

    Args:
        loads: Load of each logical expert, shape [layers, experts].
        node_of: Node of each, as many on each node, shape [layers, experts].
        cluster: Where they can live.

    Raises:
        PlacementError: The experts do not fit.
    """
    cluster.check(loads.shape[1])
    return _within(loads, np.argsort(node_of, axis=1, kind="stable"), cluster, place_better)


def _by_node(loads: NDArray[np.float64], cluster: Cluster, how: Place) -> NDArray[np.int64]:
    """Pack groups onto nodes, then place within each node as if it were a layer of its own."""
    return _within(loads, group_nodes(loads, cluster.nodes, cluster.groups), cluster, how)


def _within(
    loads: NDArray[np.float64], members: NDArray[np.int64], cluster: Cluster, how: Place
) -> NDArray[np.int64]:
    """Place within each node; ``members`` are the experts of the first node, and so on."""
    layers, experts = loads.shape
    nodes = cluster.nodes
    inner = np.take_along_axis(loads, members, axis=1).reshape(layers * nodes, experts // nodes)
    found = how(inner, cluster.gpus // nodes, cluster.slots // nodes)
    by_node = members.reshape(layers * nodes, experts // nodes)
    return np.take_along_axis(by_node, found, axis=1).reshape(layers, cluster.slots)
