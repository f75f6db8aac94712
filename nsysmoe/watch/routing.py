"""Balance, hot experts, overflow and drift from dumps of routing, by domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.metrics.capacity import dropped
from nsysmoe.metrics.load_balance import mean_over_max, vllm_balancedness
from nsysmoe.placement.loads import device_loads
from nsysmoe.placement.simple import contiguous

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Loads = NDArray[np.float64]

_HOTTEST = 3
# Domains that are held; a folder with more names is no folder of domains.
_MOST_DOMAINS = 32


@dataclass(frozen=True)
class Judging:
    """How loads are judged.

    Attributes:
        gpus: Devices that share the experts; None judges experts.
        capacity: Factor of the buffer that overflow is counted against.
        map: Logical expert of each slot, shape [layers, slots]; None for experts in order.
    """

    gpus: int | None = None
    capacity: float = 1.25
    map: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Dump:
    """One dump: where it came from, and choices of each expert, shape [layers, experts]."""

    source: str
    domain: str
    loads: Loads


class RoutingState:
    """The last dump, and what each domain chose so far."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging
        self._last: Dump | None = None
        self._drift: float | None = None
        self._domains: dict[str, Loads] = {}
        self.dumps = 0

    def add(self, dump: Dump) -> None:
        """Take a dump; one of another model starts anew."""
        if self._last is not None and self._last.loads.shape != dump.loads.shape:
            self._last, self._domains = None, {}
        self._drift = None if self._last is None else distance(self._last.loads, dump.loads)
        self._last = dump
        self.dumps += 1
        known = self._domains.get(dump.domain)
        if known is not None:
            self._domains[dump.domain] = known + dump.loads
        elif len(self._domains) < _MOST_DOMAINS:
            self._domains[dump.domain] = dump.loads

    def told(self) -> dict[str, Any] | None:
        """Return the last dump judged, and the domains; None before the first."""
        if self._last is None:
            return None
        loads, judging = self._last.loads, self._judging
        over = self._carried(loads)
        beyond = dropped(loads, judging.capacity)
        return {
            "source": self._last.source,
            "domain": self._last.domain,
            "dumps": self.dumps,
            "choices": round(float(loads.sum())),
            "over": "experts" if over is None else "devices",
            "balancedness": vllm_balancedness(loads if over is None else over),
            "capacity_factor": judging.capacity,
            "dropped_ratio": beyond["drop_ratio"],
            "overflow_ratio": beyond["overflow_ratio"],
            "drift": self._drift,
            "layers": _layers(loads, loads if over is None else over),
            "domains": [_domain(name, each) for name, each in self._domains.items()],
            "domain_drift": self._between(),
        }

    def _carried(self, loads: Loads) -> Loads | None:
        """Return loads of devices; None where nothing tells devices, or they do not fit."""
        judging = self._judging
        if judging.gpus is None:
            return None
        layers, experts = loads.shape
        if judging.map is not None and judging.map.shape[0] == layers:
            map_ = judging.map
        else:
            slots = -(-experts // judging.gpus) * judging.gpus
            map_ = contiguous(layers, experts, slots)
        return device_loads(map_, loads, judging.gpus)

    def _between(self) -> list[dict[str, Any]]:
        names = sorted(self._domains)
        return [
            {
                "domains": [one, other],
                "drift": distance(self._domains[one], self._domains[other]),
            }
            for number, one in enumerate(names)
            for other in names[number + 1 :]
        ]


def distance(one: Loads, other: Loads) -> float | None:
    """Return the mean over layers of the total variation distance of the experts' shares.

    0: the same shares; 1: no expert in common (Levin & Peres 2017, section 4.1). None where a
    layer of either has no load.
    """
    sums = one.sum(axis=1, keepdims=True), other.sum(axis=1, keepdims=True)
    used = ((sums[0] > 0) & (sums[1] > 0))[:, 0]
    if not used.any():
        return None
    shares = one[used] / sums[0][used], other[used] / sums[1][used]
    return float(np.abs(shares[0] - shares[1]).sum(axis=1).mean() / 2)


def _layers(loads: Loads, carried: Loads) -> list[dict[str, Any]]:
    balanced = mean_over_max(carried)
    return [
        {
            "layer": layer,
            "balancedness": float(value) if np.isfinite(value) else None,
            "hottest": _hottest(loads[layer]),
        }
        for layer, value in enumerate(balanced)
    ]


def _domain(name: str, loads: Loads) -> dict[str, Any]:
    return {
        "domain": name,
        "choices": round(float(loads.sum())),
        "hottest": _hottest(loads.sum(axis=0)),
    }


def _hottest(loads: Loads) -> list[dict[str, Any]]:
    total = float(loads.sum())
    if not total:
        return []
    order = np.argsort(-loads, kind="stable")[:_HOTTEST]
    return [{"expert": int(one), "share": float(loads[one] / total)} for one in order]
