"""Waiting for what other processes do, within a limit: how fast a machine is, nobody knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def becomes(condition: Callable[[], bool], limit_s: float) -> bool:
    """Return whether a condition holds, as soon as it does and at the limit at the latest."""
    limit = time.monotonic() + limit_s
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
    return condition()
