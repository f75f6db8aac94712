"""Plans for locality: copies by hand, brute force on small cases, and what every plan must keep."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import PlacementError
from nsysmoe.metrics.routed_load.traffic import copies, held_shares
from nsysmoe.placement.cluster import Cluster
from nsysmoe.placement.locality import assign_evenly, group_requests, place_locally
from nsysmoe.placement.plan import place_on_nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def by_hand(chosen: Ints, homes: Ints, node_of: Ints) -> tuple[int, int]:
    """Count token copies and choice copies of one layer with sets."""
    once = each = 0
    for experts, home in zip(chosen.tolist(), homes.tolist(), strict=True):
        nodes = [int(node_of[expert]) for expert in experts]
        once += len(set(nodes) - {home})
        each += sum(node != home for node in nodes)
    return once, each


def drawn(seed: int, tokens: int, experts: int, k: int) -> Ints:
    scores = np.random.default_rng(seed).random((tokens, experts))
    return scores.argpartition(k - 1, axis=1)[:, :k].astype(np.int64)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([(4, 2, 2), (6, 3, 3), (8, 2, 4)]))
def test_copies_are_those_counted_with_sets(seed: int, shape: tuple[int, int, int]) -> None:
    experts, nodes, k = shape
    chosen = drawn(seed, 20, experts, k)
    requests = np.arange(20) // 4
    homes = np.random.default_rng(seed).integers(0, nodes, 5)
    map_ = np.random.default_rng(seed + 1).permutation(experts)[None]
    node_of = np.argsort(map_[0]) // (experts // nodes)
    found = copies([chosen], [requests], homes, held_shares(map_, experts, nodes))
    assert found.sum(axis=0).tolist() == [20, *by_hand(chosen, homes[requests], node_of)]


def test_replicas_are_chosen_by_chance() -> None:
    """Expert 0 lives on both nodes: a token of node 0 goes to the other in half of cases."""
    shares = held_shares(np.array([[0, 1, 0, 2]]), 3, 2)
    found = copies([np.array([[0], [1], [2]])], [np.zeros(3, int)], np.zeros(1, int), shares)
    assert found.tolist() == [[3, 1.5, 1.5]]


def best_by_force(chosen: Ints, homes: Ints, experts: int) -> int:
    plans = (np.argsort(order) // (experts // 2) for order in permutations(range(experts)))
    return min(by_hand(chosen, homes, node_of)[0] for node_of in plans)


@pytest.mark.parametrize("seed", range(8))
def test_experts_on_nodes_come_near_brute_force(seed: int) -> None:
    """Requests are dealt; loads are so even that the limit on nodes hardly binds."""
    chosen = drawn(seed, 40, 6, 2)
    requests = np.arange(40) // 4
    node_of, homes = place_locally([chosen], [requests], (6, 2, 10), with_groups=False)
    assert homes.tolist() == [0, 1] * 5
    optimum = best_by_force(chosen, homes[requests], 6)
    reached = by_hand(chosen, homes[requests], node_of[0])[0]
    assert optimum <= reached <= optimum * 1.1


@pytest.mark.parametrize("seed", range(6))
def test_no_swap_of_two_experts_is_left_that_helps(seed: int) -> None:
    """What a swap saves is worked out without making it: here each is made."""
    chosen = drawn(seed, 60, 9, 3)
    requests = np.arange(60) // 4
    (node_of,), homes = place_locally([chosen], [requests], (9, 3, 15), with_groups=False)
    reached = by_hand(chosen, homes[requests], node_of)[0]
    loads = np.bincount(chosen.reshape(-1), minlength=9)
    for one, other in permutations(range(9), 2):
        swapped = node_of.copy()
        swapped[[one, other]] = node_of[[other, one]]
        carried = np.bincount(swapped, weights=loads).max()
        if carried <= 1.1 * loads.sum() / 3:
            assert by_hand(chosen, homes[requests], swapped)[0] >= reached


def test_what_is_chosen_together_comes_together() -> None:
    """Two kinds of requests, each with experts of its own, scattered by their numbers."""
    kinds = np.array([[0, 2, 4, 6], [1, 3, 5, 7]])
    requests = np.repeat(np.arange(8), 10)
    random = np.random.default_rng(0)
    kind = np.array([0, 0, 1, 0, 1, 1, 0, 1])[requests]
    chosen = np.stack([random.permutation(kinds[each])[:2] for each in kind])
    node_of, homes = place_locally([chosen], [requests], (8, 2, 8))
    assert by_hand(chosen, homes[requests], node_of[0]) == (0, 0)
    assert by_hand(chosen, np.arange(8)[requests] % 2, np.arange(8) // 4)[0] > 60


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(4, 2, 2), (6, 3, 2), (8, 4, 3)]))
def test_every_node_holds_as_many_and_copies_never_rise(
    seed: int, shape: tuple[int, int, int]
) -> None:
    experts, nodes, k = shape
    chosen = [drawn(seed + layer, 36, experts, k) for layer in range(2)]
    requests = [np.arange(36) // 4] * 2
    node_of, homes = place_locally(chosen, requests, (experts, nodes, 9))
    for row in node_of:
        assert np.bincount(row, minlength=nodes).tolist() == [experts // nodes] * nodes
    assert np.ptp(np.bincount(homes, minlength=nodes)) <= 1
    again, others = place_locally(chosen, requests, (experts, nodes, 9))
    assert (again == node_of).all()
    assert (others == homes).all()
    dealt, plain = np.arange(9) % nodes, np.arange(experts) // (experts // nodes)
    alone, _ = place_locally(chosen, requests, (experts, nodes, 9), with_groups=False)
    for layer in range(2):
        at = dealt[requests[layer]]
        before = by_hand(chosen[layer], at, plain)[0]
        assert by_hand(chosen[layer], at, alone[layer])[0] <= before


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(5, 2), (7, 3), (8, 2)]))
def test_even_assignment_of_two_nodes_is_the_best_and_of_more_no_swap_helps(
    seed: int, shape: tuple[int, int]
) -> None:
    items, nodes = shape
    benefit = np.random.default_rng(seed).integers(0, 9, (items, nodes)).astype(np.float64)
    found = assign_evenly(benefit)
    assert np.ptp(np.bincount(found, minlength=nodes)) <= 1
    reached = benefit[np.arange(items), found].sum()
    every = (
        {tuple(found[list(order)]) for order in permutations(range(items))} if nodes == 2 else set()
    )
    assert all(benefit[np.arange(items), list(each)].sum() <= reached for each in every)
    for one in range(items):
        for other in range(items):
            swapped = found.copy()
            swapped[[one, other]] = found[[other, one]]
            assert benefit[np.arange(items), swapped].sum() <= reached


def test_requests_run_where_their_experts_live() -> None:
    chosen = np.array([[0, 1], [2, 3], [0, 2], [3, 2]])
    node_of = np.array([[0, 0, 1, 1]])
    assert group_requests([chosen], [np.arange(4)], node_of, 2, 4).tolist() == [0, 1, 0, 1]


def test_replicas_stay_on_the_node_of_their_expert() -> None:
    node_of = np.array([[0, 1, 0, 1, 1, 0]])
    map_ = place_on_nodes(np.array([[9.0, 1, 1, 1, 9, 1]]), node_of, Cluster(4, 8, nodes=2))
    assert [set(part) for part in map_[0].reshape(2, 4).tolist()] == [{0, 2, 5}, {1, 3, 4}]
    assert held_shares(map_, 6, 2)[0].argmax(axis=1).tolist() == node_of[0].tolist()


def test_what_cannot_be_placed_is_refused() -> None:
    chosen, requests = [drawn(0, 8, 5, 2)], [np.arange(8)]
    with pytest.raises(PlacementError, match="do not divide"):
        place_locally(chosen, requests, (5, 2, 8))
    with pytest.raises(PlacementError, match="there is one"):
        place_locally(chosen, requests, (5, 1, 8))
