"""Rerouting as the slides tell it, one choice after another in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def counts_after(
    experts: Sequence[Sequence[int]], is_real: Sequence[bool], count: int
) -> tuple[list[int], list[int]]:
    """Give each choice of padding to the expert with the fewest, the first of equals.

    An expert is full when every padding token has it.

    Returns:
        Choices of real tokens and of padding by expert.
    """
    real, padding = [0] * count, [0] * count
    for row, stays in zip(experts, is_real, strict=True):
        for expert in row if stays else ():
            real[expert] += 1
    tokens = sum(not stays for stays in is_real)
    for _ in range(tokens * len(experts[0])):
        open_ = [expert for expert in range(count) if padding[expert] < tokens]
        least = min(open_, key=lambda expert: (real[expert] + padding[expert], expert))
        padding[least] += 1
    return real, padding
