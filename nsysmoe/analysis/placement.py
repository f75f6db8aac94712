"""Where experts should live, and what each device carries then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.placement.cluster import HIERARCHICAL, Cluster

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.placement.cluster import Algorithm

CONTIGUOUS = "contiguous"


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
    """

    source: str
    what: str
    layers: tuple[dict[str, Any], ...]
    held_out: tuple[dict[str, Any], ...]
    sentence: str
    findings: tuple[Finding, ...]


def plan(
    loads: str | Path,
    cluster: Cluster,
    algorithm: Algorithm = "best",
    held_out: str | Path | None = None,
) -> PlacementAnswer:
    """Place the experts of every layer.

    Args:
        loads: CSV without header, one line a layer, one column an expert.
        cluster: Where experts can live.
        algorithm: One of ``placement.cluster.ALGORITHMS``.
        held_out: Loads of other steps to judge the plan on.

    Raises:
        PlacementError: The experts cannot be placed so.
        InputError: A file is no table of loads.
    """
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy
    from nsysmoe.routing.loads import read_loads  # noqa: PLC0415

    seen = read_loads(Path(loads))
    map_ = place(seen, cluster, algorithm)
    layers = _layers(map_, seen, cluster.gpus)
    judged = () if held_out is None else _layers(map_, read_loads(Path(held_out)), cluster.gpus)
    findings = [*_not_used(cluster, algorithm), *_in_sample(held_out)]
    sentence = _sentence(algorithm, judged or layers, is_held_out=bool(judged))
    return PlacementAnswer(
        str(loads), algorithm, layers, _without_maps(judged), sentence, tuple(findings)
    )


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
    from nsysmoe.routing.loads import read_loads, read_map  # noqa: PLC0415 - numpy

    map_, told = read_map(Path(map_path))
    if gpus is None and told is None:
        raise MissingDataError(f"{map_path} does not tell how many GPUs there are: give --gpus")
    layers = _layers(map_, read_loads(Path(loads)), gpus or told or 1)
    sentence = _sentence(f"Under {Path(map_path).name}", layers, is_held_out=False)
    return PlacementAnswer(str(loads), str(map_path), layers, (), sentence, ())


def _layers(
    map_: NDArray[np.int64], loads: NDArray[np.float64], gpus: int
) -> tuple[dict[str, Any], ...]:
    from nsysmoe.placement.loads import balancedness, device_loads  # noqa: PLC0415 - numpy
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    devices = device_loads(map_, loads, gpus)
    experts = loads.shape[1]
    plain = None
    if experts % gpus == 0:
        plain = device_loads(contiguous(len(loads), experts, experts), loads, gpus).max(axis=1)
    return tuple(
        {
            "physical_to_logical_map": map_[layer].tolist(),
            "device_loads": devices[layer].tolist(),
            "max_load": float(devices[layer].max()),
            "balancedness": float(balanced),
            "contiguous_max_load": None if plain is None else float(plain[layer]),
        }
        for layer, balanced in enumerate(balancedness(devices))
    )


def _without_maps(layers: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {key: value for key, value in layer.items() if key != "physical_to_logical_map"}
        for layer in layers
    )


def _sentence(what: str, layers: tuple[dict[str, Any], ...], *, is_held_out: bool) -> str:
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
    start = what[:1].upper() + what[1:]
    return (
        f"{start}: the busiest GPU carries {busiest / mean - 1:.1%} more than the mean{where}"
        f"{beside}; balancedness {mean / busiest:.4f} over {len(layers)} "
        f"layer{'s' if len(layers) > 1 else ''}."
    )


def _not_used(cluster: Cluster, algorithm: Algorithm) -> list[Finding]:
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
