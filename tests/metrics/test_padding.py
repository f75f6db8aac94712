"""Rerouting of padding: against a greedy oracle, and the slides' case by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsysmoe.metrics.routed_load.load_balance import variation
from nsysmoe.metrics.routed_load.padding import (
    dealt,
    expert_counts,
    filled,
    formed,
    padding_of,
    reroute,
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Choices of different experts, which tokens are padding, and the number of experts."""
    experts = draw(st.integers(1, 7))
    top_k = draw(st.integers(1, experts))
    tokens = draw(st.integers(1, 24))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    chosen = np.array([random.permutation(experts)[:top_k] for _ in range(tokens)])
    return chosen, random.random(tokens) < draw(st.floats(0, 1)), experts


@given(layers())
def test_padding_goes_one_by_one_to_the_least_loaded(
    layer: tuple[np.ndarray, np.ndarray, int],
) -> None:
    chosen, is_padding, experts = layer
    moved = reroute(chosen, is_padding, experts)
    assert (moved[~is_padding] == chosen[~is_padding]).all()
    assert all(len(set(row)) == chosen.shape[1] for row in moved.tolist())
    loads, taken = expert_counts(chosen[~is_padding], experts), [0] * experts
    for _ in range(int(is_padding.sum()) * chosen.shape[1]):
        free = [expert for expert in range(experts) if taken[expert] < is_padding.sum()]
        least = min(free, key=lambda expert: (loads[expert], expert))
        loads[least] += 1
        taken[least] += 1
    assert sorted(expert_counts(moved, experts)) == sorted(loads)
    assert (filled(expert_counts(chosen[~is_padding], experts), is_padding.sum(),
                   chosen.shape[1]) == expert_counts(moved[is_padding], experts)).all()  # fmt: skip


def test_padding_of_two_experts_is_spread_over_six() -> None:
    # Real tokens: 2, 1, 3, 2, 1, 3 choices; all six padding tokens sit on experts 1 and 4.
    real = np.array([[0, 2], [0, 2], [1, 3], [2, 5], [3, 5], [4, 5]])
    padding = np.array([[1, 4]] * 6)
    moved = reroute(np.concatenate([real, padding]), np.arange(12) >= 6, 6)
    assert expert_counts(real, 6).tolist() == [2, 1, 3, 2, 1, 3]
    assert expert_counts(moved, 6).tolist() == [4] * 6
    assert moved.dtype == real.dtype


def test_little_padding_fills_the_emptiest_and_brings_them_toward_the_mean() -> None:
    real = np.array([0, 9, 9, 2])
    assert filled(real, np.array(3), 1).tolist() == [3, 0, 0, 0]
    # No expert takes more choices than there are padding tokens: each needs two different ones.
    assert filled(real, np.array(3), 2).tolist() == [3, 0, 0, 3]
    assert filled(real, np.array(0), 2).tolist() == [0, 0, 0, 0]


def test_many_layers_at_once_are_each_as_if_alone() -> None:
    random = np.random.default_rng(0)
    real = random.integers(0, 90, (5, 3, 16))
    padding = random.integers(0, 200, (5, 3))
    whole = filled(real, padding, 4)
    assert (whole.sum(axis=-1) == 4 * padding).all()
    for batch in range(5):
        for layer in range(3):
            alone = filled(real[batch, layer], padding[batch, layer], 4)
            assert (whole[batch, layer] == alone).all()
    before = real + padding[..., None] * (np.arange(16) < 4)
    assert (
        variation((real + whole).astype(float)) <= variation(before.astype(float)) + 1e-12
    ).all()


def test_more_experts_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="9 of 8 experts"):
        filled(np.zeros(8, dtype=int), np.array(1), 9)
    assert dealt(np.zeros(4, dtype=np.int64), 2).shape == (0, 2)


def test_sorting_leaves_less_padding_in_batches_of_the_same_requests() -> None:
    lengths = np.array([5, 1, 9, 2, 7, 3])
    mixed = formed(lengths, 2, 3, is_sorted=False)
    even = formed(lengths, 2, 3, is_sorted=True)
    assert sorted(mixed.reshape(-1)) == sorted(even.reshape(-1)) == list(range(6))
    assert padding_of(lengths, even).tolist() == [2 - 1, 5 - 3, 9 - 7]
    assert padding_of(lengths, even).sum() <= padding_of(lengths, mixed).sum()
    # More than there are: all of them twice, then some again.
    counts = np.bincount(formed(lengths, 5, 3, is_sorted=False).reshape(-1), minlength=6)
    assert sorted(counts.tolist()) == [2, 2, 2, 3, 3, 3]
    assert (formed(lengths, 2, 3, is_sorted=False) == mixed).all()


def test_a_model_can_use_it_with_numpy_alone() -> None:
    code = (
        "import sys, nsysmoe.metrics.routed_load.padding; "
        "print(sorted({'polars', 'pyarrow', 'plotly', 'click'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_tensors_are_rerouted_to_the_same_experts() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers are not installed")
    from nsysmoe.model import reroute as of_tensors

    random = np.random.default_rng(0)
    for experts, top_k, tokens, share in ((8, 2, 50, 0.5), (5, 5, 9, 0.3), (16, 4, 90, 0.9),
                                          (3, 1, 7, 0.0), (4, 2, 6, 1.0)):  # fmt: skip
        chosen = np.array([random.permutation(experts)[:top_k] for _ in range(tokens)])
        is_padding = random.random(tokens) < share
        rows = of_tensors.rows_of(torch.tensor(~is_padding))
        found = of_tensors.reroute(torch.tensor(chosen), rows, experts)
        assert found.tolist() == reroute(chosen, is_padding, experts).tolist()
