"""Plans: DeepSeek's published maps, brute force on small cases, and what every plan must keep."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import PlacementError
from nsysmoe.placement.cluster import ALGORITHMS, Algorithm, Cluster
from nsysmoe.placement.exact import place_exactly
from nsysmoe.placement.loads import balancedness, device_loads, loads_without, replica_counts
from nsysmoe.placement.plan import place

if TYPE_CHECKING:
    from numpy.typing import NDArray

# DeepSeek's README example, with the maps that it prints.
PUBLISHED = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    dtype=np.float64,
)
PUBLISHED_MAPS = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
# FlashLB's: the exhaustive optimum is 590 / 3, EPLB reaches 232.
FLASHLB = np.array([[600, 560, 120, 120, 20, 10, 10, 10]], dtype=np.float64)


def highest(map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int) -> float:
    """Sum by hand, without the code under test."""
    counts = [list(map_).count(expert) for expert in range(len(loads))]
    size = len(map_) // gpus
    sums: list[float] = [
        sum(float(loads[e]) / counts[e] for e in map_[gpu * size : (gpu + 1) * size])
        for gpu in range(gpus)
    ]
    return max(sums)


def brute_force(loads: NDArray[np.float64], gpus: int, slots: int) -> float:
    """Try every map there is."""
    experts = range(len(loads))
    maps = {
        order
        for extra in product(experts, repeat=slots - len(loads))
        for order in permutations([*experts, *extra])
    }
    return min(highest(np.array(map_), loads, gpus) for map_ in maps)


def test_eplb_gives_the_published_maps() -> None:
    found = place(PUBLISHED, Cluster(gpus=8, slots=16, nodes=2, groups=4), "eplb")
    assert found.tolist() == PUBLISHED_MAPS
    assert balancedness(device_loads(found, PUBLISHED, 8)) == pytest.approx(
        [0.8277, 0.8050], abs=5e-5
    )


@pytest.mark.parametrize("algorithm", ["eplb", "lpt"])
def test_global_eplb_has_the_known_balancedness(algorithm: Algorithm) -> None:
    found = place(PUBLISHED, Cluster(gpus=8, slots=16), algorithm)
    assert balancedness(device_loads(found, PUBLISHED, 8)) == pytest.approx(
        [0.9323, 0.8401], abs=5e-5
    )


def test_groups_that_do_not_divide_are_placed_globally() -> None:
    loads = np.tile(PUBLISHED, 2)
    one = place(loads, Cluster(gpus=8, slots=32, nodes=4, groups=6), "eplb")
    assert one.tolist() == place(loads, Cluster(gpus=8, slots=32), "eplb").tolist()


def test_flashlbs_example() -> None:
    cluster = Cluster(gpus=8, slots=16)
    reached = {
        name: highest(place(FLASHLB, cluster, name)[0], FLASHLB[0], 8) for name in ALGORITHMS
    }
    assert reached["eplb"] == 232
    assert reached["exact"] == pytest.approx(590 / 3)
    assert reached["best"] <= 200


@pytest.mark.parametrize(
    ("loads", "gpus", "slots"),
    [
        ([5, 3, 2, 2], 2, 4),
        ([9, 1, 1, 1], 2, 6),
        ([7, 5], 2, 6),
        ([8, 4, 1], 3, 6),
        ([6, 6, 5, 4, 3, 1], 2, 6),
        ([10, 0, 0, 1], 2, 6),
        ([4, 4, 4], 1, 4),
    ],
)
def test_nothing_beats_brute_force_and_exact_reaches_it(
    loads: list[float], gpus: int, slots: int
) -> None:
    row = np.array(loads, dtype=np.float64)
    optimum = brute_force(row, gpus, slots)
    for algorithm in ALGORITHMS:
        reached = highest(place(row[None], Cluster(gpus, slots), algorithm)[0], row, gpus)
        assert reached >= optimum - 1e-9
        if algorithm in {"exact", "best"}:
            assert reached == pytest.approx(optimum)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=1, max_size=3),
    st.sampled_from([(2, 4), (2, 6), (4, 8), (1, 5)]),
    st.sampled_from(ALGORITHMS),
)
def test_every_plan_places_all_experts_and_keeps_their_load(
    rows: list[list[int]], shape: tuple[int, int], algorithm: Algorithm
) -> None:
    loads = np.array(rows, dtype=np.float64)
    gpus, slots = shape
    found = place(loads, Cluster(gpus, slots), algorithm)
    assert found.shape == (len(rows), slots)
    assert (replica_counts(found, 4) >= 1).all()
    assert device_loads(found, loads, gpus).sum(axis=1) == pytest.approx(loads.sum(axis=1))
    assert (found == place(loads, Cluster(gpus, slots), algorithm)).all()


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 10_000), min_size=16, max_size=16, unique=True),
    st.permutations(range(16)),
)
def test_other_names_of_experts_change_no_load(loads: list[int], names: list[int]) -> None:
    row = np.array([loads], dtype=np.float64)
    for algorithm in ("lpt", "eplb"):
        one, other = (
            sorted(device_loads(place(each, Cluster(4, 16), algorithm), each, 4)[0])
            for each in (row, row[:, names])
        )
        assert one == pytest.approx(other)


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from([(8, 40), (4, 36), (16, 32)]))
def test_best_is_never_worse_than_eplb(seed: int, shape: tuple[int, int]) -> None:
    gpus, slots = shape
    loads = np.random.default_rng(seed).lognormal(0, 1.5, (3, 32))
    for nodes, groups in ((1, 1), (2, 4)):
        cluster = Cluster(gpus, slots, nodes, groups)
        eplb, best = (
            device_loads(place(loads, cluster, name), loads, gpus).max(axis=1)
            for name in ("eplb", "best")
        )
        assert (best <= eplb * (1 + 1e-12)).all()


def test_hierarchical_plans_keep_groups_on_a_node() -> None:
    loads = np.random.default_rng(3).lognormal(0, 1, (4, 24))
    for algorithm in ("eplb", "best"):
        found = place(loads, Cluster(gpus=4, slots=32, nodes=2, groups=6), algorithm)
        for row in found:
            nodes = [set(part // 4) for part in row.reshape(2, 16)]
            assert nodes[0].isdisjoint(nodes[1])


def test_a_real_size_gets_better_than_eplb() -> None:
    loads = np.random.default_rng(1).lognormal(0, 1, (61, 256))
    cluster = Cluster(gpus=64, slots=320)
    eplb, best = (
        balancedness(device_loads(place(loads, cluster, name), loads, 64)).mean()
        for name in ("eplb", "best")
    )
    assert 1 - best < (1 - eplb) / 2


def test_round_robin_deals_and_contiguous_follows_vllm() -> None:
    loads = np.ones((1, 4))
    assert place(loads, Cluster(2, 4), "round-robin").tolist() == [[0, 2, 1, 3]]
    assert place(loads, Cluster(2, 6), "contiguous").tolist() == [[0, 1, 2, 3, 0, 1]]


def test_an_exact_plan_that_takes_too_long_says_so() -> None:
    loads = np.random.default_rng(0).lognormal(0, 1, 24)
    start = np.arange(32) % 24
    found, is_proven = place_exactly(loads, 8, 32, start, nodes=10)
    assert not is_proven
    assert found.shape == (32,)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        (Cluster(2, 3), "do not hold"),
        (Cluster(3, 8), "slots do not divide"),
        (Cluster(4, 8, nodes=3), "GPUs do not divide"),
        (Cluster(4, 8, nodes=2, groups=3), "experts do not divide"),
    ],
)
def test_what_does_not_divide_is_refused(cluster: Cluster, says: str) -> None:
    with pytest.raises(PlacementError, match=says):
        place(np.ones((1, 4)), cluster)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_loads_are_numbers(value: float) -> None:
    with pytest.raises(PlacementError, match="loads"):
        place(np.array([[1.0, value]]), Cluster(1, 2))


def test_maps_that_do_not_fit_are_refused() -> None:
    loads = np.ones((1, 3))
    for map_, says in (
        ([[0, 1, 1]], "expert 2 nowhere"),
        ([[0, 1, 3]], "expert 3"),
        ([[0, 1, -1]], "expert -1"),
        ([[0, 1, 2], [0, 1, 2]], "2 layers"),
    ):
        with pytest.raises(PlacementError, match=says):
            device_loads(np.array(map_), loads, 1)


def test_no_load_is_balanced() -> None:
    loads = np.zeros((2, 4))
    found = place(loads, Cluster(2, 6), "best")
    assert balancedness(device_loads(found, loads, 2)).tolist() == [1, 1]


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_device_against_counting_replicas_one_by_one(lost: int) -> None:
    random = np.random.default_rng(lost)
    loads = random.integers(0, 100, (3, 6)).astype(np.float64)
    map_ = place(loads, Cluster(4, 8), "eplb")
    homeless, left = loads_without(map_, loads, 4, lost)
    others = [device for device in range(4) if device != lost]
    for layer, expert in product(range(3), range(6)):
        homes = [slot // 2 for slot in range(8) if map_[layer, slot] == expert]
        assert homeless[layer, expert] == (not set(homes) - {lost})
    for layer, (place_, device) in product(range(3), enumerate(others)):
        expected = 0.0
        for slot in (2 * device, 2 * device + 1):
            expert = map_[layer, slot]
            replicas = sum(1 for one in range(8) if map_[layer, one] == expert and one // 2 != lost)
            expected += loads[layer, expert] / replicas
        assert left[layer, place_] == pytest.approx(expected)
