"""Slots that memory has room for."""

from __future__ import annotations

import pytest

from nsysmoe.errors import PlacementError
from nsysmoe.placement.budget import slots_within


def test_a_budget_buys_whole_slots_on_every_gpu() -> None:
    # 4 layers of 10-byte experts: a slot a GPU costs 40 bytes.
    assert [slots_within(budget, 10, 4, 8, 2) for budget in (0, 39, 40, 80)] == [8, 8, 10, 12]


def test_a_share_that_is_no_whole_number_is_paid_too() -> None:
    # 9 experts on 2 GPUs: five a GPU are half an expert more than a share.
    assert slots_within(20, 10, 4, 9, 2) == 10
    with pytest.raises(PlacementError, match="budget"):
        slots_within(19, 10, 4, 9, 2)
