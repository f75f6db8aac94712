"""What the busiest device of a layout carries, by the size of the batch.

A batch of n sequences that generate is n tokens of n different requests, each with the preferences
of its own request; a prompt is many tokens of one. So requests are drawn, not tokens: requests
that choose alike make a step more uneven than the mean of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.routed_load.expert_parallel import active_experts
from nsysmoe.placement.loads import device_loads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DRAWS = 24
# Random numbers of one batch size at most.
_LARGEST = 1 << 24


def drawn_loads(units: Floats, sequences: int, top_k: int) -> Floats:
    """Return loads of batches of one token each of some requests, with fixed draws.

    Args:
        units: Choices of each request (or step), shape [units, layers, experts].
        sequences: Tokens of a batch.
        top_k: Experts a token.

    Returns:
        Shape [draws, layers, experts].
    """
    random = np.random.default_rng(sequences)
    _, layers, experts = units.shape
    draws = max(4, min(_DRAWS, _LARGEST // max(1, sequences * layers * experts)))
    found = np.zeros((draws, layers, experts))
    totals = units.sum(axis=2, keepdims=True)
    shares = np.divide(units, totals, out=np.full_like(units, 1 / experts), where=totals > 0)
    for draw in range(draws):
        picked = random.integers(0, len(units), sequences)
        # Gumbel's trick draws k different experts with chances by the shares (Kool et al. 2019).
        with np.errstate(divide="ignore"):
            keys = np.log(shares[picked]) + random.gumbel(size=(sequences, layers, experts))
        chosen = np.argpartition(keys, -top_k, axis=2)[:, :, -top_k:]
        index = np.broadcast_to(np.arange(layers)[None, :, None], chosen.shape)
        np.add.at(found[draw], (index, chosen), 1.0)
    return found


def busiest(loads: Floats, map_: NDArray[np.int64], gpus: int) -> float:
    """Return the load of the busiest device, summed over layers, mean over batches.

    Args:
        loads: Shape [batches, layers, experts].
        map_: Logical expert of each slot, shape [layers, slots].
        gpus: Devices.
    """
    return float(device_loads(map_, loads, gpus).max(axis=2).sum(axis=1).mean())


def most_active(loads: Floats, map_: NDArray[np.int64], gpus: int) -> float:
    """Return the active experts of the device with most, summed over layers, mean over batches."""
    return float(active_experts(loads, map_, gpus).max(axis=2).sum(axis=1).mean())
