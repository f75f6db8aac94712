"""Queue and tails of latency over a window, from looks at /metrics."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsysmoe.watch.histogram import Histogram
    from nsysmoe.watch.scrape import Scrape

_SHARES = (50, 95, 99)
_MOST_LOOKS = 2048


class Tails:
    """Looks of the last minutes.

    Attributes:
        window_s: How far back quantiles look.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._looks: deque[tuple[float, Scrape]] = deque(maxlen=_MOST_LOOKS)

    def add(self, at: float, scrape: Scrape) -> None:
        """Take a look; one older than the window is kept, to take the difference from.

        A counter that fell tells of a server that began anew: what came before is not its own.
        """
        if self._looks and _fell(self._looks[-1][1], scrape):
            self._looks.clear()
        self._looks.append((at, scrape))
        while len(self._looks) > 2 and self._looks[1][0] <= at - self.window_s:
            self._looks.popleft()

    def told(self) -> dict[str, Any] | None:
        """Return values of the last look and quantiles of the window; None before a look."""
        if not self._looks:
            return None
        first_at, first = self._looks[0]
        last_at, last = self._looks[-1]
        span = last_at - first_at
        generated = last.values.get("generated", 0) - first.values.get("generated", 0)
        return {
            **{name: last.values.get(name) for name in ("running", "waiting", "cache_ratio")},
            "preemptions": last.values.get("preemptions"),
            # One look alone covers all that the server ever did.
            "window_s": span if len(self._looks) > 1 else None,
            "output_tok_per_s": generated / span if span > 0 else None,
            "tpot_metric": last.tpot_name,
            **{
                name: _quantiles(last.histograms.get(name), self._earlier(name))
                for name in ("ttft", "tpot", "queue")
            },
        }

    def _earlier(self, name: str) -> Histogram | None:
        return self._looks[0][1].histograms.get(name) if len(self._looks) > 1 else None


def _fell(before: Scrape, now: Scrape) -> bool:
    if now.values.get("generated", 0) < before.values.get("generated", 0):
        return True
    known = set(before.histograms) & set(now.histograms)
    return any(now.histograms[name].total < before.histograms[name].total for name in known)


def _quantiles(now: Histogram | None, earlier: Histogram | None) -> dict[str, Any] | None:
    if now is None:
        return None
    came = now.since(earlier)
    return {
        "requests": round(came.total),
        **{f"p{share}_s": came.quantile(share / 100) for share in _SHARES},
    }
