"""What EPLB logged of each model: last values, extremes, rearrangements; bounded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from nsysmoe.watch.definition import definition_of
from nsysmoe.watch.engine_log import EplbStep, Load, Rearrangement, parse, when

_MOST_MODELS = 16
_MOST_ENGINES = 1024
# Steps whose balancedness is remembered for a median.
_KEPT = 512


@dataclass
class _Model:
    """One model's EPLB."""

    last: EplbStep | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    lowest: float | None = None
    idle: int = 0
    lines: int = 0
    lowest_countdown: int | None = None


class EplbState:
    """What the lines of a log said, in memory that does not grow with it.

    Attributes:
        version: vLLM's, as the log tells; None before it does.
    """

    def __init__(self, version: str | None = None) -> None:
        self.version = version
        self._is_told = version is not None
        self._models: dict[str, _Model] = {}
        self._engines: dict[int, Load] = {}
        self._counts = {"begun": 0, "ended": 0, "skipped": 0}
        self._seconds = 0.0
        self._last_seconds: float | None = None
        self._rearranged_at: float | None = None
        self._last_at: float | None = None
        self.lines = 0

    def take(self, line: bytes) -> None:
        """Take one line."""
        self.lines += 1
        event = parse(line)
        if event is None:
            return
        at = when(line)
        self._last_at = self._last_at if at is None else at
        if isinstance(event, EplbStep):
            self._step(event)
        elif isinstance(event, Rearrangement):
            self._rearranged(event, at)
        elif isinstance(event, Load):
            if event.engine in self._engines or len(self._engines) < _MOST_ENGINES:
                self._engines[event.engine] = event
        elif not self._is_told:
            self.version = event.version

    def _step(self, event: EplbStep) -> None:
        model = self._models.get(event.model)
        if model is None:
            if len(self._models) >= _MOST_MODELS:
                return
            model = self._models[event.model] = _Model()
        model.last = event
        model.lines += 1
        if event.countdown is not None:
            known = model.lowest_countdown
            model.lowest_countdown = min(
                event.countdown, event.countdown if known is None else known
            )
        if event.max_tokens == 0:
            # Logged as 0, the worst there is; but a step without tokens has no balance.
            model.idle += 1
            return
        model.recent.append(event.balancedness)
        if model.lowest is None or event.balancedness < model.lowest:
            model.lowest = event.balancedness

    def _rearranged(self, event: Rearrangement, at: float | None) -> None:
        self._counts[event.what] += 1
        if event.what == "begun":
            self._rearranged_at = at
        elif event.seconds is not None:
            self._seconds += event.seconds
            self._last_seconds = event.seconds

    def queue(self) -> dict[str, float] | None:
        """Return ``running``, ``waiting`` and ``cache_ratio`` over engines; None where not told."""
        loads = list(self._engines.values())
        if not loads:
            return None
        found = {
            "running": float(sum(one.running for one in loads)),
            "waiting": float(sum(one.waiting for one in loads)),
        }
        known = [one.cache_ratio for one in loads if one.cache_ratio is not None]
        return {**found, "cache_ratio": sum(known) / len(known)} if known else found

    def told(self) -> dict[str, Any] | None:
        """Return what is known of EPLB; None where the log told nothing of it."""
        if not (self._models or any(self._counts.values())):
            return None
        since = None
        if self._rearranged_at is not None and self._last_at is not None:
            # The log tells no year: New Year's Eve is no negative time.
            since = (self._last_at - self._rearranged_at) % (366 * 86400.0)
        return {
            "definition": definition_of(self.version),
            # Logs that begin within one know of its end alone.
            "rearrangements": max(self._counts["begun"], self._counts["ended"]),
            "skipped": self._counts["skipped"],
            "rearranging_s": self._seconds,
            "last_rearrangement_s": self._last_seconds,
            "since_rearrangement_s": since,
            "models": [_told(name, model) for name, model in self._models.items()],
        }


def _told(name: str, model: _Model) -> dict[str, Any]:
    last = model.last
    recent = sorted(model.recent)
    return {
        "model": name,
        "lines": model.lines,
        "step": last.step if last else None,
        "countdown": last.countdown if last else None,
        "lowest_countdown": model.lowest_countdown,
        "balancedness": last.balancedness if last and last.max_tokens else None,
        "recent_p50": recent[len(recent) // 2] if recent else None,
        "lowest": model.lowest,
        "avg_tokens": last.avg_tokens if last else None,
        "max_tokens": last.max_tokens if last else None,
        "idle_lines": model.idle,
    }
