"""Better plans than EPLB's: its own, improved until no single change of the busiest GPU helps.

EPLB decides how many replicas each expert gets before it knows how they can be packed. Here both
change together: the busiest GPU swaps a slot with another one, or some slot anywhere is given to
another expert. All layers are searched at once. Equal inputs give equal plans: rounds are counted,
clocks are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.placement.eplb import pack, place_globally, replicate
from nsysmoe.placement.exact import place_exactly
from nsysmoe.placement.loads import device_loads, replica_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A change has to be better by more than sums of floats differ.
_STEP = 1e-9
# Most rounds end long before: a layer leaves the search when nothing helps it.
_ROUNDS = 400
# Numbers that one round of re-replication may hold; above it layers take turns.
_LARGEST = 1 << 21
# Where several GPUs are equally busy no change lowers the maximum. The sum of the 16th powers
# (four squarings) falls with every one of them that gets better.
_SQUARINGS = 4
# Replicas by a power of the loads, as other starts; these two gained most on skewed layers.
_POWERS = (0.85, 1.2)
# A layer so near to what no plan can beat is not started anew.
_NEAR = 1e-3
# Small layers are searched exhaustively, for about a tenth of a second in all.
_FEW_SLOTS = 64
_NODES = 50_000


def improve(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int, rounds: int = _ROUNDS
) -> NDArray[np.int64]:
    """Return a map whose busiest GPU carries no more than that of ``map_``.

    Args:
        map_: Logical expert of each physical one, shape [layers, slots].
        loads: Shape [layers, experts].
        gpus: Devices, each with slots / gpus neighbouring slots.
        rounds: Changes of a layer at most, of either kind.
    """
    best: NDArray[np.int64] = map_.copy()
    now = map_.copy()
    lowest = device_loads(best, loads, gpus).max(axis=1)
    least = _least(loads, gpus, map_.shape[1])
    active = np.flatnonzero(lowest > least * (1 + _STEP))
    for _ in range(rounds):
        if not active.size:
            break
        part, here = now[active], loads[active]
        changed = _swap(part, here, gpus)
        stuck = np.flatnonzero(~changed)
        if stuck.size:
            again = part[stuck]
            changed[stuck] = _regive(again, here[stuck], gpus)
            part[stuck] = again
        now[active] = part
        reached = device_loads(part, here, gpus).max(axis=1)
        lower = reached < lowest[active]
        best[active[lower]], lowest[active[lower]] = part[lower], reached[lower]
        active = active[changed & (lowest[active] > least[active] * (1 + _STEP))]
    return best


def place_better(loads: NDArray[np.float64], gpus: int, slots: int) -> NDArray[np.int64]:
    """Replicate and pack over all GPUs, no worse than EPLB; shape [layers, slots].

    EPLB's plan and two with other replicas are improved; small layers are searched exhaustively.
    """
    best = improve(place_globally(loads, gpus, slots), loads, gpus)
    highest = device_loads(best, loads, gpus).max(axis=1)
    far = highest > _least(loads, gpus, slots) * (1 + _NEAR)
    for power in _POWERS:
        rest = loads[far]
        other = improve(_start(rest, power, gpus, slots), rest, gpus)
        best[far] = _lower(best[far], other, rest, gpus)
    if slots <= _FEW_SLOTS:
        nodes = _NODES // len(loads)
        best = np.stack(
            [
                place_exactly(row, gpus, slots, first, nodes)[0]
                for row, first in zip(loads, best, strict=True)
            ]
        )
    return best


def _start(loads: NDArray[np.float64], power: float, gpus: int, slots: int) -> NDArray[np.int64]:
    """Return a plan with replicas by a power of the loads: below 1 they are spread wider."""
    held = replicate(loads**power, slots)
    each = np.take_along_axis(loads / replica_counts(held, loads.shape[1]), held, axis=1)
    placed: NDArray[np.int64] = np.take_along_axis(held, pack(each, gpus), axis=1)
    return placed


def _lower(
    one: NDArray[np.int64], other: NDArray[np.int64], loads: NDArray[np.float64], gpus: int
) -> NDArray[np.int64]:
    """Return of two plans the one with the lower maximum, by layer."""
    highest = [device_loads(map_, loads, gpus).max(axis=1) for map_ in (one, other)]
    return np.where((highest[1] < highest[0])[:, None], other, one)


def _least(loads: NDArray[np.float64], gpus: int, slots: int) -> NDArray[np.float64]:
    """Return what the busiest GPU carries at least: the mean, or the hottest replica."""
    counts = replica_counts(replicate(loads, slots), loads.shape[1])
    # No other way to replicate leaves a hottest replica that carries less.
    least: NDArray[np.float64] = np.maximum((loads / counts).max(axis=1), loads.sum(axis=1) / gpus)
    return least


def _swap(map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int) -> NDArray[np.bool_]:
    """Swap one slot of each layer's busiest GPU for the best one elsewhere, in place.

    Returns:
        Whether each layer got better.
    """
    layers, slots = map_.shape
    rows, size = np.arange(layers), slots // gpus
    each = np.take_along_axis(loads / replica_counts(map_, loads.shape[1]), map_, axis=1)
    devices = each.reshape(layers, gpus, size).sum(axis=2)
    busiest = devices.argmax(axis=1)
    highest = devices[rows, busiest]
    own = busiest[:, None] * size + np.arange(size)
    mine = np.take_along_axis(each, own, axis=1)
    # What leaves the busiest GPU, by own slot and by slot of any GPU.
    leaving = mine[:, :, None] - each[:, None, :]
    there = np.repeat(devices, size, axis=1)[:, None, :] + leaving
    after = np.maximum(highest[:, None, None] - leaving, there)
    after[rows[:, None], :, own] = np.inf
    flat = after.reshape(layers, -1)
    place = flat.argmin(axis=1)
    better: NDArray[np.bool_] = flat[rows, place] < highest * (1 - _STEP)
    one, other = own[rows, place // slots], place % slots
    here = rows[better]
    one, other = one[better], other[better]
    map_[here, one], map_[here, other] = map_[here, other], map_[here, one]
    return better


def _regive(map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int) -> NDArray[np.bool_]:
    """Give a replica's slot to an expert of the busiest GPU where that helps, in place.

    Returns:
        Whether each layer got better.
    """
    size = map_.shape[1] // gpus
    numbers = map_.shape[1] * gpus * size
    turn = max(1, _LARGEST // numbers)
    parts = [
        _regive_part(map_[first : first + turn], loads[first : first + turn], gpus)
        for first in range(0, len(map_), turn)
    ]
    return np.concatenate(parts)


def _regive_part(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int
) -> NDArray[np.bool_]:
    layers, slots = map_.shape
    rows, size = np.arange(layers), slots // gpus
    experts = loads.shape[1]
    counts = replica_counts(map_, experts)
    held = _held(map_, experts, gpus)
    devices = device_loads(map_, loads, gpus)
    highest = devices.max(axis=1)
    own = devices.argmax(axis=1)[:, None] * size + np.arange(size)
    wanted = np.take_along_axis(map_, own, axis=1)
    # With one replica less of an expert, those that stay carry more; with one more, less.
    shrunk = loads / np.maximum(counts - 1, 1) - loads / counts
    grown = loads / (counts + 1) - loads / counts
    less = np.take_along_axis(shrunk[:, :, None] * held, map_[:, :, None], axis=1)
    more = np.take_along_axis(grown[:, :, None] * held, wanted[:, :, None], axis=1)
    after = devices[:, None, None, :] + less[:, :, None, :] + more[:, None, :, :]
    device = np.arange(slots) // size
    gone = np.take_along_axis(loads / np.maximum(counts - 1, 1), map_, axis=1)
    come = np.take_along_axis(loads / (counts + 1), wanted, axis=1)
    after[:, np.arange(slots), :, device] += (come[:, None, :] - gone[:, :, None]).swapaxes(0, 1)
    uneven = _unevenness(after, highest[:, None, None])
    single = np.take_along_axis(counts, map_, axis=1) == 1
    uneven[single[:, :, None] | (map_[:, :, None] == wanted[:, None, :])] = np.inf
    flat = uneven.reshape(layers, -1)
    place = flat.argmin(axis=1)
    better: NDArray[np.bool_] = flat[rows, place] < _unevenness(devices, highest) * (1 - _STEP)
    here = rows[better]
    map_[here, place[better] // size] = wanted[here, place[better] % size]
    return better


def _unevenness(devices: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over the last axis of the 16th power of load / scale."""
    power = devices / np.where(scale > 0, scale, 1)[..., None]
    for _ in range(_SQUARINGS):
        power *= power
    summed: NDArray[np.float64] = power.sum(axis=-1)
    return summed


def _held(map_: NDArray[np.int64], experts: int, gpus: int) -> NDArray[np.int64]:
    """Return how many replicas of each expert each GPU holds; shape [layers, experts, gpus]."""
    layers, slots = map_.shape
    device = np.arange(slots) // (slots // gpus)
    keys = (np.arange(layers)[:, None] * experts + map_) * gpus + device
    counted = np.bincount(keys.reshape(-1), minlength=layers * experts * gpus)
    return counted.reshape(layers, experts, gpus)
