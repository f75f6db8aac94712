"""How balanced routing is, beside what a perfectly uniform router would show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routing.balance_devices import devices, spread_of
from nsysmoe.analysis.routing.balance_groups import LABELS, grouped, worst_experts
from nsysmoe.analysis.routing.routing_load import Beside, count_logs, thinned_steps
from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.analysis.routing.balance_devices import Spread
    from nsysmoe.analysis.routing.balance_groups import Group
    from nsysmoe.analysis.routing.routing_load import Counted

_FACTORS = (1.0, 1.25, 1.5, 2.0)
_SWEEP = (1, 4, 16, 64, 256, 1024, 4096)
_WORST = 5
# Loads of single steps in memory: 1 GB.
_LARGEST = 1 << 27
# A run's imbalance of so many times what chance gives is the router's.
_CLEAR = 2.0
_NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Balance:
    """Measures of balance by every definition in use.

    Attributes:
        source: The logs.
        shape: ``runs``, ``steps`` (null where unknown), ``layers``, ``experts``, ``top_k`` (null
            where unknown), ``choices``.
        measures: One a measure and scope (``run``: layers over the whole run; ``step``: layers in
            single steps): ``mean``, ``p50``, ``p95``, ``max``, and ``uniform``, the mean that a
            uniform router would show with as many tokens.
        engines: ``vllm_balancedness``, ``sglang_balancedness`` and ``tensorrt_ratio`` over
            experts of the whole run, and with GPUs over devices (contiguous experts).
        worst: Layers with the largest max / mean: ``layer``, ``max_over_mean``, ``hottest``.
        capacity: Rows of ``metrics.capacity.dropped``, by step where known.
        sweep: Rows of ``metrics.uniform_router.sweep``.
        observed: The log beside the sweep, one a scope: ``scope``, ``tokens`` (mean of a cell),
            ``cv``, ``excess_over_mean`` (means over cells).
        worst_experts: Rows of ``balance_groups.worst_experts``.
        needed_factor: The least capacity factor that drops nothing.
        devices: What ``balance_devices.devices`` returns; None without GPUs and map.
        by: What ``groups`` are.
        groups: Rows of ``balance_groups.grouped``; empty unless asked for.
        heat: Loads of the run, [layers][experts].
        layers: Number of each row of ``heat``.
        sentence: What it comes to.
        findings: What to know before believing it.
    """

    source: str
    shape: dict[str, int | None]
    measures: tuple[dict[str, Any], ...]
    engines: tuple[dict[str, Any], ...]
    worst: tuple[dict[str, Any], ...]
    capacity: tuple[dict[str, Any], ...]
    sweep: tuple[dict[str, Any], ...]
    observed: tuple[dict[str, Any], ...]
    worst_experts: tuple[dict[str, Any], ...]
    needed_factor: float | None
    devices: dict[str, Any] | None
    by: Group | None
    groups: tuple[dict[str, Any], ...]
    heat: tuple[tuple[float, ...], ...]
    layers: tuple[int, ...]
    sentence: str
    findings: tuple[Finding, ...]


def balance(  # noqa: PLR0913 - what is measured, by keyword
    paths: Sequence[str | Path],
    *,
    experts: int | None = None,
    top_k: int | None = None,
    gpus: int | None = None,
    map_: str | Path | None = None,
    shared: int = 0,
    by: Group | None = None,
    keep_dummy: bool = False,
    beside: Beside = _NOTHING_BESIDE,
) -> Balance:
    """Measure the balance of routing logs.

    Args:
        paths: Logs of any form, or folders of them.
        experts: Logical experts of a layer; None for the highest of the logs plus one.
        top_k: Experts a token; None for what the log tells.
        gpus: Devices that share the experts in order; None to look at experts alone.
        map_: A map of experts to look at instead of experts in order.
        shared: Experts that every token visits besides, on its own device.
        by: Measure layers, steps, phases or domains each.
        keep_dummy: Count rows of the engine's dummy runs too.
        beside: Files that tell phases and domains where the logs do not.

    Raises:
        InputError: A log cannot be used.
        MissingDataError: The logs hold no choice, or not what ``by`` asks for.
        PlacementError: Experts do not divide among the GPUs, or the map does not fit.
    """
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.capacity import needed_factor  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.routing_loads import layer_cubes, run_loads, thinned  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.uniform_router import sweep  # noqa: PLC0415

    label = by if by in LABELS else None
    counted = count_logs(paths, experts=experts, keep_dummy=keep_dummy, by=label, beside=beside)
    groups, skipped = _groups(counted, by, top_k)
    counted = _without(counted, label)
    k = top_k or counted.top_k
    loads = run_loads(counted.counts, counted.experts)
    layers = sorted(counted.counts["layer"].unique().to_list())
    has_steps = counted.counts["step"].null_count() == 0
    some, every = thinned(counted.counts, counted.experts, _LARGEST)
    cubes = {layer: cube for layer, _, cube in layer_cubes(some, counted.experts)}
    cells = list(cubes.values())
    measures = _measures("run", [loads], k or 1)
    if has_steps:
        measures += _measures("step", cells, k or 1)
    shape = _shape(counted, len(layers), k, has_steps=has_steps)
    spread = spread_of((len(layers), counted.experts), gpus, map_)
    carried = None
    if spread is not None:
        # Steps that were left out may have been all of a layer's.
        there = replace(spread, map=spread.map[[layers.index(layer) for layer in cubes]])
        per = "step" if has_steps else "run"
        carried = devices(cells, there, top_k=k or 1, shared=shared, per=per)
    return Balance(
        source=counted.source,
        shape=shape,
        measures=tuple(measures),
        engines=tuple(_engines(loads, spread)),
        worst=tuple(_worst(loads, layers)),
        capacity=tuple(_capacity(cells)),
        sweep=tuple(sweep(_SWEEP, k or 1, counted.experts)),
        observed=tuple(_observed(loads, cells if has_steps else [], k or 1)),
        worst_experts=tuple(worst_experts(loads, layers, 2 * _WORST)),
        needed_factor=needed_factor(np.concatenate(cells)),
        devices=carried,
        by=by,
        groups=tuple(groups),
        heat=tuple(map(tuple, loads.tolist())),
        layers=tuple(layers),
        sentence=_sentence(measures, shape),
        findings=(*_unknown_k(k), *thinned_steps(max(every, skipped)), *counted.findings),
    )


def _groups(
    counted: Counted, by: Group | None, top_k: int | None
) -> tuple[list[dict[str, Any]], int]:
    if by is None:
        return [], 1
    if by != "layer" and counted.counts[by].null_count() == counted.counts.height:
        fix = {"phase": "; give --run", "domain": "; give --domains"}.get(by, "")
        raise MissingDataError(f"{counted.source} tells no {by}s{fix}")
    return grouped(counted.counts, counted.experts, by, top_k or counted.top_k or 1)


def _without(counted: Counted, label: str | None) -> Counted:
    """Add up what was kept apart by a label."""
    from nsysmoe.metrics.routed_load.routing_loads import count_choices  # noqa: PLC0415 - polars

    if label is None:
        return counted
    return replace(counted, counts=count_choices([counted.counts.drop(label)]))


def _observed(
    loads: NDArray[np.float64], cells: Sequence[NDArray[np.float64]], top_k: int
) -> list[dict[str, Any]]:
    """Return the log's own points beside the uniform router's curve."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import excess_over_mean, mean_known, variation  # noqa: PLC0415

    return [
        {
            "scope": scope,
            "tokens": float(every.sum(axis=1).mean() / top_k),
            "cv": mean_known(variation(every)),
            "excess_over_mean": mean_known(excess_over_mean(every)),
        }
        for scope, every in (("run", loads), *((("step", np.concatenate(cells)),) if cells else ()))
    ]


