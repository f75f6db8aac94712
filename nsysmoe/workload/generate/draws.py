"""Random draws that are the same on every machine and version of Python.

``random.Random`` promises the same stream only for ``random()``; how ``choice`` and ``sample``
use it has changed between versions. SHA-256 in counter mode promises everything.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
_BITS = 64


class Draws:
    """A stream of draws that depends on its names alone.

    >>> Draws(7, "a").below(10) == Draws(7, "a").below(10)
    True
    """

    def __init__(self, *names: str | int) -> None:
        self._key = repr(names).encode()
        self._count = 0

    def bits(self) -> int:
        """Return 64 random bits as a number."""
        block = hashlib.sha256(self._key + b"#%d" % self._count).digest()
        self._count += 1
        return int.from_bytes(block[: _BITS // 8], "big")

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1; uneven by less than n / 2^64."""
        return self.bits() * n >> _BITS

    def unit(self) -> float:
        """Return a number from 0 to below 1, with 53 bits."""
        return (self.bits() >> 11) / (1 << 53)

    def happens(self, probability: float) -> bool:
        """Return True with a probability; always for 1, never for 0."""
        return self.unit() < probability

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: Sequence[float]) -> int:
        """Return a position, by weights that are not negative and not all 0."""
        # Correctly rounded: sum() of floats is not the same since Python 3.12.
        left = self.unit() * math.fsum(weights)
        for place, weight in enumerate(weights):
            if left < weight:
                return place
            left -= weight
        return max(place for place, weight in enumerate(weights) if weight > 0)

    def ranked(self, items: Sequence[T]) -> T:
        """Return one of the items, the k-th with weight 1 / k: Zipf's law, as words are used."""
        return items[self.weighted([1 / rank for rank in range(1, len(items) + 1)])]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order (Fisher and Yates)."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
