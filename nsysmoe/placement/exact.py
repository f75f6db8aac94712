"""The best plan of one layer, proven: branch and bound over replicas and places.

For small cases, as a yardstick of the others: the problem is NP-hard (it contains partition).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# About five seconds; what needs more is a case for ``best``.
NODES = 1_000_000
_STEP = 1e-9


class _OutOfNodesError(Exception):
    """The search took longer than it may."""


class _Search:
    """One layer: the lowest maximum found so far, and the nodes that are left."""

    def __init__(self, loads: Sequence[float], gpus: int, slots: int, nodes: int) -> None:
        self.loads = loads
        self.gpus = gpus
        self.slots = slots
        self.size = slots // gpus
        self.nodes = nodes

    def below(self, limit: float) -> list[int] | None:
        """Return the first plan found whose busiest GPU carries less than ``limit``."""
        for counts in self._counts(limit, 0, self.slots - len(self.loads)):
            items = sorted(
                (
                    (load / count, expert)
                    for expert, (load, count) in enumerate(zip(self.loads, counts, strict=True))
                    for _ in range(count)
                ),
                reverse=True,
            )
            bins: list[list[int]] = [[] for _ in range(self.gpus)]
            if self._pack(items, 0, bins, [0.0] * self.gpus, limit):
                return [expert for held in bins for expert in held]
        return None

    def _counts(self, limit: float, expert: int, spare: int) -> Iterator[tuple[int, ...]]:
        """Yield the replicas of experts from ``expert`` on that leave no single one too heavy."""
        self._spend()
        load = self.loads[expert]
        fewest = int(load // limit) + 1 if limit > 0 else 1
        if expert == len(self.loads) - 1:
            if spare + 1 >= fewest:
                yield (spare + 1,)
            return
        for count in range(fewest, spare + 2):
            for rest in self._counts(limit, expert + 1, spare + 1 - count):
                yield (count, *rest)

    def _pack(
        self,
        items: Sequence[tuple[float, int]],
        number: int,
        bins: list[list[int]],
        sums: list[float],
        limit: float,
    ) -> bool:
        """Place the items from ``number`` on, heaviest first, or tell that none of it fits."""
        self._spend()
        if number == len(items):
            return True
        weight, expert = items[number]
        lightest = items[-1][0]
        tried = set()
        for place, held in enumerate(bins):
            room = self.size - len(held)
            # Bins with one sum and one room are the same choice.
            if not room or (sums[place], room) in tried:
                continue
            tried.add((sums[place], room))
            if sums[place] + weight + (room - 1) * lightest >= limit:
                continue
            held.append(expert)
            sums[place] += weight
            if self._pack(items, number + 1, bins, sums, limit):
                return True
            held.pop()
            sums[place] -= weight
        return False

    def _spend(self) -> None:
        self.nodes -= 1
        if self.nodes < 0:
            raise _OutOfNodesError


def place_exactly(
    loads: NDArray[np.float64],
    gpus: int,
    slots: int,
    start: NDArray[np.int64],
    nodes: int = NODES,
) -> tuple[NDArray[np.int64], bool]:
    """Return the best plan of one layer, and whether that is proven.

    Args:
        loads: Shape [experts].
        gpus: Devices.
        slots: Physical experts.
        start: A plan to improve on, shape [slots].
        nodes: Nodes of the search tree at most.

    Returns:
        Logical experts, shape [slots]; not proven where ``nodes`` ended the search.
    """
    best = start
    lowest = _highest(loads, start, gpus)
    least = loads.sum() / gpus
    search = _Search(loads.tolist(), gpus, slots, nodes)
    try:
        while lowest > least * (1 + _STEP):
            found = search.below(lowest * (1 - _STEP))
            if found is None:
                break
            best = np.array(found)
            lowest = _highest(loads, best, gpus)
    except _OutOfNodesError:
        return best, False
    return best, True


def place_all_exactly(
    loads: NDArray[np.float64], gpus: int, slots: int, start: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the best plan of every layer; shape [layers, slots].

    Raises:
        PlacementError: A layer is too large to be sure.
    """
    found = []
    for layer, (row, first) in enumerate(zip(loads, start, strict=True)):
        map_, is_proven = place_exactly(row, gpus, slots, first)
        if not is_proven:
            raise PlacementError(
                f"layer {layer} is too large for an exact plan ({loads.shape[1]} experts in "
                f"{slots} slots on {gpus} GPUs): ask for best"
            )
        found.append(map_)
    return np.stack(found)


def _highest(loads: NDArray[np.float64], map_: NDArray[np.int64], gpus: int) -> float:
    counts = Counter(map_.tolist())
    each = np.array([loads[expert] / counts[expert] for expert in map_.tolist()])
    return float(each.reshape(gpus, -1).sum(axis=1).max())
