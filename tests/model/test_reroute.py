"""Rerouting of choices, against one choice after another in plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.oracle import counts_after

torch = pytest.importorskip("torch", reason="torch is in nsysmoe[model]")
pytest.importorskip("transformers", reason="transformers is in nsysmoe[model]")

from nsysmoe.model.reroute import dealt, filled, reroute, rows_of  # noqa: E402 - after the skip

torch.set_num_threads(1)


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int]:
    """Choices of a layer, a mask of some shape, and the number of experts."""
    count = draw(st.integers(1, 9))
    top_k = draw(st.integers(1, count))
    prompts, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    mask = draw(
        st.lists(
            st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens),
            min_size=prompts,
            max_size=prompts,
        )
    )
    favourite = draw(st.permutations(range(count)))
    row = st.one_of(
        st.just(favourite[:top_k]), st.permutations(range(count)).map(lambda p: p[:top_k])
    )
    experts = draw(st.lists(row, min_size=prompts * tokens, max_size=prompts * tokens))
    return [list(each) for each in experts], mask, count


@given(layers())
@settings(max_examples=150)
def test_counts_are_those_of_one_choice_after_another(
    case: tuple[list[list[int]], list[list[int]], int],
) -> None:
    experts, mask, count = case
    is_real = [bool(value) for row in mask for value in row]
    moved = reroute(torch.tensor(experts), rows_of(torch.tensor(mask)), count).tolist()
    real, padding = counts_after(experts, is_real, count)
    found = [0] * count
    for row, before, stays in zip(moved, experts, is_real, strict=True):
        # No real token is ever moved, and no token gets an expert twice.
        assert not stays or row == before
        assert len(set(row)) == len(row)
        for expert in () if stays else row:
            found[expert] += 1
    assert found == padding
    assert sum(real) + sum(found) == len(experts) * len(experts[0])


@given(layers())
@settings(max_examples=60)
def test_no_other_choice_of_padding_is_more_even(
    case: tuple[list[list[int]], list[list[int]], int],
) -> None:
    experts, mask, count = case
    rows = rows_of(torch.tensor(mask))

    def squares(choices: list[list[int]]) -> int:
        flat = [expert for row in choices for expert in row]
        return sum(flat.count(expert) ** 2 for expert in range(count))

    moved = reroute(torch.tensor(experts), rows, count).tolist()
    assert squares(moved) <= squares(experts)


def test_padding_fills_the_least_used_experts_to_one_level() -> None:
    # 12 choices onto 5, 0, 1, 9, 1: ten bring the lowest three to 4, the first two get one more.
    assert filled(torch.tensor([5, 0, 1, 9, 1]), 6, 2).tolist() == [0, 5, 4, 0, 3]
    assert filled(torch.tensor([5, 0, 1, 9, 1]), 7, 2).tolist() == [1, 5, 4, 0, 4]
    # An expert cannot have a token twice.
    assert filled(torch.tensor([0, 100, 100]), 3, 2).tolist() == [3, 2, 1]


def test_choices_are_dealt_without_repeats() -> None:
    found = dealt(torch.tensor([3, 2, 1]), 3, 2)
    assert found.shape == (3, 2)
    assert all(len(set(row)) == 2 for row in found.tolist())


def test_a_batch_without_padding_is_the_same_object() -> None:
    experts = torch.tensor([[0, 1], [2, 3]])
    assert reroute(experts, rows_of(torch.ones(1, 2)), 4) is experts


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_the_type_of_the_choices_is_kept(dtype: str) -> None:
    experts = torch.zeros((4, 1), dtype=getattr(torch, dtype))
    moved = reroute(experts, rows_of(torch.tensor([[1, 0, 0, 0]])), 4)
    assert moved.dtype == experts.dtype
    assert sorted(moved.flatten().tolist()) == [0, 1, 2, 3]


def test_a_level_far_above_every_count() -> None:
    real = torch.tensor([7, 0, 3, 3])
    added = filled(real, 1000, 3)
    assert added.sum() == 3000
    assert (real + added).tolist() == [754, 753, 753, 753]
