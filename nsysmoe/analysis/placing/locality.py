"""Copies between nodes under plans and groups of requests, judged on requests held out of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.placement.cluster import Cluster
    from nsysmoe.routing.tokens import TokenRoutes

    Floats = NDArray[np.float64]
    Map = NDArray[np.int64]

DEALT, GROUPED = "dealt", "grouped"
# There and back: dispatched to experts, and combined again.
_WAYS = 2


@dataclass(frozen=True, eq=False)
class Locality:
    """What leaves a node under each way to place.

    Attributes:
        traffic: An answer's ``traffic``.
        devices: Loads of devices, each half of the requests under the plan of the other; shape
            [layers, gpus]; None unless the plan is for locality.
        map: The plan from all requests, shape [layers, slots]; None as well.
    """

    traffic: tuple[dict[str, Any], ...]
    devices: Floats | None
    map: Map | None


@dataclass(frozen=True, eq=False)
class _Part:
    """Tokens of some requests, by layer, requests numbered anew."""

    chosen: tuple[Map, ...]
    requests: tuple[Map, ...]
    count: int

    def loads(self, experts: int) -> Floats:
        """Return the choices of each expert, shape [layers, experts]."""
        import numpy as np  # noqa: PLC0415

        return np.stack(
            [np.bincount(each.reshape(-1), minlength=experts) for each in self.chosen]
        ).astype(np.float64)


def judge_locality(
    routes: TokenRoutes,
    experts: int,
    cluster: Cluster,
    algorithm: str,
    copy_bytes: float | None,
) -> Locality:
    """Count copies for each half of the requests under plans from the other half.

    A request runs on the node that holds most of what its first tokens chose, as many requests on
    each node; the tokens after them are counted.

    Args:
        routes: Tokens of the log.
        experts: Logical experts of a layer; the nodes divide them.
        cluster: Where experts can live.
        algorithm: What else is judged beside contiguous and random experts.
        copy_bytes: Bytes of a token's hidden state.
    """
    counted: dict[tuple[str, str], list[Floats]] = {}
    devices: list[Floats] = []
    for fold in (0, 1):
        seen = _part(routes, fold)
        begun, rest = (_part(routes, 1 - fold, is_first=first) for first in (True, False))
        for what, requests, map_ in _plans(seen, experts, cluster, algorithm):
            homes = _dealt(begun.count, cluster.nodes, is_random=what == "random")
            if requests == GROUPED:
                homes = _grouped(begun, map_, cluster, experts)
            counted.setdefault((what, requests), []).append(
                _copies(rest, homes, map_, cluster, experts)
            )
            if (what, requests) == ("locality", GROUPED):
                unseen = _part(routes, 1 - fold).loads(experts)
                devices.append(_device_loads(map_, unseen, cluster))
    traffic = _rows(counted, copy_bytes, len(routes.layers))
    if algorithm != "locality":
        return Locality(traffic, None, None)
    whole = _part(routes, None)
    return Locality(traffic, devices[0] + devices[1], _local(whole, experts, cluster))


def judge_map(
    routes: TokenRoutes, plain: Map, map_: Map, cluster: Cluster, copy_bytes: float | None
) -> tuple[dict[str, Any], ...]:
    """Count copies for all requests under contiguous experts and under a map: ``traffic``.

    Args:
        routes: Tokens of the log.
        plain: Contiguous experts, shape [layers, experts].
        map_: The map, shape [layers, slots].
        cluster: Its GPUs, slots and nodes.
        copy_bytes: Bytes of a token's hidden state.
    """
    experts = plain.shape[1]
    begun, rest = (_part(routes, None, is_first=first) for first in (True, False))
    counted = {}
    for requests in (DEALT, GROUPED):
        for what, each in (("contiguous", plain), ("this map", map_)):
            homes = _dealt(begun.count, cluster.nodes, is_random=False)
            if requests == GROUPED:
                homes = _grouped(begun, each, cluster, experts)
            counted[what, requests] = [_copies(rest, homes, each, cluster, experts)]
    return _rows(counted, copy_bytes, len(routes.layers))


def _part(routes: TokenRoutes, fold: int | None, *, is_first: bool | None = None) -> _Part:
    """Return every other request, or all of them; of their tokens the first ones, or the rest."""
    import numpy as np  # noqa: PLC0415

    chosen, requests = [], []
    for experts, request, first in zip(
        routes.chosen, routes.requests, routes.is_first, strict=True
    ):
        taken = np.ones(request.size, dtype=bool) if fold is None else request % 2 == fold
        if is_first is not None:
            taken &= first == is_first
        chosen.append(experts[taken])
        requests.append(request[taken] if fold is None else request[taken] // 2)
    count = routes.count if fold is None else (routes.count + 1 - fold) // 2
    return _Part(tuple(chosen), tuple(requests), count)


def _plans(
    seen: _Part, experts: int, cluster: Cluster, algorithm: str
) -> Iterator[tuple[str, str, Map]]:
    """Yield what is judged: how experts are placed, how requests are, and the map."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.placement.plan import place  # noqa: PLC0415
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    layers = len(seen.chosen)
    plain = contiguous(layers, experts, experts)
    random = np.random.default_rng(0).permuted(plain, axis=1)
    yield "contiguous", DEALT, plain
    yield "random", DEALT, random
    name = "eplb" if algorithm in {"locality", "active"} else algorithm
    yield name, DEALT, place(seen.loads(experts), cluster, name)  # type: ignore[arg-type]
    if algorithm == "locality":
        yield "contiguous", GROUPED, plain
        yield "locality", DEALT, _local(seen, experts, cluster, with_groups=False)
        yield "locality", GROUPED, _local(seen, experts, cluster)


