"""Copies between nodes on a made workload of several domains: how much a plan for locality saves.

Each domain prefers experts of its own in every layer; requests belong to one domain each. How much
the popularity of experts shifts between domains is told as the Jensen-Shannon distance (base 2:
0 alike, 1 nothing in common), so that a real log can be set beside it. Plans are judged on requests
that they were not made from.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations

import numpy as np

from nsysmoe.analysis.placing.locality import judge_locality
from nsysmoe.placement.cluster import Cluster
from nsysmoe.routing.tokens import TokenRoutes

_LAYERS, _EXPERTS, _TOP_K = 4, 128, 8
_DOMAINS, _REQUESTS, _TOKENS = 8, 256, 48
# Scales of the preferences of all requests alike, and of one request beside its domain.
_SHARED, _OWN = 0.5, 0.3


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--shift", type=float, nargs="*", default=[0.0, 0.3, 0.6, 1.0])
    arguments = parser.parse_args()
    print("shift (JS distance), nodes: saved token copies against contiguous experts and dealt")
    print("requests by: random; grouping alone; placement alone; both (copies a token and layer)")
    for shift in arguments.shift:
        routes, distance = _routes(shift)
        for nodes in arguments.nodes:
            start = time.perf_counter()
            cluster = Cluster(8, _EXPERTS, nodes)
            found = judge_locality(routes, _EXPERTS, cluster, "locality", None)
            rows = {(row["what"], row["requests"]): row for row in found.traffic}
            saved = "; ".join(
                f"{rows[key]['saved']:+.1%}"
                for key in (
                    ("random", "dealt"),
                    ("contiguous", "grouped"),
                    ("locality", "dealt"),
                    ("locality", "grouped"),
                )
            )
            before = rows["contiguous", "dealt"]["token_copies"]
            after = rows["locality", "grouped"]["token_copies"]
            print(
                f"{shift} ({distance:.2f}), {nodes}: {saved} ({before:.3f} to {after:.3f}), "
                f"{time.perf_counter() - start:.0f} s"
            )


def _routes(shift: float) -> tuple[TokenRoutes, float]:
    """Return tokens of requests of several domains, and how far domains lie apart."""
    random = np.random.default_rng(0)
    shared = random.normal(0, _SHARED, (_LAYERS, _EXPERTS))
    domains = random.normal(0, shift, (_DOMAINS, _LAYERS, _EXPERTS))
    domain = random.integers(0, _DOMAINS, _REQUESTS)
    chosen, distances = [], []
    for layer in range(_LAYERS):
        own = random.normal(0, _OWN, (_REQUESTS, _EXPERTS))
        scores = np.repeat(shared[layer] + domains[domain, layer] + own, _TOKENS, axis=0)
        scores += random.gumbel(size=scores.shape)
        chosen.append(scores.argpartition(-_TOP_K, axis=1)[:, -_TOP_K:].astype(np.int64))
        distances.append(_distance(chosen[-1], np.repeat(domain, _TOKENS)))
    requests = np.repeat(np.arange(_REQUESTS), _TOKENS)
    first = np.tile(np.arange(_TOKENS) < _TOKENS // 2, _REQUESTS)
    routes = TokenRoutes(
        layers=tuple(range(_LAYERS)),
        chosen=tuple(chosen),
        requests=(requests,) * _LAYERS,
        is_first=(first,) * _LAYERS,
        count=_REQUESTS,
        every=1,
        has_phases=False,
        has_requests=True,
    )
    return routes, float(np.mean(distances))


def _distance(chosen: np.ndarray, domain: np.ndarray) -> float:
    """Return the mean Jensen-Shannon distance between the popularity of experts of two domains."""
    shares = [
        np.bincount(chosen[domain == each].reshape(-1), minlength=_EXPERTS) + 1e-12
        for each in range(_DOMAINS)
    ]
    shares = [each / each.sum() for each in shares]
    found = []
    for one, other in combinations(shares, 2):
        middle = (one + other) / 2
        divergence = sum((each * np.log2(each / middle)).sum() for each in (one, other)) / 2
        found.append(np.sqrt(divergence))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
