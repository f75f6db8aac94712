"""When each request is to be sent."""

from __future__ import annotations

import random
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def poisson(count: int, rate: float, seed: int) -> array[float]:
    """Return arrivals in seconds since the first: exponential gaps, the same for the same seed.

    Args:
        count: Requests.
        rate: Requests a second.
        seed: Of the draws.
    """
    draw = random.Random(seed)  # noqa: S311 - a workload, not a secret
    found = array("d", [0.0])
    for _ in range(count - 1):
        found.append(found[-1] + draw.expovariate(rate))
    return found[:count]


def intended(
    arrivals: Sequence[float], pending: Sequence[int], speed: float
) -> list[tuple[int, float]]:
    """Return (number, seconds since the start of this session) of requests still to be sent.

    The first of them is due at once; those between that an earlier session finished leave their
    gap, so that what is left keeps its own timing.

    Args:
        arrivals: Seconds since the first of the log, ascending.
        pending: Numbers of requests, ascending.
        speed: How many times faster than the log.
    """
    if not pending:
        return []
    start = arrivals[pending[0]]
    return [(number, (arrivals[number] - start) / speed) for number in pending]