def _local(part: _Part, experts: int, cluster: Cluster, *, with_groups: bool = True) -> Map:
    from nsysmoe.placement.locality import place_locally  # noqa: PLC0415 - numpy
    from nsysmoe.placement.plan import place_on_nodes  # noqa: PLC0415

    sizes = experts, cluster.nodes, part.count
    node_of, _ = place_locally(part.chosen, part.requests, sizes, with_groups=with_groups)
    return place_on_nodes(part.loads(experts), node_of, cluster)


def _dealt(count: int, nodes: int, *, is_random: bool) -> Map:
    """Return the node of each request: in turn, or as many on each at random."""
    import numpy as np  # noqa: PLC0415

    dealt = np.arange(count) % nodes
    return np.random.default_rng(1).permutation(dealt) if is_random else dealt


def _grouped(begun: _Part, map_: Map, cluster: Cluster, experts: int) -> Map:
    """Return the node of each request: where the experts of its first tokens live."""
    from nsysmoe.metrics.routed_load.traffic import held_shares  # noqa: PLC0415
    from nsysmoe.placement.locality import group_requests  # noqa: PLC0415

    node_of = held_shares(map_, experts, cluster.nodes).argmax(axis=2)
    return group_requests(begun.chosen, begun.requests, node_of, cluster.nodes, begun.count)


def _copies(rest: _Part, homes: Map, map_: Map, cluster: Cluster, experts: int) -> Floats:
    from nsysmoe.metrics.routed_load.traffic import copies, held_shares  # noqa: PLC0415 - numpy

    return copies(rest.chosen, rest.requests, homes, held_shares(map_, experts, cluster.nodes))


def _device_loads(map_: Map, loads: Floats, cluster: Cluster) -> Floats:
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415 - numpy

    return device_loads(map_, loads, cluster.gpus)


def _rows(
    counted: dict[tuple[str, str], list[Floats]], copy_bytes: float | None, layers: int
) -> tuple[dict[str, Any], ...]:
    """Return an answer's ``traffic``; intervals resample requests."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.held_out import saved  # noqa: PLC0415

    every = {key: np.concatenate(parts) for key, parts in counted.items()}
    before = every["contiguous", DEALT]
    # Requests without a token to count tell nothing.
    known = before[:, 0] > 0
    rows = []
    for (what, requests), found in every.items():
        tokens, once, each = found.sum(axis=0)
        share, interval = (0.0, None)
        if before[:, 1].sum():
            share, interval = saved(before[known, 1], found[known, 1])
        low, high = interval or (None, None)
        rows.append(
            {
                "what": what,
                "requests": requests,
                "token_copies": float(once / tokens),
                "choice_copies": float(each / tokens),
                "bytes": None
                if copy_bytes is None
                else float(once / tokens) * layers * _WAYS * copy_bytes,
                "saved": share,
                "low": low,
                "high": high,
            }
        )
    return tuple(rows)
