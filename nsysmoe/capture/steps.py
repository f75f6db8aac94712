"""How many rounds to warm up with, so that EPLB moves experts where it was asked to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Spec

_MOST_ROUNDS = 500
# A batch may take so many steps more: its first requests start before the last are there.
_LATE_STEPS = 2


@dataclass(frozen=True)
class Steps:
    """At least and at most so many steps of the engine.

    Data-parallel engines step idly until they agree on being done, which nobody can plan: the
    worker looks at EPLB's counter, and adds rounds where it has to.
    """

    low: int
    high: int

    def __add__(self, other: Steps) -> Steps:
        return Steps(self.low + other.low, self.high + other.high)

    def times(self, count: int) -> Steps:
        """Return the steps of several of the kind."""
        return Steps(count * self.low, count * self.high)


@dataclass(frozen=True)
class Rounds:
    """What comes before the measured round.

    Attributes:
        settle: Tokens of one request before these rounds, a step each, where their steps alone
            would let the rearrangement fall on the edge of the measured round.
        unprofiled: Rounds of the same prompts before the measured one; the last is the control.
        steps: Steps of one round.
        warm_steps: Steps before the measured round.
    """

    settle: int
    unprofiled: int
    steps: Steps
    warm_steps: Steps


def sweep(requests: int) -> tuple[int, ...]:
    """Return the batch sizes that are tried first: vLLM may start on a part of the requests.

    Kernels are tuned by size, about two to each doubling.

    >>> sweep(12)
    (1, 2, 3, 4, 6, 8, 12)
    """
    doubled = [1 << power for power in range(requests.bit_length())]
    between = [3 * size // 2 for size in doubled[1:]]
    return tuple(sorted({size for size in (*doubled, *between) if size < requests} | {requests}))


def batches(spec: Spec) -> tuple[int, ...]:
    """Return the batch sizes that a run tries first: of each rank, or of the whole server."""
    count = spec.workload.count
    return sweep(ceil(count / spec.layout.data) if spec.mode == "offline" else count)


def plan_rounds(spec: Spec) -> Rounds:
    """Plan the rounds of an arm, by its spec; arms that EPLB alone tells apart do the same.

    Raises:
        CaptureError: No number of rounds puts the rearrangement where it was asked for.
    """
    per_rank = ceil(spec.workload.count / spec.layout.data)
    steps = steps_of(spec, per_rank, spec.workload.output_tokens)
    swept = Steps(0, 0)
    for size in batches(spec):
        swept += steps_of(spec, size, 2)
    # Rounds alone where they do: EPLB then balances by the workload's own loads.
    for settle in range(spec.workload.output_tokens):
        settled = swept + steps_of(spec, 1, settle) if settle else swept
        for rounds in range(spec.workload.warm_rounds, _MOST_ROUNDS):
            warm = settled + steps.times(rounds)
            if _is_placed(spec, warm, steps):
                return Rounds(settle, rounds, steps, warm)
    raise CaptureError(
        f"a round of {steps.low} to {steps.high} steps cannot surely have a rearrangement "
        f"{spec.rearrange} it with --eplb-interval {spec.balancing.interval}; choose another "
        f"(from {4 * steps.high} to {_MOST_ROUNDS // 2 * steps.low}), or --rearrange any"
    )


def steps_of(spec: Spec, requests: int, output_tokens: int) -> Steps:
    """Return the steps that a batch takes: prompts in chunks, then a token a step."""
    waves = ceil(requests / spec.engine.max_sequences)
    first = min(requests, spec.engine.max_sequences)
    prefill = ceil(first * spec.workload.input_tokens / spec.engine.max_step_tokens)
    low = waves * (prefill + output_tokens - 1)
    return Steps(low, low + _LATE_STEPS)


def _is_placed(spec: Spec, warm: Steps, steps: Steps) -> bool:
    """Tell whether rearrangements surely fall where they are asked for, after ``warm`` steps."""
    if not spec.balances or spec.rearrange == "any":
        return True
    interval = spec.balancing.interval
    # vLLM's counter starts at three quarters of the interval.
    counted = interval - interval // 4
    # Rearrangements before the measured round and until its end, as steps are few or many.
    before_low, before_high = ((counted + many) // interval for many in (warm.low, warm.high))
    end = warm + steps
    end_low, end_high = ((counted + many) // interval for many in (end.low, end.high))
    if before_low < 1 or before_low != before_high:
        return False
    # Inside: after one before, which loaded what it needs.
    return end_low > before_high if spec.rearrange == "inside" else end_high == before_low
