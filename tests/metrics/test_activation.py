"""Popularity, agreement of phases, pairs and steps: against plain Python and known routers."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsysmoe.errors import MissingDataError
from nsysmoe.metrics.routed_load.activation import (
    js_distance,
    pearson,
    shifts,
    shifts_by_chance,
    spearman,
    top_overlap,
)
from nsysmoe.metrics.routed_load.coactivation import (
    expected_pairs,
    expected_transitions,
    pair_counts,
    poisson_deviation,
    strength,
    strongest,
    transition_counts,
)
from nsysmoe.metrics.routed_load.token_sample import Routes, TokenSample
from nsysmoe.metrics.routed_load.unit_loads import UnitLoads


def js_oracle(p: list[float], q: list[float]) -> float:
    p, q = ([value / sum(side) for value in side] for side in (p, q))
    total = 0.0
    for one, other in ((p, q), (q, p)):
        total += sum(a * math.log2(2 * a / (a + b)) for a, b in zip(one, other, strict=True) if a)
    return math.sqrt(max(total / 2, 0))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=9))
def test_the_distance_is_the_formulas(loads: list[tuple[int, int]]) -> None:
    one, other = ([float(pair[side]) for pair in loads] for side in (0, 1))
    found = float(js_distance(np.array(one), np.array(other)))
    if not sum(one) or not sum(other):
        assert math.isnan(found)
    else:
        assert found == pytest.approx(js_oracle(one, other), abs=1e-7)


def test_distances_of_nothing_in_common_and_of_equals() -> None:
    loads = np.array([[[1.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 5.0, 1.0]], [[2.0, 6.0, 0.0, 0.0]]])
    assert shifts(loads)[:, 0].tolist() == [1.0, 0.0, 1.0]


def test_correlations_are_those_of_the_books() -> None:
    one, other = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 40])
    assert float(spearman(one, other)) == pytest.approx(1)
    assert float(pearson(one, other)) == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert math.isnan(pearson(one, np.ones(4)))
    # Equal loads share the mean of their ranks.
    tied = np.array([5.0, 5, 1, 9])
    by_hand = np.corrcoef([1, 2, 3, 4], [2.5, 2.5, 1, 4])[0, 1]
    assert float(spearman(one, tied)) == pytest.approx(by_hand)


def test_overlap_counts_the_top_and_no_idle_expert() -> None:
    one, other = np.array([9.0, 8, 1, 0]), np.array([7.0, 0, 9, 0])
    assert float(top_overlap(one, other, 2)) == 0.5
    assert float(top_overlap(one, other, 4)) == 0.5
    assert math.isnan(top_overlap(one, np.zeros(4), 2))


def test_requests_dealt_at_random_tell_domains_from_requests() -> None:
    random = np.random.default_rng(0)
    group = np.repeat([0, 1], 20)
    # Each request has experts of its own; domains do not differ, or do.
    own = random.dirichlet(np.ones(8), (40, 1))
    same = random.multinomial(200, own[:, 0])[:, None].astype(float)
    moved = same.copy()
    moved[group == 1, :, 0] += 300
    for units, is_clear in ((same, False), (moved, True)):
        observed = float(shifts(np.stack([units[group == n].sum(axis=0) for n in (0, 1)])).mean())
        dealt = shifts_by_chance(units, group, draws=100)[:, 0]
        assert (observed > np.percentile(dealt, 99)) == is_clear


def routes_of(choices: np.ndarray) -> Routes:
    """Return routes of an array [tokens, layers, k]."""
    tokens, layers, top_k = choices.shape
    return Routes(
        np.repeat(np.arange(tokens, dtype=np.uint64), layers),
        np.tile(np.arange(layers), tokens),
        choices.reshape(-1, top_k).astype(np.int64),
        tuple(range(layers)),
        1,
        0,
    )


def drawn(weights: np.ndarray, tokens: int, top_k: int, seed: int = 0) -> np.ndarray:
    """Draw different experts, one after the other by weight (Gumbel); shape [tokens, k]."""
    noise = np.random.default_rng(seed).gumbel(size=(tokens, len(weights)))
    return np.argsort(-(np.log(weights) + noise), axis=1)[:, :top_k]


def test_pairs_and_steps_are_counted_one_by_one() -> None:
    choices = np.random.default_rng(1).integers(0, 5, (40, 3, 3))
    routes = routes_of(choices)
    pairs, steps = np.zeros((3, 5, 5)), np.zeros((2, 5, 5))
    for token in choices:
        for layer, route in enumerate(token):
            for one, other in combinations(route, 2):
                if one != other:
                    pairs[layer, one, other] += 1
                    pairs[layer, other, one] += 1
        for layer in range(2):
            for one in token[layer]:
                for other in token[layer + 1]:
                    steps[layer, one, other] += 1
    assert (pair_counts(routes, 5) == pairs).all()
    assert (transition_counts(routes, 5) == steps).all()


@given(st.integers(2, 7), st.integers(0, 10**6))
def test_expected_pairs_keep_the_popularity_of_experts(experts: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = np.triu(random.integers(0, 40, (2, experts, experts)), 1).astype(float)
    half[1, 0] *= 50
    pairs = half + half.transpose(0, 2, 1)
    found = expected_pairs(pairs)
    assert found.sum(axis=-1) == pytest.approx(pairs.sum(axis=-1), rel=1e-6, abs=1e-6)
    assert (found == found.transpose(0, 2, 1)).all()
    assert (found >= 0).all()


def test_an_even_router_has_no_favourite_pairs() -> None:
    routes = routes_of(drawn(np.ones(8), 40_000, 2)[:, None])
    pairs = pair_counts(routes, 8)
    # Plain products of popularity would be wrong by (k - 1) E / (k (E - 1)) = 4 / 7.
    expected = expected_pairs(pairs)[0]
    assert expected[0, 1] == pytest.approx(2 * 40_000 / (8 * 7), rel=0.03)
    far, chance = strength(pairs, expected_pairs(pairs))
    assert far[0] < 1.5 * chance[0]


def test_popular_experts_are_no_favourite_pair() -> None:
    # Each token draws two by weight without an eye for the other: popular ones meet often.
    routes = routes_of(drawn(np.array([8.0, 4, 2, 1, 1, 1, 1, 1]), 40_000, 2)[:, None])
    pairs = pair_counts(routes, 8)
    far, _ = strength(pairs, expected_pairs(pairs))
    assert far[0] < 0.03


def test_experts_that_go_together_are_found() -> None:
    one = drawn(np.ones(16), 4000, 2, seed=1)
    one[:400] = [3, 11]
    two = drawn(np.ones(16), 4000, 2, seed=2)
    follows = (one == 3).any(axis=1)
    two[follows, 0] = 9
    routes = routes_of(np.stack([one, two], axis=1))
    pairs, steps = pair_counts(routes, 16), transition_counts(routes, 16)
    best = strongest(pairs, expected_pairs(pairs), 2)
    assert [(row["place"], row["one"], row["other"]) for row in best] == [(0, 3, 11), (0, 11, 3)]
    assert best[0]["lift"] > 2
    then = strongest(steps, expected_transitions(steps), 1)[0]
    assert (then["one"], then["other"]) == (3, 9)
    assert then["tokens"] == steps[0, 3, 9] >= follows.sum()


def test_independent_layers_are_within_chance() -> None:
    layers = [drawn(np.arange(1.0, 17), 4000, 2, seed=seed) for seed in (1, 2)]
    steps = transition_counts(routes_of(np.stack(layers, axis=1)), 16)
    far, chance = strength(steps, expected_transitions(steps))
    assert far[0] < 1.2 * chance[0]
    assert np.isnan(strength(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)))[0]).all()


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0, 4.7, 19.99, 20.0, 55.5])
def test_the_deviation_of_poisson_counts(mean: float) -> None:
    chances = [
        math.exp(-mean + (n * math.log(mean) if mean else 0) - math.lgamma(n + 1)) if mean or not n
        else 0 for n in range(400)
    ]  # fmt: skip
    summed = sum(abs(n - mean) * chance for n, chance in enumerate(chances))
    assert float(poisson_deviation(np.array(mean))) == pytest.approx(summed, rel=5e-3)


def log_of(choices: np.ndarray, request: list[str], step: int | None = None) -> pl.DataFrame:
    """Return rows of an array [tokens, layers, k]."""
    index = np.indices(choices.shape).reshape(3, -1)
    return pl.DataFrame(
        {
            "run": "a",
            "request": [request[token] for token in index[0]],
            "step": pl.Series([step] * choices.size, dtype=pl.Int64),
            "token": index[0],
            "layer": 3 + 2 * index[1],
            "k": index[2],
            "expert": choices.reshape(-1),
            "phase": ["prefill" if token % 2 else "decode" for token in index[0]],
        }
    )


def test_a_sample_of_tokens_keeps_their_whole_routes() -> None:
    choices = np.random.default_rng(0).integers(0, 9, (600, 4, 2))
    log = log_of(choices, ["r"] * 600).sample(fraction=1, shuffle=True, seed=1)
    whole, thin = TokenSample(), TokenSample(largest=1500)
    for batch in log.iter_slices(500):
        whole.add(batch)
        thin.add(batch)
    found = whole.routes()
    assert (found.every, found.odd, found.layers) == (1, 0, (3, 5, 7, 9))
    by_token = {tuple(map(tuple, route)) for route in found.experts.reshape(600, 4, 2).tolist()}
    assert by_token == {tuple(map(tuple, route)) for route in choices.tolist()}
    assert (found.layer.reshape(600, 4) == np.arange(4)).all()
    fewer = thin.routes()
    assert fewer.every in {4, 8}
    assert 600 / fewer.every * 0.5 < len(fewer.experts) / 4 < 600 / fewer.every * 1.5


def test_tokens_that_a_log_numbers_anew_are_others() -> None:
    choices = np.random.default_rng(0).integers(0, 9, (50, 3, 2))
    log = log_of(choices, ["r"] * 50)
    again = log.filter(pl.col("token") < 5).with_columns(expert=8 - pl.col("expert"))
    sample = TokenSample()
    for batch in (log, again):
        sample.add(batch)
    found = sample.routes()
    assert (len(found.experts), found.odd) == (55 * 3, 0)
    routes = {tuple(map(tuple, route)) for route in found.experts.reshape(55, 3, 2).tolist()}
    both = np.concatenate([choices, 8 - choices[:5]])
    assert routes == {tuple(map(tuple, route)) for route in both.tolist()}


def test_routes_that_are_cut_are_left_out() -> None:
    choices = np.random.default_rng(0).integers(0, 9, (50, 1, 2))
    log = log_of(choices, ["r"] * 50)
    sample = TokenSample()
    sample.add(log.filter((pl.col("token") > 4) | (pl.col("k") == 0)))
    found = sample.routes()
    assert (len(found.experts), found.odd) == (45, 5)
    assert len(TokenSample().routes().experts) == 0


def test_loads_of_units_are_counts_of_a_group() -> None:
    choices = np.random.default_rng(0).integers(0, 6, (40, 2, 2))
    names = [f"r{token // 4}" for token in range(40)]
    log = log_of(choices, names)
    loads = UnitLoads(("phase",), 3)
    for batch in log.iter_slices(17):
        loads.add(batch)
    found = loads.loads()
    assert loads.layers == [3, 5]
    assert found.shape[:3] == (2, 6, 2)
    for place, (phase,) in enumerate(loads.groups):
        for request in range(10):
            unit = request if request < 3 else 3 + request % 3
            kept = [f"r{n}" for n in range(10) if (n if n < 3 else 3 + n % 3) == unit]
            part = log.filter(pl.col("phase") == phase, pl.col("request").is_in(kept), layer=5)
            counts = np.bincount(part["expert"].to_numpy(), minlength=6)
            assert (found[place, unit, 1] == counts[: found.shape[3]]).all()


def test_more_groups_than_anyone_can_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(np.zeros((80, 1, 1), dtype=int), ["r"] * 80)
    loads = UnitLoads(("token",), 4)
    with pytest.raises(MissingDataError, match="more than 64 groups"):
        loads.add(log)
    monkeypatch.setattr("nsysmoe.metrics.routed_load.unit_loads._LARGEST_CELLS", 10)
    with pytest.raises(MissingDataError, match="more than can be held"):
        UnitLoads((), 4).add(log.with_columns(expert=pl.lit(60)))
