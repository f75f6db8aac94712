"""What a capacity factor would drop: buffers of a fixed size for each expert (Switch, 2021)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dropped(loads: NDArray[np.float64], factor: float) -> dict[str, Any]:
    """Count the choices beyond each expert's capacity, ceil(factor x choices / experts) of a cell.

    Serving engines drop nothing; they wait for the busiest expert. So this is what a buffer of
    that size would lose, or have to spill.

    Args:
        loads: Choices of each expert, shape [..., experts]; a cell is a layer in a step.
        factor: Capacity over a fair share; above 0.

    Returns:
        ``choices``, ``dropped``, ``drop_ratio`` (None without choices), and ``overflow_ratio``:
        the share of experts in cells with any choice that overflow.
    """
    total = loads.sum(axis=-1, keepdims=True)
    # 0.1 x 30 must not need a fourth place.
    capacity = np.ceil(factor * total / loads.shape[-1] - 1e-9)
    beyond = np.maximum(loads - capacity, 0)
    choices, lost = float(total.sum()), float(beyond.sum())
    cells = int((total > 0).sum())
    return {
        "factor": factor,
        "choices": round(choices),
        "dropped": round(lost),
        "drop_ratio": lost / choices if choices else None,
        "overflow_ratio": float((beyond > 0).sum()) / (cells * loads.shape[-1]) if cells else None,
    }


def needed_factor(loads: NDArray[np.float64]) -> float | None:
    """Return the least factor that drops nothing: the largest max / mean of any cell."""
    total = loads.sum(axis=-1)
    used = total > 0
    if not used.any():
        return None
    found = float((loads.max(axis=-1)[used] * loads.shape[-1] / total[used]).max())
    return found if math.isfinite(found) else None
