"""Plans from a routing log: judged on steps, or requests, that they were not made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.placing.placement import (
    Memory,
    PlacementAnswer,
    layer_rows,
    loads_before,
    map_for,
    not_used,
    paying,
    replica_rows,
    sentence_of,
    within,
    without_maps,
)
from nsysmoe.errors import MissingDataError, PlacementError
from nsysmoe.findings import Finding
from nsysmoe.placement.cluster import ROUTED_ALGORITHMS, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.analysis.placing.locality import Locality
    from nsysmoe.placement.cluster import Algorithm, RoutedAlgorithm
    from nsysmoe.routing.tokens import TokenRoutes

    Floats = NDArray[np.float64]
    Map = NDArray[np.int64]

# As routing.tokens has it, which imports polars.
WINDOW_TOKENS = 256


@dataclass(frozen=True)
class _Log:
    """A log as steps, and as tokens where a plan or its judgement needs them."""

    source: str
    cube: Floats
    decode: Floats
    routes: TokenRoutes | None
    findings: tuple[Finding, ...]


def plan_routed(
    routing: str | Path,
    cluster: Cluster,
    algorithm: Algorithm | RoutedAlgorithm = "best",
    *,
    memory: Memory | None = None,
    copy_bytes: float | None = None,
) -> PlacementAnswer:
    """Place the experts of every layer by a routing log.

    The plan is made from all of the log. What it is judged by comes from plans made from one half
    of the steps and judged on the other, both ways round; copies between nodes from halves of the
    requests, which run on the node that the first part of their tokens tells, counted for the rest.

    Args:
        routing: A routing log of any form.
        cluster: Where experts can live; with ``memory`` its slots are those of the budget.
        algorithm: One of ``placement.cluster.ALGORITHMS`` or ``ROUTED_ALGORITHMS``: ``active``
            balances the experts that decode steps activate, ``locality`` keeps tokens on a node.
        memory: What redundant experts may take.
        copy_bytes: Bytes of a token's hidden state; None leaves bytes unknown.

    Raises:
        PlacementError: The experts cannot be placed so.
        MissingDataError: Too few steps or requests to judge on.
        InputError: The log cannot be used, or holds counts where tokens are needed.
    """
    log = _read(Path(routing), cluster, algorithm)
    loads = log.cube.sum(axis=0)
    cluster = within(cluster, memory, loads)
    cluster.check(loads.shape[1])
    makers = _makers(algorithm, cluster, loads.shape[1])
    activity = _activity(log.decode, makers, cluster)
    local = _local(log, cluster, algorithm, copy_bytes)
    if local is not None and local.map is not None:
        map_, held_out = local.map, rows_of(local.devices, loads, cluster.gpus)
    else:
        map_ = makers[algorithm](log.decode if algorithm == "active" else log.cube)
        held_out = _held_out(log, makers, algorithm, cluster)
    traffic = () if local is None else local.traffic
    rows = _replicas(log, cluster, algorithm, memory)
    layers = layer_rows(map_, loads, cluster.gpus)
    told = _lead(algorithm, held_out, activity, traffic)
    return PlacementAnswer(
        log.source,
        algorithm,
        layers,
        without_maps(held_out),
        told[0],
        (*_not_kept(cluster, algorithm), *log.findings),
        also=(*told[1:], *paying(rows)),
        before=loads_before(loads, cluster.gpus),
        activity=tuple(activity),
        traffic=traffic,
        replicas=tuple(rows),
    )


def evaluate_routed(
    map_path: str | Path,
    routing: str | Path,
    gpus: int | None = None,
    *,
    nodes: int = 1,
    copy_bytes: float | None = None,
) -> PlacementAnswer:
    """Judge a map on all steps and requests of a routing log.

    Args:
        map_path: A plan of ours, a bare ``physical_to_logical_map``, or a run's record.
        routing: A routing log of any form.
        gpus: Devices; None where the plan tells them.
        nodes: Servers; with two and more, copies between them are counted, where a request runs
            told by the first part of its tokens.
        copy_bytes: Bytes of a token's hidden state; None leaves bytes unknown.

    Raises:
        MissingDataError: Nothing tells the GPUs, or the log holds no choice.
        PlacementError: Map and log do not fit each other.
        InputError: A file is of another form.
    """
    from nsysmoe.analysis.placing.locality import judge_map  # noqa: PLC0415
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415 - numpy

    map_, count = map_for(map_path, gpus)
    cluster = Cluster(count, map_.shape[1], nodes)
    log = _read(Path(routing), cluster, "contiguous", int(map_.max()) + 1)
    loads = log.cube.sum(axis=0)
    layers = layer_rows(map_, loads, count)
    cluster.check(loads.shape[1])
    plain = contiguous(len(loads), loads.shape[1], loads.shape[1])
    makers: dict[str, Callable[[Floats], Map]] = {"this map": lambda _: map_}
    before = loads_before(loads, count)
    if before:
        makers = {"contiguous": lambda _: plain} | makers
    traffic: tuple[dict[str, Any], ...] = ()
    if log.routes is not None and loads.shape[1] % nodes == 0:
        traffic = judge_map(log.routes, plain, map_, cluster, copy_bytes)
    return PlacementAnswer(
        log.source,
        str(map_path),
        layers,
        (),
        sentence_of(f"Under {Path(map_path).name}", layers, is_held_out=False),
        log.findings,
        before=before,
        activity=tuple(_activity(log.decode, makers, cluster)) if before else (),
        traffic=traffic,
    )


def _read(path: Path, cluster: Cluster, algorithm: str, experts: int | None = None) -> _Log:
    """Read a log; with ``experts`` (at least) to judge a map, else for plans, which need halves."""
    from nsysmoe.analysis.routing.routing_load import count_logs  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.held_out import step_cube  # noqa: PLC0415

    counted = count_logs([path])
    counts = counted.counts
    if counts["step"].null_count():
        counts = _steps(path)
    width = max(counted.experts, experts or 0)
    cube = step_cube(counts, width)
    if len(cube) < 2 and experts is None:
        raise MissingDataError(
            f"{path} tells one step: nothing is left to judge a plan on; give its loads to --loads"
        )
    decode, findings = cube, list(counted.findings)
    routes = _tokens(path, cluster, algorithm)
    if routes is not None and routes.has_phases:
        decode = step_cube(_steps(path, "decode"), width)
    elif algorithm == "active":
        findings.append(_no_phases(path))
    if routes is not None and not routes.has_requests and cluster.nodes > 1:
        findings.append(_no_requests(path))
    if len(decode) < 2 and experts is None:
        raise MissingDataError(f"{path} tells one decode step: nothing is left to judge a plan on")
    return _Log(str(path), cube, decode, routes, tuple(findings))


def _steps(path: Path, phase: str | None = None) -> pl.DataFrame:
    """Count choices by step; without steps all tokens of one number stand for one.

    Requests that generate side by side are at about the same token.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.routed_load.routing_loads import KEY, count_choices  # noqa: PLC0415
    from nsysmoe.routing.convert import logs_of, open_log  # noqa: PLC0415

    def batches() -> Iterator[pl.DataFrame]:
        for source in (open_log(log) for log in logs_of([path])):
            is_tokens = source.level == "tokens"
            for batch in source.batches:
                numbered = batch
                if is_tokens:
                    numbered = batch.with_columns(step=pl.coalesce("step", "token"))
                    if phase is not None:
                        numbered = numbered.filter(pl.col("phase") == phase)
                yield numbered.select([*KEY] if is_tokens else [*KEY, "tokens"])

    return count_choices(batches())


