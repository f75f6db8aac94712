"""Balance, hot experts, overflow and drift from dumps of routing, by domain."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.metrics.routed_load.capacity import dropped
from nsysmoe.metrics.routed_load.load_balance import mean_over_max, vllm_balancedness
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
        recent: Dumps of a domain that its recent mean reaches back over; older ones fade.
    """

    gpus: int | None = None
    capacity: float = 1.25
    map: NDArray[np.int64] | None = None
    recent: int = 16


@dataclass(frozen=True)
class Dump:
    """One dump: where it came from, and choices of each expert, shape [layers, experts]."""

    source: str
    domain: str
    loads: Loads


@dataclass(frozen=True)
class _Recent:
    """What a domain chose lately: counts of dumps, the older the lighter (Roberts 1959).

    Attributes:
        loads: Sum of weight x choices, shape [layers, experts].
        squared: Sum of weight² x choices of each layer, shape [layers]: what its noise comes from.
        choices: All that it ever chose, without weights.
    """

    loads: Loads
    squared: Loads
    choices: float

    @classmethod
    def of(cls, loads: Loads) -> _Recent:
        return cls(loads, loads.sum(axis=1), float(loads.sum()))

    def then(self, loads: Loads, dumps: int) -> _Recent:
        """Return it with another dump; ``dumps`` is how many it reaches back over."""
        kept = 1 - 1 / dumps
        return _Recent(
            self.loads * kept + loads,
            self.squared * kept**2 + loads.sum(axis=1),
            self.choices + float(loads.sum()),
        )


class RoutingState:
    """The last dump, and what each domain chose lately."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging
        self._last: Dump | None = None
        self._drift: tuple[float | None, float | None] = None, None
        self._domains: dict[str, _Recent] = {}
        self.dumps = 0

    def add(self, dump: Dump) -> None:
        """Take a dump; one of another model starts anew.

        It is compared with its own domain's recent mean: domains that take turns are no drift.
        """
        if self._last is not None and self._last.loads.shape != dump.loads.shape:
            self._domains = {}
        self._last = dump
        self.dumps += 1
        known, now = self._domains.get(dump.domain), _Recent.of(dump.loads)
        self._drift = (None, None) if known is None else _compared(known, now)
        if known is not None:
            self._domains[dump.domain] = known.then(dump.loads, self._judging.recent)
        elif len(self._domains) < _MOST_DOMAINS:
            self._domains[dump.domain] = now

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
            "drift": self._drift[0],
            "drift_by_chance": self._drift[1],
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
        return [
            _apart((one, self._domains[one]), (other, self._domains[other]))
            for one, other in combinations(sorted(self._domains), 2)
        ]


def _apart(one: tuple[str, _Recent], other: tuple[str, _Recent]) -> dict[str, Any]:
    """Return how far two domains are from each other, and which experts moved most."""
    drift, by_chance = _compared(one[1], other[1])
    return {
        "domains": [one[0], other[0]],
        "drift": drift,
        "by_chance": by_chance,
        "moved": _moved(one[1].loads, other[1].loads),
    }


def _compared(one: _Recent, other: _Recent) -> tuple[float | None, float | None]:
    """Return the distance of shares, and what chance alone would make of it."""
    return distance(one.loads, other.loads), chance_distance(
        one.loads, other.loads, (one.squared, other.squared)
    )


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


def chance_distance(one: Loads, other: Loads, squared: tuple[Loads, Loads]) -> float | None:
    """Return the distance to be expected where both chose by the same shares, independently.

    With shares p of both together and n, m choices of a layer, each difference is about normal
    with variance p (1 - p) (1/n + 1/m), and its mean size sqrt(2 / pi) of that deviation. Tokens of
    one request choose alike, so real dumps differ by more.

    Args:
        one: Weighted choices, shape [layers, experts].
        other: The same of the other.
        squared: Sums of their squared weights by layer: n is sum² / squared (Kish 1965).
    """
    sums = one.sum(axis=1), other.sum(axis=1)
    used = (sums[0] > 0) & (sums[1] > 0)
    if not used.any():
        return None
    noise = squared[0][used] / sums[0][used] ** 2 + squared[1][used] / sums[1][used] ** 2
    both = (one + other)[used] / (sums[0] + sums[1])[used, None]
    sizes = np.sqrt(2 / np.pi * both * (1 - both) * noise[:, None])
    return min(1.0, float(sizes.sum(axis=1).mean() / 2))


def _shares(loads: Loads) -> Loads:
    """Return each expert's share of its layer; 0 in a layer without choices."""
    sums = loads.sum(axis=1, keepdims=True)
    shares: Loads = np.divide(loads, sums, out=np.zeros_like(loads), where=sums > 0)
    return shares


def _moved(one: Loads, other: Loads) -> list[dict[str, Any]]:
    before, after = _shares(one), _shares(other)
    return [
        {**place, "shares": [float(before[at]), float(after[at])]}
        for at, place in _largest(np.abs(after - before))
    ]


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


def _domain(name: str, recent: _Recent) -> dict[str, Any]:
    shares = _shares(recent.loads)
    return {
        "domain": name,
        "choices": round(recent.choices),
        "hottest": [
            {**place, "share": float(shares[at])} for at, place in _largest(shares) if shares[at]
        ],
    }


def _largest(values: Loads) -> list[tuple[tuple[int, int], dict[str, int]]]:
    """Return where the largest values are: (layer, expert), and the same by name."""
    flat = np.argsort(-values, axis=None, kind="stable")[:_HOTTEST]
    places = [divmod(int(one), values.shape[1]) for one in flat]
    return [(place, {"layer": place[0], "expert": place[1]}) for place in places]


def _hottest(loads: Loads) -> list[dict[str, Any]]:
    """Return a layer's experts with most choices."""
    total = float(loads.sum())
    if not total:
        return []
    order = np.argsort(-loads, kind="stable")[:_HOTTEST]
    return [{"expert": int(one), "share": float(loads[one] / total)} for one in order]
