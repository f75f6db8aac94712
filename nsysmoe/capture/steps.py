"""How many rounds to warm up with, so that EPLB moves experts where it was asked to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Spec

# The last is the control: what the measured round costs without a profiler.
FEWEST_ROUNDS = 2
_MOST_ROUNDS = 500
# Steps by which scheduling may differ from the plan: requests arrive while the first step runs.
_SLACK = 3


@dataclass(frozen=True)
class Rounds:
    """Rounds before the measured one, and what EPLB's counter is expected to do.

    Attributes:
        settle: Tokens of one request before these rounds, a step each, where their steps alone
            would let the rearrangement fall on the edge of the measured round.
        unprofiled: Rounds of the same prompts before the measured one; the last is the control.
        steps: Steps of one round, about.
        warm_steps: Steps before the measured round, about.
    """

    settle: int
    unprofiled: int
    steps: int
    warm_steps: int


def sweep(requests: int) -> tuple[int, ...]:
    """Return the batch sizes that are tried first: vLLM may start on a part of the requests.

    >>> sweep(12)
    (1, 2, 4, 8, 12)
    """
    sizes = {1 << power for power in range(requests.bit_length()) if 1 << power < requests}
    return tuple(sorted(sizes | {requests}))


def batches(spec: Spec) -> tuple[int, ...]:
    """Return the batch sizes that a run tries first: of each rank, or of the whole server."""
    count = spec.workload.count
    return sweep(ceil(count / spec.layout.data) if spec.mode == "offline" else count)


def plan_rounds(spec: Spec) -> Rounds:
    """Plan the rounds of every run; both arms do the same, so that nothing else differs.

    Raises:
        CaptureError: No number of rounds puts the rearrangement where it was asked for.
    """
    per_rank = ceil(spec.workload.count / spec.layout.data)
    steps = steps_of(spec, per_rank, spec.workload.output_tokens)
    swept = sum(steps_of(spec, size, 2) for size in batches(spec))
    interval = spec.balancing.interval
    # vLLM's counter starts at three quarters of the interval.
    started = interval - interval // 4
    # Rounds alone where they do: EPLB then balances by the workload's own loads.
    for settle in range(spec.workload.output_tokens):
        for rounds in range(FEWEST_ROUNDS, _MOST_ROUNDS):
            warm = swept + settle + rounds * steps
            if _is_placed(spec, started + warm, steps, interval):
                return Rounds(settle, rounds, steps, warm)
    raise CaptureError(
        f"a round of about {steps} steps cannot have a rearrangement {spec.rearrange} it with "
        f"--eplb-interval {interval}; choose {_advice(spec, steps)} or --rearrange any"
    )


def steps_of(spec: Spec, requests: int, output_tokens: int) -> int:
    """Return the steps that a batch takes: prompts in chunks, then a token a step."""
    waves = ceil(requests / spec.engine.max_sequences)
    first = min(requests, spec.engine.max_sequences)
    prefill = ceil(first * spec.workload.input_tokens / spec.engine.max_step_tokens)
    return waves * (prefill + output_tokens - 1)


def _is_placed(spec: Spec, counted: int, steps: int, interval: int) -> bool:
    """Tell whether a counter that would stand at ``counted`` fits what was asked."""
    if "on" not in spec.arms or spec.rearrange == "any":
        return True
    done, since = divmod(counted, interval)
    if spec.rearrange == "inside":
        # One happened before: what it needs is loaded.
        return done >= 1 and since + _SLACK < interval <= since + steps - _SLACK
    return done >= 1 and since >= _SLACK and since + steps + _SLACK < interval


def _advice(spec: Spec, steps: int) -> str:
    if spec.rearrange == "before":
        return f"an interval of {4 * steps} or more"
    return f"an interval up to {_MOST_ROUNDS // 2 * steps}"
