"""Plans by steps: nothing beats brute force, what always runs together is parted, and no noise."""

from __future__ import annotations

from itertools import permutations
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.metrics.routed_load.expert_parallel import active_blocks, active_experts
from nsysmoe.placement.activity import (
    StepCost,
    blocks_cost,
    critical_cost,
    place_by_steps,
    slot_costs,
)
from nsysmoe.placement.cluster import Cluster
from nsysmoe.placement.loads import replica_counts, slot_rows
from nsysmoe.placement.plan import place

if TYPE_CHECKING:
    from numpy.typing import NDArray


def by_hand(row: list[int], loads: NDArray[np.float64], gpus: int, block: int = 16) -> int:
    """Count blocks of the busiest device of each step, without the code under test."""
    size = len(row) // gpus
    whole = 0
    for step in loads:
        devices = [0] * gpus
        for expert, choices in enumerate(step):
            slots = [slot for slot, held in enumerate(row) if held == expert]
            for turn, slot in enumerate(slots):
                rows = len(range(turn, int(choices), len(slots)))
                devices[slot // size] += ceil(rows / block)
        whole += max(devices)
    return whole


@settings(max_examples=60)
@given(
    st.integers(0, 10_000), st.sampled_from([(2, 4), (2, 6), (4, 8)]), st.sampled_from([1, 3, 16])
)
def test_blocks_are_those_counted_by_hand(seed: int, shape: tuple[int, int], block: int) -> None:
    gpus, slots = shape
    random = np.random.default_rng(seed)
    loads = random.integers(0, 40, (5, 1, 4)).astype(np.float64)
    row = random.permutation(np.arange(slots) % 4)
    found = active_blocks(loads, row[None], gpus, block)
    assert found.max(axis=2).sum() == by_hand(row.tolist(), loads[:, 0], gpus, block)
    expected = slot_costs(row[None], loads, blocks_cost(5, block)).sum(axis=2)
    # Which replica is given a row more is chance, not how many rows there are.
    assert expected == pytest.approx(found.sum(axis=2))
    assert slot_rows(row[None], loads).sum() == loads.sum()


def test_active_experts_are_those_with_a_row() -> None:
    loads = np.array([[[3.0, 1, 0]]])
    # Expert 0 lives on both devices, so does expert 1, which has one choice: for its first replica.
    assert active_experts(loads, np.array([[0, 1, 2, 0, 1, 2]]), 2).tolist() == [[[2, 1]]]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_beats_brute_force(seed: int) -> None:
    loads = np.random.default_rng(seed).integers(0, 3, (8, 1, 6)).astype(np.float64)
    found = place_by_steps(loads, 2, 6)[0].tolist()
    optimum = min(by_hand(list(row), loads[:, 0], 2) for row in permutations(range(6)))
    assert optimum <= by_hand(found, loads[:, 0], 2) <= optimum * 1.15


def test_experts_that_are_active_together_are_parted() -> None:
    """Loads over the run are equal, so plans from loads have nothing to go by."""
    together = np.array([[1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1]], dtype=np.float64)
    loads = np.tile(together, (12, 1))[:, None]
    gpus = 4
    by_loads = place(loads.sum(axis=0), Cluster(gpus, 8), "contiguous")
    by_steps = place_by_steps(loads, gpus, 8)
    assert critical_cost(by_loads, loads, gpus, blocks_cost(24)).mean() == 2
    assert critical_cost(by_steps, loads, gpus, blocks_cost(24)).mean() == 1


def test_replicas_are_those_that_cost_decode_nothing() -> None:
    """EPLB gives the hottest expert a replica, which is one more to read; a cold one is not."""
    loads = np.tile(np.array([[9.0, 8, 7, 1]]), (10, 1, 1))
    eplb = place(loads.sum(axis=0), Cluster(2, 6), "eplb")
    found = place_by_steps(loads, 2, 6)
    costs = [critical_cost(map_, loads, 2, blocks_cost(10)).mean() for map_ in (eplb, found)]
    # The one row of expert 3 is with one of its three replicas, two of them on one device.
    assert costs == pytest.approx([3, 2 + 1 / 3])
    assert replica_counts(found, 4)[0, 3] == 3


def test_what_a_step_costs_can_be_told() -> None:
    cost = StepCost(np.array([5.0, 0]), np.array([1.0, 2]), np.array([4, 8]))
    rows = np.array([[0, 1, 5], [0, 8, 9]])
    assert cost.of(rows).tolist() == [[0, 6, 7], [0, 2, 4]]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(1, 5), (2, 4), (2, 6), (4, 8)]))
def test_all_experts_are_placed_and_never_dearer_than_before(
    seed: int, shape: tuple[int, int]
) -> None:
    gpus, slots = shape
    loads = np.random.default_rng(seed).poisson(1.0, (9, 2, 4)).astype(np.float64)
    found = place_by_steps(loads, gpus, slots)
    assert found.shape == (2, slots)
    assert (replica_counts(found, 4) >= 1).all()
    assert (found == place_by_steps(loads, gpus, slots)).all()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.permutations(range(8)))
def test_other_names_of_experts_change_no_cost(seed: int, names: list[int]) -> None:
    loads = np.random.default_rng(seed).poisson(1.0, (9, 1, 8)).astype(np.float64)
    found = place_by_steps(loads, 4, 8)
    renamed = np.argsort(names)[found]
    costs = [
        critical_cost(map_, each, 4, blocks_cost(9)).tolist()
        for map_, each in ((found, loads), (renamed, loads[:, :, names]))
    ]
    assert costs[0] == costs[1]


def test_noise_is_not_planned_for() -> None:
    """Chance alone decides which experts are active: no plan helps on steps held out of it."""
    random = np.random.default_rng(0)
    loads = (random.random((400, 1, 32)) < 0.3).astype(np.float64)
    seen, unseen = loads[::2], loads[1::2]
    cost = blocks_cost(200)
    plain = critical_cost(np.arange(32)[None], unseen, 4, cost).mean()
    planned = critical_cost(place_by_steps(seen, 4, 32), unseen, 4, cost).mean()
    assert planned == pytest.approx(plain, rel=0.04)
