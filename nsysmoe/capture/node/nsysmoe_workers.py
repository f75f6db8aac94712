"""What both scripts ask of vLLM's workers: weights, steps to warm up with, where EPLB stands.

The standard library only. Arguments are texts: a server's endpoint takes nothing else.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from nsysmoe.capture.node import nsysmoe_workload as workload
else:
    # Imported as a part of the package, this folder is not where Python looks.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import nsysmoe_workload as workload

# Rounds that are added at most until EPLB stands where it is wanted, and tokens of the single
# request before each: a round that divides the interval would come to the same place for ever.
MOST_MORE_ROUNDS = 64
_SHIFTS = 16
# Steps by which a round may differ from the one before.
_SLACK = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is done to an engine before requests come."""
    parser.add_argument("--rearrange", choices=["before", "inside", "any"], default="any")
    parser.add_argument("--no-warm-steps", action="store_true")
    parser.add_argument("--dummy-weights-std", type=float)
    parser.add_argument("--router-skew", type=float)


def tokens_between(number: int) -> int:
    """Return the tokens of the single request before one more round."""
    return 1 + number % _SHIFTS


class Workers:
    """The workers of one engine.

    Args:
        call: Calls a method of the extension on every worker, with texts, and returns what each
            gives back.
        options: Those of :func:`add_options`, with a seed.
        is_balanced: Whether EPLB is on.
    """

    def __init__(
        self,
        call: Callable[[str, tuple[str, ...]], list[Any]],
        options: argparse.Namespace,
        *,
        is_balanced: bool,
    ) -> None:
        self._call = call
        self._options = options
        self._is_balanced = is_balanced
        self._states: list[dict[str, Any] | None] = []

    def draw(self) -> None:
        """Draw weights and skew routers, as far as that is asked for."""
        deviation, skew = self._options.dummy_weights_std, self._options.router_skew
        if deviation is not None:
            arguments = (str(deviation), str(self._options.seed))
            _say("weights drawn", self._call("nsysmoe_draw_weights", arguments))
        if skew is not None:
            _say("routers skewed", self._call("nsysmoe_skew_routers", (str(skew),)))

    def warm_steps(self, requests: list[dict[str, Any]], tokens: int, sequences: int) -> None:
        """Have a step of every size run once.

        Args:
            requests: The requests of a round.
            tokens: Tokens of a step at most.
            sequences: Requests of a step at most.
        """
        if self._options.no_warm_steps:
            return
        sizes = workload.sizes_to_warm(requests, tokens, sequences)
        before = time.perf_counter()
        arguments = (",".join(map(str, sizes)), str(sequences))
        steps = self._call("nsysmoe_warm_steps", arguments)
        _say(f"steps warmed in {time.perf_counter() - before:.1f} s", steps)

    def look(self) -> None:
        """Note where EPLB stands."""
        self._states.append(self._call("nsysmoe_eplb", ())[0] if self._is_balanced else None)

    def is_placed_next(self) -> bool:
        """Tell whether the round after the next would have its rearrangement where it is wanted."""
        return is_placed_next(self._states, self._options.rearrange)

    def record(self, measured: int) -> dict[str, Any]:
        """Return what run.json says of processes, and of EPLB before and after measured rounds."""
        return {
            "workers": self._call("nsysmoe_worker", ()),
            "eplb_before": [self._states[-1 - measured]],
            "eplb_after": [self._states[-1]],
            "rearrangements": rearrangements(self._states, measured),
        }


def _say(what: str, counts: list[Any]) -> None:
    """Write to the log of the engine."""
    print(f"{what}: {', '.join(map(str, counts))}", flush=True)  # noqa: T201


def is_placed_next(states: list[dict[str, Any] | None], rearrange: str) -> bool:
    """Tell whether the round after the next would have its rearrangement where it is asked for.

    Args:
        states: What EPLB told after the warm-up and after each round; the last two are one round
            apart. None where it does not tell.
        rearrange: ``before``, ``inside`` or ``any``.
    """
    before, now = states[-2:]
    counted = rearrangements(states)
    if rearrange == "any" or before is None or now is None or counted is None:
        return True
    if now.get("is_moving"):
        return False
    interval = int(now["interval"])
    at = int(now["step"])
    steps = (at - int(before["step"])) % interval
    more, since = divmod(at + steps, interval)
    # One that begins in the control round is still going on after it.
    is_late = bool(more and now.get("is_async"))
    if counted["before"] + counted["inside"] + more < 1 or is_late:
        return False
    if rearrange == "inside":
        return since + _SLACK < interval <= since + steps - _SLACK
    return (not more or since >= _SLACK) and since + steps + _SLACK < interval


def rearrangements(states: list[dict[str, Any] | None], measured: int = 1) -> dict[str, int] | None:
    """Return how often a rearrangement began, before the measured rounds and inside."""
    told = [state for state in states if state is not None]
    if len(told) < len(states):
        return None
    began = [_began(*pair) for pair in pairwise(told)]
    # What happened before the first look: the counter starts at three quarters.
    interval = told[0]["interval"]
    earlier = int(told[0]["step"] < interval - interval // 4 or bool(told[0].get("is_moving")))
    return {"before": earlier + sum(began[:-measured]), "inside": sum(began[-measured:])}


def _began(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Tell whether a rearrangement began between two looks.

    The counter begins anew then, but may run past where it stood before the second look.
    """
    if after["step"] < before["step"]:
        return True
    if before.get("is_moving"):
        return False
    return bool(after.get("is_moving")) or after.get("models") != before.get("models")
