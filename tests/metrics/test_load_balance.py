"""Measures of balance: definitions by hand, and the cases of a course's lab on expert loads."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsysmoe.metrics.routed_load.capacity import dropped, needed_factor
from nsysmoe.metrics.routed_load.expert_parallel import active_experts, step_cost, under_placement
from nsysmoe.metrics.routed_load.load_balance import (
    MEASURES,
    max_over_mean,
    sglang_balancedness,
    spread,
    vllm_balancedness,
)
from nsysmoe.metrics.routed_load.uniform_router import baseline, expected_cv, simulate, sweep
from nsysmoe.placement.loads import device_loads


def test_measures_by_hand() -> None:
    loads = np.array([6.0, 3.0, 0.0, 3.0])
    found = {name: float(measure(loads)) for name, measure in MEASURES.items()}
    assert found == pytest.approx(
        {
            "cv": math.sqrt((9 + 0 + 9 + 0) / 4) / 3,
            "max_over_mean": 2,
            "mean_over_max": 0.5,
            "excess_over_mean": 1,
            "entropy": (0.5 * math.log(2) + 2 * 0.25 * math.log(4)) / math.log(4),
            # Half of the mean absolute difference over all pairs, relative to the mean.
            "gini": (2 * (3 + 6 + 3 + 3 + 0 + 3)) / (2 * 16 * 3),
            "max_over_min": 2,
        }
    )


def test_one_expert_has_it_all() -> None:
    loads = np.array([0.0, 8.0, 0.0, 0.0])
    found = {name: float(measure(loads)) for name, measure in MEASURES.items()}
    assert found["entropy"] == 0
    assert found["gini"] == 0.75
    assert found["max_over_mean"] == 4
    assert found["cv"] == pytest.approx(math.sqrt(3))


def test_nothing_is_not_balanced() -> None:
    for measure in MEASURES.values():
        assert np.isnan(measure(np.zeros((2, 3)))).all()
    assert vllm_balancedness(np.zeros((2, 3))) is None
    assert sglang_balancedness(np.zeros((2, 3))) is None
    assert spread(np.array([np.nan])) == {"p50": None, "p95": None, "max": None}
    assert np.isnan(MEASURES["entropy"](np.ones((2, 1)))).all()


def test_engines_average_layers_differently() -> None:
    loads = np.array([[4.0, 0.0], [10.0, 10.0]])
    assert vllm_balancedness(loads) == (2 + 10) / (4 + 10)
    assert sglang_balancedness(loads) == (0.5 + 1) / 2


@given(st.lists(st.integers(0, 500), min_size=2, max_size=12), st.randoms(), st.integers(2, 9))
def test_names_and_units_change_nothing(loads: list[int], random: object, scale: int) -> None:
    shuffled = list(loads)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = np.array(loads, float), np.array(shuffled, float) * scale
    for measure in MEASURES.values():
        assert measure(one) == pytest.approx(measure(other), nan_ok=True)


# The lab: 8 experts, 60 % of 200 tokens' choices on one of them, k = 2.


def test_uniform_routing_is_nearly_balanced() -> None:
    loads = np.bincount(np.random.default_rng(0).integers(0, 8, 1600), minlength=8).astype(float)
    assert max_over_mean(loads) < 1.3
    assert max_over_mean(simulate(800, 2, 8)).max() < 1.3


def test_a_hot_expert_blows_up_imbalance() -> None:
    random = np.random.default_rng(0)
    chosen = np.where(random.random(1600) < 0.6, 3, random.integers(0, 8, 1600))
    hot = np.bincount(chosen, minlength=8).astype(float)
    even = np.full(8, 200.0)
    assert max_over_mean(hot) > 3
    alone = np.arange(8)[None]
    times = [step_cost(device_loads(alone, loads[None], 8)) for loads in (even, hot)]
    assert times[0]["mean"] == times[1]["mean"]
    assert times[0]["efficiency"] == 1
    assert (times[1]["critical"] or 0) > 2.5 * (times[0]["critical"] or 0)


def test_experts_on_one_device_add_up() -> None:
    loads = np.array([[5.0, 1.0, 4.0, 2.0]])
    dealt = np.array([[0, 2, 1, 3]])
    assert device_loads(dealt, loads, 2).tolist() == [[9, 3]]
    found = step_cost(device_loads(dealt, loads, 2))
    assert found == {"critical": 9, "mean": 6, "efficiency": 6 / 9, "wasted_share": 1 - 6 / 9}


def test_capacity_drops_only_the_overflow() -> None:
    # 128 choices over 8 experts, 84 of them on one: a fair share is 16.
    loads = np.array([84.0, 7, 7, 6, 6, 6, 6, 6])
    assert loads.sum() == 128
    found = dropped(loads, 1.0)
    assert (found["choices"], found["dropped"]) == (128, 68)
    assert found["overflow_ratio"] == 1 / 8
    assert needed_factor(loads) == 5.25
    assert dropped(loads, 5.25)["dropped"] == 0
    assert dropped(loads, 5.24)["dropped"] == 0
    assert dropped(loads, 5.1)["dropped"] == 2
    assert dropped(np.zeros(8), 1.0)["drop_ratio"] is None
    assert needed_factor(np.zeros(8)) is None


@given(st.lists(st.integers(0, 99), min_size=3, max_size=3), st.floats(0.5, 4))
def test_what_is_not_dropped_fits(loads: list[int], factor: float) -> None:
    found = dropped(np.array(loads, float), factor)
    capacity = math.ceil(factor * sum(loads) / 3 - 1e-9)
    assert found["dropped"] == sum(max(0, load - capacity) for load in loads)


def test_replicas_make_more_experts_active() -> None:
    loads = np.array([[[1.0, 2.0, 0.0, 5.0]]])
    plain = np.array([[0, 1, 2, 3]])
    assert active_experts(loads, plain, 2).tolist() == [[[2, 1]]]
    # The second replica of expert 0 has nothing to do: one choice goes to one replica.
    replicated = np.array([[0, 1, 3, 2, 3, 0]])
    assert active_experts(loads, replicated, 2).tolist() == [[[3, 1]]]
    found = under_placement(loads, plain, 2)
    assert found["active"] == 2
    assert found["critical"] == 5
    assert found["vllm_balancedness"] == 0.8


@pytest.mark.parametrize(("tokens", "top_k", "experts"), [(1, 2, 8), (37, 2, 8), (300, 8, 64)])
def test_simulated_variation_is_the_exact_one(tokens: int, top_k: int, experts: int) -> None:
    loads = simulate(tokens, top_k, experts, draws=400)
    assert (loads.sum(axis=1) == tokens * top_k).all()
    assert loads.max() <= tokens
    squared = float((loads.var(axis=1) / loads.mean(axis=1) ** 2).mean())
    assert math.sqrt(squared) == pytest.approx(expected_cv(tokens, top_k, experts), rel=0.03)


def test_large_batches_follow_the_same_law() -> None:
    loads = simulate(100_000, 8, 64, draws=400)
    cv = math.sqrt(float((loads.var(axis=1) / loads.mean(axis=1) ** 2).mean()))
    assert cv == pytest.approx(expected_cv(100_000, 8, 64), rel=0.03)
    assert loads.sum(axis=1) == pytest.approx(800_000)


def test_the_sweep_falls_with_the_root_of_the_batch() -> None:
    rows = sweep([4, 16, 64, 256, 1024, 4096], 2, 8)
    exact = [float(row["expected_cv"] or 0) for row in rows]
    assert [one / other for one, other in itertools.pairwise(exact)] == pytest.approx([2] * 5)
    seen = [float(row["max_over_mean"] or 0) - 1 for row in rows]
    assert all(1.6 < one / other < 2.5 for one, other in itertools.pairwise(seen))


def test_the_baseline_of_many_batches_lies_between_simulated_ones() -> None:
    sizes = np.arange(0, 200)
    found = baseline(sizes, 2, 8, max_over_mean)
    assert np.isnan(found[0])
    assert found[100] == pytest.approx(max_over_mean(simulate(100, 2, 8)).mean(), rel=0.03)
    assert found[1] == 4
    assert np.isnan(baseline([0], 2, 8, max_over_mean)).all()


def test_no_tokens_no_expectation() -> None:
    assert expected_cv(0, 2, 8) is None
    assert expected_cv(4, 9, 8) is None
    assert expected_cv(4, 8, 8) == 0
