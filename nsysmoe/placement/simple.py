"""Placements that do not look at loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def contiguous(layers: int, experts: int, slots: int) -> NDArray[np.int64]:
    """Return experts in order, then replicas of the first ones: what vLLM starts with.

    Returns:
        Logical expert of each physical one, shape [layers, slots].
    """
    return np.tile(np.arange(slots) % experts, (layers, 1))


def round_robin(layers: int, experts: int, gpus: int, slots: int) -> NDArray[np.int64]:
    """Return experts dealt to GPUs in turn: expert e on GPU e mod gpus, replicas after them.

    Returns:
        Logical expert of each physical one, shape [layers, slots].
    """
    dealt = np.arange(slots).reshape(slots // gpus, gpus).T.reshape(-1)
    return np.tile(dealt % experts, (layers, 1))
