"""Costs of routing: recovered from durations that were made with known ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.metrics.kernel_time.roofline import by_limit, ridge_rows, roofline
from nsysmoe.metrics.kernel_time.tiles import (
    Padding,
    captured_rows,
    default_rows,
    gathered_rows,
    grids_agree,
    infer_rows,
    row_blocks,
)
from nsysmoe.metrics.routed_load.replicas import break_even, phase_costs, tax
from nsysmoe.metrics.routed_load.routing_cost import (
    critical,
    fit_costs,
    predict,
    rank_work,
    score,
    whole_cells,
)

A, B, C = 9_000.0, 30_000.0, 450.0


def work(seed: int, launches: int = 200, noise: float = 0.0, **fixed: object) -> pl.DataFrame:
    """Return launches of two ranks whose durations follow A, B and C."""
    random = np.random.default_rng(seed)
    active = random.integers(1, 5, launches)
    padded = active * 16 + 16 * random.integers(0, 3, launches)
    duration = A + B * active + C * padded + random.normal(0, noise, launches)
    columns = {
        "gemm": "w13", "phase": "decode", "block_m": 16, "step": np.arange(launches) // 8,
        "ordinal": np.arange(launches) // 2, "rank": np.arange(launches) % 2,
        "active": active, "padded_rows": padded, "rows": random.integers(active, padded + 1),
        "dur_ns": np.round(duration).astype(int), **fixed,
    }  # fmt: skip
    return pl.DataFrame(columns)


def test_work_of_a_rank_is_counted_by_hand() -> None:
    counts = pl.DataFrame(
        {
            "step": [0, 0, 0, 0], "layer": [0, 0, 0, 1], "rank": [0, 0, 1, 0],
            "expert": [0, 1, 4, 0], "rows": [1, 17, 32, 5],
        }
    )  # fmt: skip
    launches = pl.DataFrame(
        {
            "kernel_id": [1, 2, 3, 4, 5], "step": 0, "layer": [0, 0, 1, 1, 0],
            "rank": [0, 1, 0, 1, 0], "block_m": [16, 16, 16, 16, 64],
        }
    )  # fmt: skip
    found = rank_work(counts, launches).select(
        "kernel_id", "rows", "active", "busiest_rows", "padded_rows"
    )
    assert found.rows() == [
        (1, 18, 2, 17, 16 + 32),
        (2, 32, 1, 32, 32),
        (3, 5, 1, 5, 16),
        (4, 0, 0, 0, 0),
        (5, 18, 2, 17, 128),
    ]


@pytest.mark.parametrize("noise", [0.0, 2_000.0])
def test_known_costs_are_found(noise: float) -> None:
    (row,) = fit_costs(work(1, 2_000, noise)).to_dicts()
    assert row["base_ns"] == pytest.approx(A, abs=2 + noise / 4)
    assert row["per_expert_ns"] == pytest.approx(B, rel=1e-4 + noise * 3e-6)
    assert row["per_row_ns"] == pytest.approx(C, rel=1e-4 + noise * 1e-5)
    assert row["spread_ns"] == pytest.approx(noise, rel=0.1, abs=1e-6)
    assert row["r2"] == pytest.approx(row["r2_held_out"], abs=0.002)
    assert row["r2"] > 0.99 > row["r2_tokens"]


def test_a_fit_is_the_best_without_negative_costs() -> None:
    """By a grid of non-negative costs, none of which fits better."""
    launches = work(2, 120).with_columns(dur_ns=300_000 - 7_000 * pl.col("active")
                                         + 500 * pl.col("padded_rows"))  # fmt: skip
    (row,) = fit_costs(launches).to_dicts()
    assert row["per_expert_ns"] is None
    measured = launches["dur_ns"].to_numpy()
    active, padded = launches["active"].to_numpy(), launches["padded_rows"].to_numpy()
    fitted = row["base_ns"] + row["per_row_ns"] * padded
    best = ((measured - fitted) ** 2).sum()
    for b in np.linspace(0, 20_000, 21):
        for c in np.linspace(0, 1_000, 41):
            rest = measured - b * active - c * padded
            assert ((rest - rest.mean()) ** 2).sum() >= best * (1 - 1e-9)


def test_what_does_not_vary_gets_no_cost() -> None:
    same = work(3).with_columns(pl.lit(4).alias("active"))
    (row,) = fit_costs(same.with_columns(dur_ns=1_000 + 10 * pl.col("padded_rows"))).to_dicts()
    assert row["per_expert_ns"] is None
    assert row["per_row_ns"] == pytest.approx(10)
    (flat,) = fit_costs(same.with_columns(pl.lit(64).alias("padded_rows"))).to_dicts()
    assert (flat["per_expert_ns"], flat["per_row_ns"]) == (None, None)
    (still,) = fit_costs(same.with_columns(pl.lit(5_000).alias("dur_ns"))).to_dicts()
    assert still["r2"] is None
    assert still["error_ratio"] == pytest.approx(0, abs=1e-9)


def test_few_launches_are_not_fitted_and_one_step_is_not_held_out() -> None:
    assert fit_costs(work(4, 7)).is_empty()
    (row,) = fit_costs(work(4, 40).with_columns(pl.lit(0).alias("step"))).to_dicts()
    assert row["r2_held_out"] is None


def test_predictions_of_other_launches_are_scored() -> None:
    costs = fit_costs(work(5))
    other = pl.concat([work(6, 80), work(7, 20, block_m=128).with_columns(pl.col("ordinal") + 40)])
    found = predict(costs, other)
    expected = A + B * other["active"] + C * other["padded_rows"]
    known = found.filter(pl.col("block_m") == 16)
    assert np.allclose(known["predicted_ns"], expected[:80], rtol=1e-4)
    assert found.filter(pl.col("block_m") == 128)["predicted_ns"].null_count() == 20
    (row,) = score(found).to_dicts()
    assert (row["launches"], row["unpredicted"]) == (80, 20)
    assert row["r2"] == pytest.approx(1, abs=1e-6)
    assert row["bias_ratio"] == pytest.approx(0, abs=1e-4)
    assert whole_cells(found, "predicted_ns").height == 80
    (none,) = score(found.filter(pl.col("block_m") == 128)).to_dicts()
    assert none["r2"] is none["bias_ratio"] is none["error_ratio"] is None


def test_a_bad_prediction_scores_below_the_mean() -> None:
    launches = work(8).with_columns(predicted_ns=pl.col("dur_ns").reverse().cast(pl.Float64))
    (row,) = score(launches).to_dicts()
    assert row["r2"] < 0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000)), min_size=1, max_size=30))
def test_slowest_ranks_by_brute_force(rows: list[tuple[int, int]]) -> None:
    cells: dict[int, list[int]] = {}
    for cell, value in rows:
        cells.setdefault(cell, []).append(value)
    launches = pl.DataFrame(rows, schema=["ordinal", "dur_ns"], orient="row")
    found = critical(launches, "dur_ns")
    slowest = sum(max(values) for values in cells.values())
    mean = sum(sum(values) / len(values) for values in cells.values())
    assert found["critical_ns"] == slowest
    assert found["mean_ns"] == pytest.approx(mean)
    assert found["excess_ns"] == pytest.approx(slowest - mean)


@pytest.mark.parametrize("apart", [0.0, 1.0, 30.0])
def test_the_slowest_of_two_noisy_ranks(apart: float) -> None:
    """Clark 1961: the expected maximum of two normal values in closed form."""
    count, deviation = 2_000, 10.0
    launches = pl.DataFrame(
        {
            "ordinal": np.repeat(np.arange(count), 2),
            "predicted_ns": np.tile([100.0, 100.0 + apart], count),
            "spread_ns": deviation,
        }
    )
    theta = deviation * math.sqrt(2)
    alpha = apart / theta
    cdf = (1 + math.erf(alpha / math.sqrt(2))) / 2
    density = math.exp(-(alpha**2) / 2) / math.sqrt(2 * math.pi)
    expected = (100 + apart) * cdf + 100 * (1 - cdf) + theta * density
    found = critical(launches, "predicted_ns", "spread_ns")
    assert found["critical_ns"] / count == pytest.approx(expected, abs=0.2)
    assert found["mean_ns"] / count == pytest.approx(100 + apart / 2)
    assert found == critical(launches, "predicted_ns", "spread_ns")


def test_nothing_has_no_slowest_rank() -> None:
    empty = work(1).clear()
    assert critical(empty, "dur_ns") == {"critical_ns": 0.0, "mean_ns": 0.0, "excess_ns": 0.0}


def test_tax_and_gain_by_hand() -> None:
    """Two cells of decode, one of prefill; replicas wake one more expert, and halve rows."""
    costs = pl.DataFrame(
        {
            "gemm": ["w13", "w13"], "phase": ["decode", "prefill"], "block_m": [16, 128],
            "per_expert_ns": [10.0, None], "per_row_ns": [1.0, 2.0],
        }
    )  # fmt: skip
    launches = pl.DataFrame(
        {
            "gemm": "w13", "phase": ["decode"] * 4 + ["prefill"] * 2,
            "block_m": [16] * 4 + [128] * 2, "ordinal": [0, 0, 1, 1, 2, 2],
            "active": [3, 4, 4, 2, 4, 4], "padded_rows": [48, 64, 64, 32, 512, 1024],
        }
    ).join(costs, on=["gemm", "phase", "block_m"])  # fmt: skip
    priced = launches.with_columns(
        predicted_ns=5.0
        + pl.col("per_expert_ns").fill_null(0) * pl.col("active")
        + pl.col("per_row_ns") * pl.col("padded_rows")
    ).drop("per_expert_ns", "per_row_ns")
    moved = priced.with_columns(
        active=pl.when(pl.col("phase") == "decode").then(5).otherwise(5),
        padded_rows=pl.when(pl.col("phase") == "decode").then(80).otherwise(768),
    ).with_columns(
        predicted_ns=pl.when(pl.col("phase") == "decode").then(5.0 + 50 + 80).otherwise(5.0 + 1536)
    )
    before, after = phase_costs(priced, costs), phase_costs(moved, costs)
    assert before.filter(phase="decode")["active"].item() == 4
    changes = tax(before, after, {"decode": 4, "prefill": 1000})
    decode, prefill = changes
    assert decode["change_ns"] == pytest.approx(2 * (10 + 16) / 4)
    assert decode["experts_ns"] == pytest.approx(2 * 10 / 4)
    assert decode["rows_ns"] == pytest.approx(2 * 16 / 4)
    assert (decode["active_before"], decode["active_after"]) == (4, 5)
    assert prefill["change_ns"] == pytest.approx(2.0 * (768 - 1024) / 1000)
    # 13 ns a generated token against 0.512 ns a prompt token.
    assert break_even(changes) == pytest.approx(13 / 0.512)
    assert break_even([decode]) is None
    assert break_even([decode, {**prefill, "change_ns": 1.0}]) is None
    assert tax(before, after, {"decode": 4}) == [decode]


def test_a_roofline_by_hand() -> None:
    launches = pl.DataFrame(
        {
            "phase": ["decode", "prefill"], "gemm": ["w2", "w13"], "active": [2, 2],
            "rows": [4, 4000], "dur_ns": [1000, 100_000],
        }
    )  # fmt: skip
    found = roofline(
        launches, weights={"w13": 2000, "w2": 1000}, weight_bytes=2, bytes_per_s=8e9,
        flops_per_s=200e9,
    )  # fmt: skip
    decode, prefill = found.to_dicts()
    assert (decode["read_bytes"], decode["flops"]) == (4000, 8000)
    assert (decode["memory_ns"], decode["compute_ns"]) == pytest.approx((500, 40))
    assert decode["is_bandwidth_bound"]
    assert (prefill["memory_ns"], prefill["compute_ns"]) == pytest.approx((1000, 80_000))
    assert not prefill["is_bandwidth_bound"]
    rows = by_limit(found).to_dicts()
    assert [row["limit_ratio"] for row in rows] == pytest.approx([0.5, 0.8])
    assert rows[0]["bytes_per_s"] == pytest.approx(4e9)
    assert rows[1]["flops_per_s"] == pytest.approx(160e9)
    assert [row["bandwidth_bound_ratio"] for row in rows] == [1, 0]
    # At the ridge both take as long: 25 rows of 2 x 1000 operations, 2,000 bytes.
    ridge = ridge_rows(2, 8e9, 200e9)
    assert ridge == 25
    assert ridge * 2 * 1000 / 200e9 == pytest.approx(2000 / 8e9)


# (product, tokens with padding, blocks) of vLLM 0.26 with Mixtral's sizes on H100s, as traced.
TRACED = {
    ("w13", 32, 5376): 16,
    ("w2", 32, 768): 16,
    ("w13", 16, 4480): 16,
    ("w13", 2, 1792): 16,
    ("w13", 512, 5376): 64,
    ("w2", 512, 768): 64,
    ("w13", 770, 4480): 128,
    ("w2", 770, 640): 128,
    ("w13", 4096, 16128): 128,
    ("w13", 2841, 11872): 128,
}


@pytest.mark.parametrize("widths", [None, {"w13": 28672, "w2": 4096}])
def test_blocks_of_real_launches(widths: dict[str, int] | None) -> None:
    assert infer_rows(TRACED, top_k=2, experts=8, widths=widths) == TRACED


# The same of two data-parallel engines: the tokens of one, those of both with padding, blocks.
MET = {
    ("w13", 1, 2, 1792), ("w13", 15, 32, 5376), ("w13", 256, 512, 5376),
    ("w13", 3841, 7682, 28672), ("w2", 1, 2, 256), ("w2", 16, 32, 768), ("w2", 256, 512, 768),
    ("w2", 3841, 7682, 4096),
}  # fmt: skip


@pytest.mark.parametrize("widths", [None, {"w13": 28672, "w2": 4096}])
def test_grids_are_those_of_the_tokens_of_all_engines(widths: dict[str, int] | None) -> None:
    told: dict[str, Any] = {"top_k": 2, "experts": 8, "widths": widths}
    assert grids_agree([(gemm, both, blocks) for gemm, _, both, blocks in MET], **told)
    assert not grids_agree([(gemm, one, blocks) for gemm, one, _, blocks in MET], **told)


@pytest.mark.parametrize(
    ("tokens", "how", "rows"),
    [
        # Two engines with 15 and 3 tokens: to 16 each in a graph, as they are without.
        ([15, 3], {"engines": 2, "in_graph": True}, 32),
        ([15, 3], {"engines": 2, "in_graph": False}, 18),
        ([15, 3], {"engines": 2, "in_graph": False, "padding": Padding(is_even=True)}, 30),
        # Two H100s: an engine of 3 tokens had padded to 4 when it met one of 257.
        ([257, 3], {"engines": 2, "in_graph": False, "padding": Padding(captured_to=64)}, 261),
        ([65, 33], {"engines": 2, "in_graph": False, "padding": Padding(captured_to=64)}, 105),
        # Two more without a request feed a token each.
        ([15, 3], {"engines": 4, "in_graph": False}, 20),
        ([15, 3], {"engines": 4, "in_graph": True}, 64),
        # Each engine's tokens are shared out among four ranks.
        ([15, 3], {"engines": 2, "tensor": 4, "in_graph": False}, 20),
        ([1, 1], {"engines": 2, "tensor": 4, "in_graph": True}, 8),
        # One engine keeps all of its tokens on each rank.
        ([15], {"tensor": 4, "in_graph": False}, 15),
        ([15], {"tensor": 4, "in_graph": True}, 16),
    ],
)
def test_rows_of_a_pass(tokens: list[int], how: dict[str, Any], rows: int) -> None:
    assert sum(gathered_rows(tokens, **how)) == rows


def test_a_grid_that_no_block_size_gives() -> None:
    launch = ("w13", 32, 5377)
    assert infer_rows([launch], top_k=2, experts=8) == {launch: None}
    wrong = {"w13": 28_000, "w2": 4096}
    assert infer_rows([("w13", 32, 5376)], top_k=2, experts=8, widths=wrong) == {
        ("w13", 32, 5376): None
    }


@settings(max_examples=80)
@given(
    tokens=st.lists(st.integers(1, 9000), min_size=1, max_size=8, unique=True),
    experts=st.sampled_from([8, 16, 64, 128]),
    top_k=st.sampled_from([1, 2, 4, 8]),
    width=st.sampled_from([1536, 4096, 28672]),
)
def test_blocks_of_the_engines_default_are_read_back(
    tokens: list[int], experts: int, top_k: int, width: int
) -> None:
    expected = {}
    for count in tokens:
        rows, columns = default_rows(count), 64 if count <= 64 else 128
        # By counting, not by the formula: the worst case gives each expert a row too many.
        choices = count * top_k
        buffer = min(choices + experts * (rows - 1), choices * rows)
        blocks = len(range(0, buffer, rows)) * len(range(0, width, columns))
        assert len(range(0, buffer, rows)) == row_blocks(count, top_k, experts, rows)
        expected["w13", count, blocks] = rows
    found = infer_rows(expected, top_k=top_k, experts=experts, widths={"w13": width})
    assert found == expected


@pytest.mark.parametrize(
    ("tokens", "padded"),
    [(1, 1), (2, 2), (3, 4), (5, 8), (12, 16), (27, 32), (32, 32), (250, 256), (257, 272)],
)
def test_sizes_of_captured_graphs(tokens: int, padded: int) -> None:
    assert captured_rows(tokens) == padded
