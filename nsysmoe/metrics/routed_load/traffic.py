"""What tokens cost between nodes: copies that an all-to-all sends away from the node of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Tokens that are looked at together.
_CHUNK = 1 << 16


def held_shares(map_: NDArray[np.int64], experts: int, nodes: int) -> NDArray[np.float64]:
    """Return which share of each expert's replicas each node holds.

    Args:
        map_: Logical expert of each slot, shape [layers, slots], in the order of GPUs; a node
            holds the n-th equal part.
        experts: Logical experts.
        nodes: Servers.

    Returns:
        Shape [layers, experts, nodes].
    """
    layers, slots = map_.shape
    node = np.arange(slots) // (slots // nodes)
    keys = (np.arange(layers)[:, None] * experts + map_) * nodes + node
    counted = np.bincount(keys.reshape(-1), minlength=layers * experts * nodes)
    held = counted.reshape(layers, experts, nodes).astype(np.float64)
    shares: NDArray[np.float64] = held / held.sum(axis=2, keepdims=True)
    return shares


def copies(
    chosen: Sequence[NDArray[np.int64]],
    requests: Sequence[NDArray[np.int64]],
    homes: NDArray[np.int64],
    shares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Count what leaves the nodes of tokens, over all layers, by request.

    A choice goes to one of the expert's replicas, each with equal chance (vLLM hashes the row): a
    node is used with probability 1 - product over choices of (1 - its share). Without replicas
    that is a count.

    Args:
        chosen: Of each layer the experts that tokens chose, shape [tokens, k].
        requests: Of each layer the request of each token, shape [tokens].
        homes: Node that each request runs on, shape [requests].
        shares: What ``held_shares`` returned.

    Returns:
        Shape [requests, 3]: tokens (in a layer each); token copies, the distinct other nodes that
        hold a chosen expert: what is sent where a token travels once to each node; choice copies,
        choices of experts on other nodes: what is sent where each choice travels by itself.
    """
    found = np.zeros((3, homes.size))
    count = homes.size
    for layer, (experts, request) in enumerate(zip(chosen, requests, strict=True)):
        for first in range(0, len(experts), _CHUNK):
            number = request[first : first + _CHUNK]
            part = shares[layer][experts[first : first + _CHUNK]]
            own = homes[number][:, None]
            used = 1 - (1 - part).prod(axis=1)
            chance = part.sum(axis=1)
            away = (
                each.sum(axis=1) - np.take_along_axis(each, own, axis=1)[:, 0]
                for each in (used, chance)
            )
            sums = (np.ones(len(part)), *away)
            found += np.stack([np.bincount(number, weights, count) for weights in sums])
    by_request: NDArray[np.float64] = found.T
    return by_request
