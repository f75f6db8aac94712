"""Continuous batching with chunked prefill, step by step, under limits of its batches.

First come, first served, as vLLM's scheduler does it: sequences that generate come first in a
step, then prompts that are read in part, then new ones, up to ``most_tokens``; at most
``most_sequences`` are in a batch. Memory for the KV cache is taken to suffice.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    StepCost = Callable[[int, int], float]


@dataclass(frozen=True)
class Requests:
    """What arrives: seconds, ascending, and tokens; one value a request."""

    arrival_s: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Served:
    """What came of it.

    Attributes:
        first_s: From arrival to the first token, by request.
        last_s: From arrival to the last.
        step_s: Time of each step.
        most_sequences: The largest batch.
        busy_s: Time in steps.
        end_s: When the last step ended.
    """

    first_s: Floats
    last_s: Floats
    step_s: Floats
    most_sequences: int
    busy_s: float
    end_s: float


def simulate(requests: Requests, cost: StepCost, most_sequences: int, most_tokens: int) -> Served:
    """Serve requests.

    Args:
        requests: What arrives.
        cost: Time of a step, s, by sequences that generate and prompt tokens that are read.
        most_sequences: ``max_num_seqs``.
        most_tokens: ``max_num_batched_tokens``.
    """
    return _Engine(requests, cost, most_sequences, most_tokens).run()


class _Engine:
    def __init__(
        self, requests: Requests, cost: StepCost, most_sequences: int, most_tokens: int
    ) -> None:
        self._requests, self._cost = requests, cost
        self._most_sequences, self._most_tokens = most_sequences, most_tokens
        count = requests.arrival_s.size
        self._first, self._last = np.zeros(count), np.zeros(count)
        self._clock = float(requests.arrival_s[0]) if count else 0.0
        # (step of the last token, request), and requests whose prompt is being read.
        self._generating: list[tuple[int, int]] = []
        self._reading: deque[list[int]] = deque()
        self._next = 0
        self._steps: list[float] = []
        self._largest = 0

    def run(self) -> Served:
        arrival, count = self._requests.arrival_s, self._requests.arrival_s.size
        while self._next < count or self._generating or self._reading:
            if not self._generating and not self._reading:
                self._clock = max(self._clock, float(arrival[self._next]))
            self._step()
        return Served(
            self._first - arrival,
            self._last - arrival,
            np.array(self._steps),
            self._largest,
            float(sum(self._steps)),
            self._clock,
        )

    def _step(self) -> None:
        sequences = len(self._generating)
        read, done = self._read(max(1, self._most_tokens - sequences))
        self._largest = max(self._largest, sequences + len(self._reading) + len(done))
        took = self._cost(sequences, read)
        self._steps.append(took)
        self._clock += took
        number = len(self._steps)
        while self._generating and self._generating[0][0] <= number:
            self._last[heapq.heappop(self._generating)[1]] = self._clock
        for request in done:
            self._first[request] = self._last[request] = self._clock
            left = int(self._requests.output_tokens[request]) - 1
            if left > 0:
                heapq.heappush(self._generating, (number + left, request))

    def _read(self, budget: int) -> tuple[int, list[int]]:
        """Read prompts of at most ``budget`` tokens; return how many, and the requests done."""
        arrival, read = self._requests.arrival_s, 0
        done: list[int] = []
        while budget > read:
            if not self._reading:
                held = len(self._generating) + len(done)
                is_due = self._next < arrival.size and arrival[self._next] <= self._clock
                if not is_due or held >= self._most_sequences:
                    break
                length = max(1, int(self._requests.prompt_tokens[self._next]))
                self._reading.append([self._next, length])
                self._next += 1
            current = self._reading[0]
            taken = min(current[1], budget - read)
            current[1] -= taken
            read += taken
            if not current[1]:
                done.append(self._reading.popleft()[0])
        return read, done
