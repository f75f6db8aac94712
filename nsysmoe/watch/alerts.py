"""Thresholds in a file, and which of them are crossed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nsysmoe.bounded_files import read_toml
from nsysmoe.errors import WatchError

# What a threshold can be on; the values of a snapshot.
METRICS = (
    "running", "waiting", "cache_ratio", "output_tok_per_s",
    "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "tpot_p50_s", "tpot_p95_s", "tpot_p99_s",
    "queue_p99_s", "eplb_countdown", "logged_balancedness", "balancedness",
    "lowest_layer_balancedness", "since_rearrangement_s", "dropped_ratio", "overflow_ratio",
    "drift", "excess_drift", "domain_drift", "capture_wait_share", "sources_down",
)  # fmt: skip
_SEVERITIES = ("info", "warning", "critical")
_KEYS = {"name", "metric", "above", "below", "for_s", "severity", "summary"}
_MOST = 1000
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Threshold:
    """One alert; exactly one of ``above`` and ``below`` is known."""

    name: str
    metric: str
    above: float | None
    below: float | None
    for_s: float
    severity: str
    summary: str

    def is_beyond(self, value: float) -> bool:
        """Tell whether a value is beyond it; equal is not."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below


State = Literal["ok", "pending", "firing", "unknown"]


@dataclass(frozen=True)
class Alert:
    """One threshold now."""

    threshold: Threshold
    value: float | None
    state: State

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = self.threshold
        return {
            "name": found.name,
            "state": self.state,
            "severity": found.severity,
            "metric": found.metric,
            "value": self.value,
            "above": found.above,
            "below": found.below,
            "for_s": found.for_s,
            "summary": found.summary,
        }


class Alerts:
    """Thresholds, and since when each is crossed."""

    def __init__(self, thresholds: tuple[Threshold, ...]) -> None:
        self._thresholds = thresholds
        self._since: dict[str, float] = {}

    def judge(
        self, values: dict[str, float | None], at: float, *, is_once: bool = False
    ) -> list[Alert]:
        """Return every alert.

        Args:
            values: By ``METRICS``; None where not known.
            at: Now, on a steady clock.
            is_once: There is no later look: what is beyond fires without waiting.
        """
        return [self._one(each, values.get(each.metric), at, is_once) for each in self._thresholds]

    def _one(self, each: Threshold, value: float | None, at: float, is_once: bool) -> Alert:
        if value is None or not math.isfinite(value):
            self._since.pop(each.name, None)
            return Alert(each, None, "unknown")
        if not each.is_beyond(value):
            self._since.pop(each.name, None)
            return Alert(each, value, "ok")
        since = self._since.setdefault(each.name, at)
        return Alert(each, value, "firing" if is_once or at - since >= each.for_s else "pending")


def read_thresholds(path: Path | None) -> tuple[Threshold, ...]:
    """Read thresholds; None for the shipped ones.

    Raises:
        WatchError: The file cannot be read, or an alert in it is none.
    """
    source = path or Path(__file__).parent / "alerts.toml"
    found = read_toml(source, largest=_LARGEST, fix="check --alerts", error=WatchError)
    rows = found.get("alert")
    if not isinstance(rows, list) or set(found) != {"alert"} or len(rows) > _MOST:
        raise WatchError(f"{source} must hold [[alert]] tables and nothing else")
    made = tuple(_threshold(source, number, row) for number, row in enumerate(rows, start=1))
    if len({one.name for one in made}) < len(made):
        raise WatchError(f"{source} names an alert twice")
    return made


def _threshold(source: Path, number: int, row: Any) -> Threshold:
    where = f"{source}, alert {number}"
    if not isinstance(row, dict):
        raise WatchError(f"{where} is no table: write [[alert]]")
    if unknown := sorted(set(row) - _KEYS):
        raise WatchError(f"{where}: there is no {unknown[0]}; there are {', '.join(sorted(_KEYS))}")
    metric = row.get("metric")
    if metric not in METRICS:
        told = f"there is no metric {metric!r}" if metric is not None else "metric is missing"
        raise WatchError(f"{where}: {told}; there are {', '.join(METRICS)}")
    if ("above" in row) == ("below" in row):
        raise WatchError(f"{where}: give either above or below")
    severity = row.get("severity", "warning")
    if severity not in _SEVERITIES:
        raise WatchError(f"{where}: severity must be one of {', '.join(_SEVERITIES)}")
    return Threshold(
        name=_text(where, row, "name", metric),
        metric=metric,
        above=_number(where, row, "above"),
        below=_number(where, row, "below"),
        for_s=_number(where, row, "for_s") or 0.0,
        severity=severity,
        summary=_text(where, row, "summary", ""),
    )


def _text(where: str, row: dict[str, Any], key: str, default: str) -> str:
    found = row.get(key, default)
    if not isinstance(found, str) or (key == "name" and not found.strip()):
        raise WatchError(f"{where}: {key} must be a text")
    return found


def _number(where: str, row: dict[str, Any], key: str) -> float | None:
    found = row.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise WatchError(f"{where}: {key} must be a number")
    if key == "for_s" and found < 0:
        raise WatchError(f"{where}: for_s must not be negative")
    return float(found)
