"""Where experts live: from the logical expert that a token chose to the rank that computes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.errors import RoutingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# vLLM's router spreads the rows of a batch over an expert's replicas by this multiplicative hash
# (Knuth, TAOCP 3, 6.4): `_eplb_map_and_record_i32_kernel`, vLLM 0.20.2 to 0.33.
_MULTIPLIER = np.uint64(2654435769)
_MASK = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class Placement:
    """Physical experts of every layer; rank r holds the r-th equal part of them.

    Attributes:
        logical: Logical expert of each physical one, shape [layers, physical].
        ranks: Ranks that share them.
    """

    logical: NDArray[np.int64]
    ranks: int

    def __post_init__(self) -> None:
        layers, physical = self.logical.shape
        if physical % self.ranks:
            raise RoutingError(
                f"{physical} physical experts do not divide among {self.ranks} ranks"
            )
        for layer in range(layers):
            held = np.unique(self.logical[layer])
            if held.size != held[-1] + 1:
                raise RoutingError(f"layer {layer} has no physical expert for some logical one")
            if held.size != self.experts:
                raise RoutingError(
                    f"layer {layer} places {held.size} logical experts, another layer "
                    f"{self.experts}"
                )

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.logical.shape[0])

    @property
    def physical(self) -> int:
        """Physical experts of a layer, over all ranks."""
        return int(self.logical.shape[1])

    @property
    def experts(self) -> int:
        """Logical experts of a layer."""
        return int(self.logical.max()) + 1

    @property
    def has_replicas(self) -> bool:
        """Tell whether some logical expert lives twice."""
        return self.physical > self.experts

    def physical_of(
        self, layer: NDArray[Any], expert: NDArray[Any], row: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Return the physical expert of each choice; all shapes (n,).

        Args:
            layer: MoE layer.
            expert: Logical expert.
            row: Place of the token in its step's batch, which picks among replicas.
        """
        first, count, slots = self._replicas
        if not self.has_replicas:
            only: NDArray[np.int64] = slots[layer, first[layer, expert]]
            return only
        which = (row.astype(np.uint64) * _MULTIPLIER) & _MASK
        index = which % count[layer, expert].astype(np.uint64)
        found: NDArray[np.int64] = slots[layer, first[layer, expert] + index.astype(np.int64)]
        return found

    def rank_of(self, physical: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank that holds each physical expert."""
        held: NDArray[np.int64] = physical // (self.physical // self.ranks)
        return held

    @cached_property
    def _replicas(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Physical experts sorted by logical one: first place and count of each, and the order."""
        slots = np.argsort(self.logical, axis=1, kind="stable")
        count = np.stack([np.bincount(row, minlength=self.experts) for row in self.logical])
        first = np.cumsum(count, axis=1) - count
        return first, count, slots


@dataclass(frozen=True)
class PlacementHistory:
    """Placements of a run: ``before`` until experts are rearranged, ``after`` from then on."""

    before: Placement
    after: Placement

    @property
    def changes(self) -> bool:
        """Tell whether the two differ."""
        return not np.array_equal(self.before.logical, self.after.logical)


def contiguous(layers: int, experts: int, ranks: int) -> Placement:
    """Return the placement without EPLB: rank r holds the r-th equal part, in order."""
    return Placement(np.tile(np.arange(experts, dtype=np.int64), (layers, 1)), ranks)


def placed(map_: Sequence[Sequence[int]], ranks: int) -> Placement:
    """Return the placement that an engine wrote down: logical expert of each physical one."""
    return Placement(np.array(map_, dtype=np.int64), ranks)
