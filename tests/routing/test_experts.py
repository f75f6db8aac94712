"""Where experts live, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import RoutingError
from nsysmoe.routing import Placement, contiguous
from nsysmoe.routing.experts import placed


def test_without_eplb_each_rank_holds_an_equal_part_in_order() -> None:
    placement = contiguous(2, 8, 4)
    experts = np.arange(8)
    physical = placement.physical_of(np.ones(8, int), experts, experts)
    assert physical.tolist() == list(range(8))
    assert placement.rank_of(physical).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not placement.has_replicas


@settings(max_examples=50)
@given(st.data())
def test_replicas_are_chosen_as_the_engine_does(data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 6))
    redundant = data.draw(st.integers(0, 6))
    rows = [
        data.draw(
            st.permutations(
                [*range(experts), *data.draw(st.lists(st.integers(0, experts - 1),
                                                      min_size=redundant, max_size=redundant))]
            )
        )
        for _ in range(2)
    ]  # fmt: skip
    placement = placed(rows, 1)
    assert placement.has_replicas == (redundant > 0)
    for layer in range(2):
        for expert in range(experts):
            replicas = [p for p, logical in enumerate(rows[layer]) if logical == expert]
            for row in (0, 1, 2, 31, 4095):
                hashed = (row * 2654435769) & 0xFFFFFFFF
                expected = replicas[hashed % len(replicas)]
                found = placement.physical_of(
                    np.array([layer]), np.array([expert]), np.array([row])
                )
                assert found.tolist() == [expected]


def test_placements_that_cannot_be_are_refused() -> None:
    with pytest.raises(RoutingError, match="do not divide"):
        contiguous(1, 8, 3)
    with pytest.raises(RoutingError, match="layer 1 has no physical expert"):
        Placement(np.array([[0, 1, 2, 3], [0, 1, 3, 3]]), 2)


def test_layers_that_place_different_numbers_of_experts_are_refused() -> None:
    with pytest.raises(RoutingError, match="layer 1 places 2 logical experts, another layer 3"):
        placed([[0, 1, 2, 0], [0, 1, 1, 0]], 2)
