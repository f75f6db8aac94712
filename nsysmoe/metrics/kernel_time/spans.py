"""Sets of time: disjoint intervals, what they cover and how long they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Spans:
    """Disjoint intervals in order of time, ns.

    Attributes:
        starts: Shape (n,).
        ends: Shape (n,); each at or before the next start.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @staticmethod
    def of(starts: ArrayLike, ends: ArrayLike) -> Spans:
        """Return the union of intervals in any order; empty ones count for nothing."""
        begun = np.asarray(starts, dtype=np.int64)
        ended = np.asarray(ends, dtype=np.int64)
        order = np.argsort(begun, kind="stable")
        order = order[ended[order] > begun[order]]
        if not order.size:
            return Spans(begun[:0], ended[:0])
        begun, ended = begun[order], ended[order]
        reach = np.maximum.accumulate(ended)
        is_first = np.concatenate([[True], begun[1:] > reach[:-1]])
        is_last = np.concatenate([is_first[1:], [True]])
        return Spans(begun[is_first], reach[is_last])

    @staticmethod
    def union(parts: Iterable[Spans]) -> Spans:
        """Return what any of them covers."""
        found = list(parts)
        empty = np.empty(0, np.int64)
        return Spans.of(
            np.concatenate([empty, *(part.starts for part in found)]),
            np.concatenate([empty, *(part.ends for part in found)]),
        )

    @property
    def length(self) -> int:
        """Time covered, ns."""
        return int((self.ends - self.starts).sum())

    def clipped(self, start: int, end: int) -> Spans:
        """Return the part between two times."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = max(int(np.searchsorted(self.starts, end, side="left")), first)
        return Spans(
            np.maximum(self.starts[first:last], start), np.minimum(self.ends[first:last], end)
        )
