"""Where experts should live, and what each device carries then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.placement.cluster import HIERARCHICAL, Cluster

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.placement.cluster import Algorithm, RoutedAlgorithm

# A slot a GPU more that saves less of the busiest GPUs' load is not worth its memory.
_WORTH = 0.01
_ACRONYMS = ("eplb", "lpt")
# Numbers of slots that are planned for at most.
_MOST_ROWS = 17


@dataclass(frozen=True)
class PlacementAnswer:
    """A map of experts and the loads of devices under it.

    Attributes:
        source: The file of loads that it is judged on.
        what: The algorithm, or the file of the map.
        layers: One a layer: ``physical_to_logical_map``, ``device_loads``, ``max_load``,
            ``balancedness`` (mean / max of the devices), ``contiguous_max_load`` (null where
            experts do not divide among the GPUs).
        held_out: The same without the map, on loads that the plan has not seen; empty without.
        sentence: What it comes to.
        findings: What to know before believing it.
        also: What else to say, a sentence each.
        before: Loads of devices with experts in order, by layer, on the loads that ``held_out``
            is of, or ``layers``; empty where experts do not divide among the GPUs.
        activity: What decode pays for on steps that the plans have not seen; one a way to place:
            ``what``, ``blocks`` and ``active`` (mean over layers and steps of the GPU with most),
            ``mean_blocks`` (of all GPUs), ``saved`` blocks against contiguous experts, ``low``,
            ``high``. Empty without a routing log.
        traffic: Copies between nodes for tokens that the plans have not seen; one a way to place
            experts and requests: ``what``, ``requests`` (``dealt`` in turn or ``grouped``),
            ``token_copies``, ``choice_copies`` (both a token and layer), ``bytes`` (a token over
            all layers, there and back; null where not known), ``saved`` token copies against
            contiguous experts, ``low``, ``high``. Empty with one node, or without tokens.
        replicas: What more slots would bring, one a number of them within the memory budget:
            ``redundant``, ``slots``, ``bytes`` (a GPU), ``critical`` (Σ over layers of the
            busiest GPU's load), ``saved`` against none, ``gained`` against the row before,
            ``pays``. Empty without a budget.
    """

    source: str
    what: str
    layers: tuple[dict[str, Any], ...]
    held_out: tuple[dict[str, Any], ...]
    sentence: str
    findings: tuple[Finding, ...]
    also: tuple[str, ...] = ()
    before: tuple[list[float], ...] = ()
    activity: tuple[dict[str, Any], ...] = ()
    traffic: tuple[dict[str, Any], ...] = ()
    replicas: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Memory:
    """What redundant experts may take.

    Attributes:
        budget_bytes: Of each GPU, over all layers, beyond its share of the experts.
        expert_bytes: Weights of one expert of one layer.
    """

    budget_bytes: float
    expert_bytes: float


def plan(
    loads: str | Path,
    cluster: Cluster,
    algorithm: Algorithm = "best",
    held_out: str | Path | None = None,
    memory: Memory | None = None,
) -> PlacementAnswer:
    """Place the experts of every layer.

    Args:
        loads: CSV without header, one line a layer, one column an expert.
        cluster: Where experts can live; with ``memory`` its slots are those that the budget
            allows, whatever it says.
        algorithm: One of ``placement.cluster.ALGORITHMS``.
        held_out: Loads of other steps to judge the plan on.
        memory: What redundant experts may take.

    Raises:
        PlacementError: The experts cannot be placed so.
        InputError: A file is no table of loads.
    """
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy
    from nsysmoe.routing.loads import read_loads  # noqa: PLC0415

    seen = read_loads(Path(loads))
    unseen = None if held_out is None else read_loads(Path(held_out))
    judged = seen if unseen is None else unseen
    cluster = within(cluster, memory, seen)
    map_ = place(seen, cluster, algorithm)
    layers = layer_rows(map_, seen, cluster.gpus)
    others = () if unseen is None else layer_rows(map_, unseen, cluster.gpus)
    rows = [] if memory is None else replica_rows(seen, judged, cluster, algorithm, memory)
    return PlacementAnswer(
        str(loads),
        algorithm,
        layers,
        without_maps(others),
        sentence_of(algorithm, others or layers, is_held_out=bool(others)),
        (*not_used(cluster, algorithm), *_in_sample(held_out)),
        also=paying(rows),
        before=loads_before(judged, cluster.gpus),
        replicas=tuple(rows),
    )


def within(cluster: Cluster, memory: Memory | None, loads: NDArray[np.float64]) -> Cluster:
    """Return the cluster with the slots that the memory allows."""
    from nsysmoe.placement.budget import slots_within  # noqa: PLC0415

    if memory is None:
        return cluster
    layers, experts = loads.shape
    slots = slots_within(memory.budget_bytes, memory.expert_bytes, layers, experts, cluster.gpus)
    return replace(cluster, slots=slots)


def replica_rows(
    seen: NDArray[np.float64],
    unseen: NDArray[np.float64],
    cluster: Cluster,
    algorithm: Algorithm,
    memory: Memory,
) -> list[dict[str, Any]]:
    """Plan with every number of slots a GPU up to the budget's, and say which still pay.

    Args:
        seen: Loads that plans are made from, shape [layers, experts].
        unseen: Loads that they are judged on.
        cluster: With the slots that the budget allows.
        algorithm: How to place.
        memory: The budget.
    """
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415 - numpy
    from nsysmoe.placement.plan import place  # noqa: PLC0415

    layers, experts = seen.shape
    gpus = cluster.gpus
    fewest, most = -(-experts // gpus), cluster.slots // gpus
    rows: list[dict[str, Any]] = []
    for each in _spaced(fewest, most):
        map_ = place(seen, replace(cluster, slots=each * gpus), algorithm)
        critical = float(device_loads(map_, unseen, gpus).max(axis=1).sum())
        none = rows[0]["critical"] if rows else critical
        last = rows[-1]["critical"] if rows else critical
        gained = (last - critical) / none if none else 0.0
        rows.append(
            {
                "redundant": each * gpus - experts,
                "slots": each * gpus,
                "bytes": (each - experts / gpus) * layers * memory.expert_bytes,
                "critical": critical,
                "saved": 1 - critical / none if none else 0.0,
                "gained": gained,
                "pays": gained >= _WORTH and all(row["pays"] for row in rows[1:]),
            }
        )
    return rows


def _spaced(fewest: int, most: int) -> list[int]:
    """Return slots a GPU from ``fewest`` to ``most``, both of them, not too many to plan."""
    from numpy import linspace  # noqa: PLC0415

    count = min(most - fewest + 1, _MOST_ROWS)
    return sorted({round(float(each)) for each in linspace(fewest, most, count)})


def paying(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Say how many replicas the budget holds and how many of them pay; nothing without rows."""
    if not rows:
        return ()
    last = rows[-1]
    pays = max((row for row in rows if row["pays"]), key=lambda row: row["slots"], default=None)
    held = (
        f"The memory budget holds {last['redundant']:,} redundant experts a layer "
        f"({last['slots']:,} slots, {last['bytes'] / 1e9:,.2f} GB a GPU)"
    )
    if last["slots"] == rows[0]["slots"]:
        return (f"{held}.",)
    if pays is None:
        return (f"{held}, none of which pays: the first saves less than {_WORTH:.0%} of the load.",)
    if pays is last:
        return (f"{held}, all of which pay: {last['saved']:.1%} less on the busiest GPUs.",)
    told = (
        f"{held}, of which {pays['redundant']:,} pay ({pays['saved']:.1%} less on the busiest "
        f"GPUs): the next slot a GPU saves less than {_WORTH:.0%} of the load."
    )
    return (told,)


def evaluate(map_path: str | Path, loads: str | Path, gpus: int | None = None) -> PlacementAnswer:
    """Judge a map on loads.

    Args:
        map_path: A plan of ours, a bare ``physical_to_logical_map``, or a run's record.
        loads: CSV without header, one line a layer, one column an expert.
        gpus: Devices; None where the plan tells them.

    Raises:
        MissingDataError: Nothing tells the GPUs.
        PlacementError: Map and loads do not fit each other.
        InputError: A file is of another form.
    """
    from nsysmoe.routing.loads import read_loads  # noqa: PLC0415 - numpy

    map_, count = map_for(map_path, gpus)
    judged = read_loads(Path(loads))
    layers = layer_rows(map_, judged, count)
    sentence = sentence_of(f"Under {Path(map_path).name}", layers, is_held_out=False)
    return PlacementAnswer(
        str(loads), str(map_path), layers, (), sentence, (), before=loads_before(judged, count)
    )


def map_for(map_path: str | Path, gpus: int | None) -> tuple[NDArray[np.int64], int]:
    """Return a map of any form, shape [layers, slots], and the GPUs that share its slots.

    Raises:
        MissingDataError: Nothing tells the GPUs.
        InputError: The file holds no map.
    """
    from nsysmoe.routing.loads import read_map  # noqa: PLC0415 - numpy

    map_, told = read_map(Path(map_path))
    if gpus is None and told is None:
        raise MissingDataError(f"{map_path} does not tell how many GPUs there are: give --gpus")
    return map_, gpus or told or 1


def loads_before(loads: NDArray[np.float64], gpus: int) -> tuple[list[float], ...]:
    """Return the loads of devices with experts in order; empty where they do not divide."""
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415 - numpy
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    layers, experts = loads.shape
    if experts % gpus:
        return ()
    return tuple(device_loads(contiguous(layers, experts, experts), loads, gpus).tolist())


def layer_rows(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int
) -> tuple[dict[str, Any], ...]:
    """Return what devices carry in each layer: an answer's ``layers``."""
    from nsysmoe.placement.loads import balancedness, device_loads  # noqa: PLC0415 - numpy

    devices = device_loads(map_, loads, gpus)
    plain = loads_before(loads, gpus)
    return tuple(
        {
            "physical_to_logical_map": map_[layer].tolist(),
            "device_loads": devices[layer].tolist(),
            "max_load": float(devices[layer].max()),
            "balancedness": float(balanced),
            "contiguous_max_load": max(plain[layer]) if plain else None,
        }
        for layer, balanced in enumerate(balancedness(devices))
    )


def without_maps(layers: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Return the rows of layers without the map, which is told once."""
    return tuple(
        {key: value for key, value in layer.items() if key != "physical_to_logical_map"}
        for layer in layers
    )


def sentence_of(what: str, layers: tuple[dict[str, Any], ...], *, is_held_out: bool) -> str:
    """Say how much more the busiest device carries than the mean, beside contiguous experts."""
    mean = sum(sum(row["device_loads"]) / len(row["device_loads"]) for row in layers)
    busiest = sum(row["max_load"] for row in layers)
    plain = [row["contiguous_max_load"] for row in layers]
    if not mean:
        return f"{what}: the loads are all 0, so there is nothing to balance."
    where = " on held-out loads" if is_held_out else ""
    beside = ""
    if None not in plain:
        beside = f" ({sum(plain) / mean - 1:.1%} with contiguous experts)"
    start = what.upper() if what in _ACRONYMS else what[:1].upper() + what[1:]
    return (
        f"{start}: the busiest GPU carries {busiest / mean - 1:.1%} more than the mean{where}"
        f"{beside}; balancedness {mean / busiest:.4f} over {len(layers)} "
        f"layer{'s' if len(layers) > 1 else ''}."
    )


def not_used(cluster: Cluster, algorithm: Algorithm | RoutedAlgorithm) -> list[Finding]:
    """Say where nodes and groups were given and the algorithm does not keep them."""
    if cluster.nodes == 1 and cluster.groups == 1:
        return []
    if algorithm in HIERARCHICAL and cluster.is_hierarchical:
        return []
    reason = (
        f"{cluster.groups} groups do not divide among {cluster.nodes} nodes"
        if algorithm in HIERARCHICAL and cluster.nodes > 1
        else f"{algorithm} places over all GPUs"
        if algorithm not in HIERARCHICAL
        else "there is one node"
    )
    return [
        Finding(
            "groups_not_kept",
            "info",
            f"groups of experts are not kept on one node: {reason}",
            {"nodes": cluster.nodes, "groups": cluster.groups, "algorithm": algorithm},
        )
    ]


def _in_sample(held_out: str | Path | None) -> list[Finding]:
    if held_out is not None:
        return []
    return [
        Finding(
            "in_sample",
            "info",
            "the plan is judged on the loads that it was made from, which flatters it: give loads "
            "of other steps with --held-out, or to `placement evaluate`",
        )
    ]
