"""Time on the device itself: events of its stream on a GPU, the machine's clock on a CPU."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nsysmoe.model.extra import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_NS_PER_MS = 1e6


class Stopwatch:
    """Adds up the time that the device spends in blocks."""

    def __init__(self, device: Any) -> None:
        self._is_gpu = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a block; the device is not waited for."""
        start = self._mark()
        yield
        self._spans.append((start, self._mark()))

    def elapsed_ns(self) -> int:
        """Return the sum over the blocks; waits for the device."""
        if not self._is_gpu:
            return int(sum(end - start for start, end in self._spans))
        if self._spans:
            self._spans[-1][1].synchronize()
        elapsed_ms = sum(float(start.elapsed_time(end)) for start, end in self._spans)
        return round(elapsed_ms * _NS_PER_MS)

    def _mark(self) -> Any:
        if not self._is_gpu:
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