def _tokens(path: Path, cluster: Cluster, algorithm: str) -> TokenRoutes | None:
    """Read tokens where they are needed; None where the log holds counts and can do without."""
    from nsysmoe.routing.convert import logs_of, open_log  # noqa: PLC0415
    from nsysmoe.routing.tokens import read_tokens  # noqa: PLC0415

    if algorithm == "locality" and cluster.nodes < 2:
        raise PlacementError("locality is between nodes: give --nodes of 2 and more")
    if algorithm not in ROUTED_ALGORITHMS and cluster.nodes == 1:
        return None
    sources = [open_log(log) for log in logs_of([path])]
    if algorithm != "locality" and any(source.level == "counts" for source in sources):
        return None
    return read_tokens(sources, 4 * cluster.nodes)


def _local(
    log: _Log, cluster: Cluster, algorithm: str, copy_bytes: float | None
) -> Locality | None:
    """Judge copies between nodes; None where there is one node, or no tokens to count."""
    from nsysmoe.analysis.placing.locality import judge_locality  # noqa: PLC0415

    experts = log.cube.shape[2]
    if log.routes is None or cluster.nodes == 1:
        return None
    if algorithm != "locality" and experts % cluster.nodes:
        return None
    return judge_locality(log.routes, experts, cluster, algorithm, copy_bytes)


