"""How unevenly tokens went to experts: section 5.3.2's observed imbalance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def mean_layer_cv(choices: pl.DataFrame, experts: int | None = None) -> float | None:
    """Return the mean over layers of the CV of tokens by expert; None without choices.

    Args:
        choices: A row a choice: ``layer`` and ``expert`` (logical, from 0).
        experts: Experts of a layer, also those that no token chose; None for the highest plus one.

    Returns:
        CV = σ / μ of the counts x_i over all experts of a layer, σ of the population.

    Raises:
        InputError: A token chose an expert beyond ``experts``.
    """
    if choices.is_empty():
        return None
    highest: int = choices["expert"].max()  # type: ignore[assignment]
    if experts is not None and highest >= experts:
        raise InputError(f"expert {highest} was chosen (from 0), beyond the {experts} of a layer")
    number = experts or highest + 1
    counted = choices.group_by("layer", "expert").len()
    layers = counted.group_by("layer").agg(pl.col("len"))["len"].to_list()
    cvs = [_cv([*counts, *[0] * (number - len(counts))]) for counts in layers]
    # Exact: groups come in any order.
    return math.fsum(cvs) / len(cvs)


def _cv(counts: Sequence[int]) -> float:
    mean = sum(counts) / len(counts)
    squares = math.fsum((count - mean) ** 2 for count in counts)
    return float((squares / len(counts)) ** 0.5 / mean)
