"""What is asked of a plan: which algorithm, and where experts can live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nsysmoe.errors import PlacementError

Algorithm = Literal["contiguous", "round-robin", "lpt", "eplb", "exact", "best"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
# These need more than loads: what each step held, or which experts each token chose.
RoutedAlgorithm = Literal["active", "locality"]
ROUTED_ALGORITHMS: tuple[RoutedAlgorithm, ...] = get_args(RoutedAlgorithm)
# Only these keep groups of experts on one node.
HIERARCHICAL = ("eplb", "best")


@dataclass(frozen=True)
class Cluster:
    """Where experts can live.

    Attributes:
        gpus: Devices that share the experts.
        slots: Physical experts of a layer over all of them.
        nodes: Servers; they divide the GPUs.
        groups: Groups of neighbouring experts that a token's choices stay within.
    """

    gpus: int
    slots: int
    nodes: int = 1
    groups: int = 1

    @property
    def is_hierarchical(self) -> bool:
        """Tell whether whole groups can be given to nodes; EPLB places globally otherwise."""
        return self.nodes > 1 and self.groups % self.nodes == 0

    def check(self, experts: int) -> None:
        """Refuse what cannot hold the experts.

        Raises:
            PlacementError: Slots, GPUs, nodes, groups and experts do not divide.
        """
        if self.slots < experts:
            raise PlacementError(f"{self.slots} slots do not hold {experts} experts")
        for whole, count, parts, name in (
            ("slots", self.slots, self.gpus, "GPUs"),
            ("GPUs", self.gpus, self.nodes, "nodes"),
            ("experts", experts, self.groups, "groups"),
        ):
            if parts < 1 or count % parts:
                raise PlacementError(f"{count} {whole} do not divide among {parts} {name}")