def _makers(
    algorithm: Algorithm | RoutedAlgorithm, cluster: Cluster, experts: int
) -> dict[str, Callable[[Floats], Map]]:
    """Return how each plan that is judged is made from steps [steps, layers, experts]."""
    from nsysmoe.placement.activity import place_by_steps  # noqa: PLC0415 - numpy
    from nsysmoe.placement.plan import place  # noqa: PLC0415
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    def by_loads(name: Algorithm) -> Callable[[Floats], Map]:
        return lambda cube: place(cube.sum(axis=0), cluster, name)

    # Without replicas where that divides: redundant experts are a plan's own cost.
    plain = experts if experts % cluster.gpus == 0 else cluster.slots
    made: dict[str, Callable[[Floats], Map]] = {
        "contiguous": lambda cube: contiguous(cube.shape[1], cube.shape[2], plain),
        "eplb": by_loads("eplb"),
        "best": by_loads("best"),
    }
    if algorithm == "active":
        made["active"] = lambda cube: place_by_steps(cube, cluster.gpus, cluster.slots)
    elif algorithm != "locality" and algorithm not in made:
        made[algorithm] = by_loads(algorithm)
    return made


def _folds(cube: Floats) -> list[tuple[Floats, Floats]]:
    """Return two pairs of steps, those that a plan is made from and those it is judged on."""
    return [(cube[::2], cube[1::2]), (cube[1::2], cube[::2])]


def _activity(
    decode: Floats, makers: dict[str, Callable[[Floats], Map]], cluster: Cluster
) -> list[dict[str, Any]]:
    """Judge each plan by the blocks of rows and the experts that the busiest GPU reads a step."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.expert_parallel import active_blocks, active_experts  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.held_out import saved  # noqa: PLC0415
    from nsysmoe.placement.activity import BLOCK_ROWS  # noqa: PLC0415

    sums: dict[str, Floats] = {}
    rows = []
    for what, make in makers.items():
        blocks, active = [], []
        for seen, unseen in _folds(decode):
            map_ = make(seen)
            blocks.append(active_blocks(unseen, map_, cluster.gpus, BLOCK_ROWS))
            active.append(active_experts(unseen, map_, cluster.gpus))
        every = np.concatenate(blocks)
        sums[what] = every.max(axis=2).sum(axis=1).astype(np.float64)
        share, interval = saved(sums["contiguous"], sums[what])
        low, high = interval or (None, None)
        rows.append(
            {
                "what": what,
                "blocks": float(every.max(axis=2).mean()),
                "mean_blocks": float(every.mean()),
                "active": float(np.concatenate(active).max(axis=2).mean()),
                "saved": share,
                "low": low,
                "high": high,
            }
        )
    return rows


def _held_out(
    log: _Log, makers: dict[str, Callable[[Floats], Map]], algorithm: str, cluster: Cluster
) -> tuple[dict[str, Any], ...]:
    """Return what devices carry, each step under the plan of the half that it is not in."""
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415 - numpy

    make = makers[algorithm]
    made_from = _folds(log.decode if algorithm == "active" else log.cube)
    devices = sum(
        device_loads(make(seen), unseen.sum(axis=0), cluster.gpus)
        for (seen, _), (_, unseen) in zip(made_from, _folds(log.cube), strict=True)
    )
    return rows_of(devices, log.cube.sum(axis=0), cluster.gpus)


def rows_of(devices: Any, loads: Floats, gpus: int) -> tuple[dict[str, Any], ...]:
    """Return an answer's rows of layers, without maps, from the loads of devices."""
    from nsysmoe.placement.loads import balancedness  # noqa: PLC0415 - numpy

    plain = loads_before(loads, gpus)
    return tuple(
        {
            "device_loads": row.tolist(),
            "max_load": float(row.max()),
            "balancedness": float(balanced),
            "contiguous_max_load": max(plain[layer]) if plain else None,
        }
        for layer, (row, balanced) in enumerate(zip(devices, balancedness(devices), strict=True))
    )