def _shape(
    counted: Counted, layers: int, top_k: int | None, *, has_steps: bool
) -> dict[str, int | None]:
    counts = counted.counts
    return {
        "runs": counts["run"].n_unique(),
        "steps": counts.select("run", "step").n_unique() if has_steps else None,
        "layers": layers,
        "experts": counted.experts,
        "top_k": top_k,
        "choices": int(counts["tokens"].sum()),
    }


def _measures(scope: str, cells: Sequence[NDArray[np.float64]], top_k: int) -> list[dict[str, Any]]:
    """Measure every cell (a row of loads), beside a uniform router with as many tokens."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import MEASURES, mean_known, spread  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.uniform_router import baseline  # noqa: PLC0415

    experts = cells[0].shape[1]
    tokens = np.concatenate([np.rint(loads.sum(axis=1) / top_k) for loads in cells])
    rows = []
    for name, measure in MEASURES.items():
        values = np.concatenate([measure(loads) for loads in cells])
        uniform = baseline(tokens, min(top_k, experts), experts, measure)
        rows.append(
            {
                "scope": scope,
                "measure": name,
                "mean": mean_known(values),
                **spread(values),
                "uniform": mean_known(uniform),
            }
        )
    return rows


def _engines(loads: NDArray[np.float64], spread: Spread | None) -> list[dict[str, Any]]:
    from nsysmoe.metrics.routed_load.expert_parallel import step_cost  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import (  # noqa: PLC0415
        excess_over_mean,
        mean_known,
        sglang_balancedness,
        vllm_balancedness,
    )
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

    over = {"experts": loads}
    if spread is not None:
        over["devices"] = device_loads(spread.map, loads, spread.gpus)
    return [
        {
            "over": name,
            "vllm_balancedness": vllm_balancedness(values),
            "sglang_balancedness": sglang_balancedness(values),
            "tensorrt_ratio": mean_known(excess_over_mean(values)),
            "wasted_share": step_cost(values)["wasted_share"],
        }
        for name, values in over.items()
    ]


def _worst(loads: NDArray[np.float64], layers: Sequence[int]) -> list[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import max_over_mean  # noqa: PLC0415

    ratios = max_over_mean(loads)
    order = np.argsort(-ratios, kind="stable")[:_WORST]
    return [
        {
            "layer": int(layers[row]),
            "max_over_mean": float(ratios[row]),
            "hottest": int(loads[row].argmax()),
            "share": float(loads[row].max() / loads[row].sum()),
            "unused": int((loads[row] == 0).sum()),
        }
        for row in order
    ]


def _capacity(cells: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.capacity import dropped  # noqa: PLC0415

    every = np.concatenate(cells)
    return [dropped(every, factor) for factor in _FACTORS]


def _sentence(measures: Sequence[dict[str, Any]], shape: dict[str, int | None]) -> str:
    """Say how the imbalance compares with chance."""
    found = {(row["scope"], row["measure"]): row for row in measures}
    run = found["run", "max_over_mean"]
    text = (
        f"Over the run the busiest expert of a layer gets {run['mean']:.2f}× the mean (a uniform "
        f"router: {run['uniform']:.2f}×), worst layer {run['max']:.2f}×"
    )
    step = found.get(("step", "max_over_mean"))
    if step is not None:
        text += f"; in a single step {step['p50']:.2f}× (p50; uniform {step['uniform']:.2f}×)"
    cv = found["run", "cv"]
    is_clear = cv["mean"] > _CLEAR * (cv["uniform"] or 0)
    reason = (
        "the router prefers some experts"
        if is_clear
        else "that is what chance gives: nothing for a placement to mend"
    )
    layers = f"{shape['layers']} layer{'' if shape['layers'] == 1 else 's'}"
    return f"{text}: {reason} ({layers}, {shape['experts']} experts)."


def _unknown_k(top_k: int | None) -> list[Finding]:
    if top_k is not None:
        return []
    return [
        Finding(
            "unknown_top_k",
            "info",
            "counts do not tell how many experts a token chooses: the uniform router is taken to "
            "choose one, which makes it a little less even; give --top-k",
        )
    ]
