"""Plans for decode: what a device pays for in a small batch is not tokens.

A decode step reads the weights of every expert with work, once for each block of rows: two tokens
of one expert cost as much as one, and two of two experts twice as much. So plans balance costs
that each step sets, over many steps at once: which experts are active together matters, not only
how often (METRO, for expert-parallel decode, balances activated experts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.placement.eplb import pack
from nsysmoe.placement.loads import replica_counts
from nsysmoe.placement.search import place_better

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.int64]

# Rows of a block in vLLM's default for batches of up to 32 tokens with 16-bit weights.
BLOCK_ROWS = 16
_STEP = 1e-9
# Swaps of a layer at most.
_ROUNDS = 96
# Numbers of one round; of more steps evenly spaced ones are looked at, but never fewer than these.
_LARGEST = 1 << 18
_FEWEST_STEPS = 24


@dataclass(frozen=True, eq=False)
class StepCost:
    """What one physical expert costs its device in a step.

    Attributes:
        per_expert: Where it has a row; shape [steps].
        per_block: For each block of rows that is begun; shape [steps].
        block_rows: Rows of a block; shape [steps].
    """

    per_expert: NDArray[np.float64]
    per_block: NDArray[np.float64]
    block_rows: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cost of experts with ``rows``, shape [steps, ...]."""
        per_expert, per_block, block = (
            each.reshape(-1, *[1] * (rows.ndim - 1))
            for each in (self.per_expert, self.per_block, self.block_rows)
        )
        blocks = (-(-rows // block)).astype(np.float64)
        cost: NDArray[np.float64] = per_expert * (rows > 0) + per_block * blocks
        return cost

    def taken(self, steps: slice | NDArray[np.bool_]) -> StepCost:
        """Return the costs of some of the steps."""
        return StepCost(self.per_expert[steps], self.per_block[steps], self.block_rows[steps])


def blocks_cost(steps: int, block_rows: int = BLOCK_ROWS) -> StepCost:
    """Return the cost that counts blocks of rows; active experts where no one has more."""
    return StepCost(np.zeros(steps), np.ones(steps), np.full(steps, block_rows))


def slot_costs(map_: Map, loads: NDArray[np.float64], cost: StepCost) -> NDArray[np.float64]:
    """Return what each slot is expected to cost; shape [steps, layers, slots].

    Replicas of an expert take its choices by turns, and each is as likely as another to be given
    one more where they do not divide.

    Args:
        map_: Logical expert of each slot, shape [layers, slots].
        loads: Choices, shape [steps, layers, experts].
        cost: What an expert costs in each step.
    """
    count = replica_counts(map_, loads.shape[2])
    each = _split(loads, count, cost) / count
    index = np.broadcast_to(map_, (len(loads), *map_.shape))
    held: NDArray[np.float64] = np.take_along_axis(each, index, axis=2)
    return held


def _split(loads: NDArray[np.float64], count: Map, cost: StepCost) -> NDArray[np.float64]:
    """Return what all replicas of each expert cost together; shape of ``loads``."""
    rows, rest = np.divmod(loads.astype(np.int64), count)
    together: NDArray[np.float64] = rest * cost.of(rows + 1) + (count - rest) * cost.of(rows)
    return together


def critical_cost(
    map_: Map, loads: NDArray[np.float64], gpus: int, cost: StepCost
) -> NDArray[np.float64]:
    """Return what the device that costs most costs; shape [steps, layers].

    Args:
        map_: Logical expert of each slot, shape [layers, slots].
        loads: Choices, shape [steps, layers, experts].
        gpus: Devices.
        cost: What an expert costs in each step.
    """
    held = slot_costs(map_, loads, cost)
    devices = held.reshape(*held.shape[:2], gpus, -1).sum(axis=3)
    highest: NDArray[np.float64] = devices.max(axis=2)
    return highest


def place_by_steps(
    loads: NDArray[np.float64], gpus: int, slots: int, cost: StepCost | None = None
) -> Map:
    """Return the plan whose most expensive devices, added up over steps, cost least.

    Of three starts (the plan that balances loads, the same replicas packed by their mean cost,
    and replicas that cost least) the cheapest is improved by swaps of two slots until none helps.
    Swaps look at every other step, and the rest decide whether they are kept: what helps in the
    steps that were looked at only is noise.

    Args:
        loads: Choices of each logical expert, shape [steps, layers, experts].
        gpus: Devices.
        slots: Physical experts of a layer.
        cost: What an expert costs in each step; blocks of 16 rows where left out.

    Returns:
        Logical experts, shape [layers, slots].
    """
    cost = cost or blocks_cost(len(loads))
    # Layer by layer: costs of all slots in all steps of all layers would fill memory.
    return np.concatenate(
        [
            _place_layer(loads[:, layer : layer + 1], gpus, slots, cost)
            for layer in range(loads.shape[1])
        ]
    )


def _place_layer(loads: NDArray[np.float64], gpus: int, slots: int, cost: StepCost) -> Map:
    balanced = place_better(loads.sum(axis=0), gpus, slots)
    cheap = _cheapest_replicas(loads, slots, cost)
    starts = [balanced, *(_packed(held, loads, gpus, cost) for held in (balanced, cheap))]
    start = _cheapest(starts, loads, gpus, cost)
    every = max(2, min(len(loads) * slots * slots // gpus // _LARGEST, len(loads) // _FEWEST_STEPS))
    looked = slice(None, None, every)
    better = _improved(start, loads[looked], gpus, cost.taken(looked))
    rest = slice(1, None, 2) if len(loads) > 1 else slice(None)
    return _cheapest([start, better], loads[rest], gpus, cost.taken(rest))


def _cheapest(
    plans: list[Map], loads: NDArray[np.float64], gpus: int, cost: StepCost
) -> NDArray[np.int64]:
    """Return of several plans the one that costs least, by layer; the first of equals."""
    sums = np.stack([critical_cost(map_, loads, gpus, cost).sum(axis=0) for map_ in plans])
    best: Map = np.stack(plans)[sums.argmin(axis=0), np.arange(loads.shape[1])]
    return best


def _packed(held: Map, loads: NDArray[np.float64], gpus: int, cost: StepCost) -> Map:
    """Pack slots by what they cost on average, the dearest first onto the cheapest device."""
    mean = slot_costs(held, loads, cost).mean(axis=0)
    placed: Map = np.take_along_axis(held, pack(mean, gpus), axis=1)
    return placed


def _cheapest_replicas(loads: NDArray[np.float64], slots: int, cost: StepCost) -> Map:
    """Return all experts once, then replicas of those whose cost rises least by it."""
    layers, experts = loads.shape[1:]
    held = np.tile(np.arange(experts), (layers, 1))
    while held.shape[1] < slots:
        count = np.stack([np.bincount(row, minlength=experts) for row in held])
        dearer = (_split(loads, count + 1, cost) - _split(loads, count, cost)).sum(axis=0)
        held = np.concatenate([held, dearer.argmin(axis=1)[:, None]], axis=1)
    return held


def _improved(map_: Map, loads: NDArray[np.float64], gpus: int, cost: StepCost) -> Map:
    """Swap slots of each layer until no swap with the device that decides most helps."""
    held = slot_costs(map_, loads, cost)
    return np.stack([_improved_layer(row, held[:, layer], gpus) for layer, row in enumerate(map_)])


def _improved_layer(row: NDArray[np.int64], held: NDArray[np.float64], gpus: int) -> Map:
    """Improve one layer; ``held`` is what each slot costs in each step, [steps, slots]."""
    size = row.size // gpus
    order = np.arange(row.size)
    if gpus == 1:
        return row
    for _ in range(_ROUNDS):
        now = held[:, order]
        devices = now.reshape(len(now), gpus, size).sum(axis=2)
        decides = np.bincount(devices.argmax(axis=1), minlength=gpus)
        swap = None
        for device in np.argsort(-decides, kind="stable")[: max(2, gpus // 8)]:
            swap = swap or _best_swap(now, devices, int(device), size)
        if swap is None:
            break
        one, other = swap
        order[one], order[other] = order[other], order[one]
    improved: Map = row[order]
    return improved


def _best_swap(
    now: NDArray[np.float64], devices: NDArray[np.float64], device: int, size: int
) -> tuple[int, int] | None:
    """Return the two slots, one of ``device``, whose swap lowers the sum over steps most."""
    own = np.arange(device * size, (device + 1) * size)
    others = np.setdiff1d(np.arange(now.shape[1]), own)
    there = others // size
    arriving = now[:, None, others] - now[:, own, None]
    mine = devices[:, device, None, None] + arriving
    theirs = devices[:, None, there] - arriving
    rest = _highest_without(devices, device)[:, None, there]
    after = np.maximum(np.maximum(mine, theirs), rest).sum(axis=0)
    place = int(after.argmin())
    if after.flat[place] >= devices.max(axis=1).sum() * (1 - _STEP):
        return None
    return int(own[place // others.size]), int(others[place % others.size])


def _highest_without(devices: NDArray[np.float64], device: int) -> NDArray[np.float64]:
    """Return for each other device the highest of the rest, both left out; [steps, gpus]."""
    left = devices.copy()
    left[:, device] = -np.inf
    first = left.argmax(axis=1)
    steps = np.arange(len(left))
    highest = left[steps, first]
    left[steps, first] = -np.inf
    without = np.repeat(highest[:, None], devices.shape[1], axis=1)
    without[steps, first] = left.max(axis=1)
    return without