def _replicas(
    log: _Log, cluster: Cluster, algorithm: str, memory: Memory | None
) -> list[dict[str, Any]]:
    """Say which replicas pay, on the half of the steps that the plans are not made from."""
    if memory is None:
        return []
    (seen, unseen), _ = _folds(log.cube)
    how: Algorithm = "best" if algorithm in ROUTED_ALGORITHMS else algorithm  # type: ignore[assignment]
    return replica_rows(seen.sum(axis=0), unseen.sum(axis=0), cluster, how, memory)


def _lead(
    algorithm: str,
    held_out: tuple[dict[str, Any], ...],
    activity: list[dict[str, Any]],
    traffic: tuple[dict[str, Any], ...],
) -> list[str]:
    """Say what the plan was made for first, then how it balances loads."""
    balance = sentence_of(algorithm, held_out, is_held_out=True)
    told = []
    if algorithm == "active":
        told.append(_of_activity({row["what"]: row for row in activity}))
    if algorithm == "locality":
        told.append(_of_traffic({(row["what"], row["requests"]): row for row in traffic}))
    return [*told, balance]


def _of_activity(rows: dict[str, dict[str, Any]]) -> str:
    row = rows["active"]
    beside = ", ".join(
        f"{rows[name]['blocks']:.2f} {text}"
        for name, text in (("contiguous", "with contiguous experts"), ("eplb", "with EPLB's plan"))
    )
    return (
        f"In decode the busiest GPU reads {row['blocks']:.2f} experts' blocks a layer "
        f"({beside}; {row['mean_blocks']:.2f} on the mean GPU): {-row['saved']:+.1%}"
        f"{_interval(row)}."
    )


def _of_traffic(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    row = rows["locality", "grouped"]
    plain, dealt = rows["contiguous", "dealt"], rows["random", "dealt"]
    parts = (
        f"{-rows['locality', 'dealt']['saved']:+.1%} by placement alone",
        f"{-rows['contiguous', 'grouped']['saved']:+.1%} by grouping requests alone",
    )
    return (
        f"A token is sent to {row['token_copies']:.3f} other nodes a layer "
        f"({plain['token_copies']:.3f} with contiguous experts, {dealt['token_copies']:.3f} with "
        f"random ones): {-row['saved']:+.1%}{_interval(row)}, {', '.join(parts)}."
    )


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    return f" (95 % {-row['high']:+.1%} to {-row['low']:+.1%})"


def _not_kept(cluster: Cluster, algorithm: Algorithm | RoutedAlgorithm) -> list[Finding]:
    """Nodes that a plan ignores are worth a word, unless they are what it was made for."""
    if algorithm == "locality" or cluster.groups == 1:
        return []
    return not_used(cluster, algorithm)


def _no_phases(path: Path) -> Finding:
    return Finding(
        "no_phases",
        "info",
        f"{path} does not tell prefill from decode: all its steps count as decode's; without steps "
        "all tokens of one number stand for one, prompts' too",
        {"source": str(path)},
    )


def _no_requests(path: Path) -> Finding:
    return Finding(
        "no_requests",
        "warning",
        f"{path} names too few requests to group: each {WINDOW_TOKENS} consecutive tokens of a "
        "layer stand for one",
        {"source": str(path)},
    )
