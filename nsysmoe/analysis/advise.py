"""Whether EPLB is worth turning on for a workload, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.findings import Finding
from nsysmoe.placement.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.analysis.routed import RoutedArm
    from nsysmoe.classes import ClassMap
    from nsysmoe.placement.cluster import Algorithm

    Cube = NDArray[np.float64]
    Map = NDArray[np.int64]

PLANS: tuple[Algorithm, ...] = ("eplb", "best")
PHASES = ("all", "decode", "prefill")
# Below that a gain is not worth the memory, the moves and the risk.
_WORTH = 0.01
# An imbalance of the run's own beyond chance: more than a tenth above it.
_NOISE = 1.1
_HOST_BOUND = ("host", "sync", "latency")


@dataclass(frozen=True)
class Advice:
    """What EPLB would gain on steps that its plan was not made from.

    Attributes:
        source: The routing log.
        shape: ``gpus``, ``redundant``, ``experts``, ``layers``, ``steps``, ``unit`` of a step
            (``step`` or ``request``).
        loads: One a way to place: ``what`` (``now``, ``eplb``, ``best``, ``perfect_balance``,
            ``uniform_router``), ``critical`` (sum of the busiest GPU, in choices),
            ``wasted_share``, ``active`` (mean active experts of the GPU with most; null where
            not placed), ``saved`` against now with ``low`` and ``high``.
        times: The same in time, from a trace: ``phase``, ``what``, ``critical_ns``,
            ``excess_ns``, ``saved_ns``, ``saved``, ``low``, ``high``; empty without one.
        bound: What bounds each phase of the trace: rows of ``analysis.bound``; empty without.
        map: The best plan of all steps, [layers][slots].
        is_worth: Whether to turn EPLB on.
        sentences: The verdict, then the reasons and when it would not help.
        findings: What to know before believing it.
    """

    source: str
    shape: dict[str, Any]
    loads: tuple[dict[str, Any], ...]
    times: tuple[dict[str, Any], ...]
    bound: tuple[dict[str, Any], ...]
    map: tuple[tuple[int, ...], ...]
    is_worth: bool
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Workload:
    """Loads by step, the phase of each where known, and where experts live now."""

    cube: Cube
    phases: NDArray[np.object_] | None
    now: Map
    gpus: int
    top_k: int
    unit: str
    arm: RoutedArm | None
    findings: tuple[Finding, ...]

    def folds(self) -> NDArray[np.int64]:
        """Return 0 or 1 for each step, by turns within its phase: both have steps of each."""
        import numpy as np  # noqa: PLC0415

        kinds = np.zeros(len(self.cube)) if self.phases is None else self.phases
        folds = np.zeros(len(self.cube), dtype=np.int64)
        for kind in np.unique(kinds):
            inside = np.flatnonzero(kinds == kind)
            folds[inside] = np.arange(inside.size) % 2
        return folds


def advise(  # noqa: PLR0913 - a run is three files, and what is asked of it two numbers
    routing: str | Path,
    *,
    trace: str | Path | None = None,
    run: str | Path | None = None,
    gpus: int | None = None,
    redundant: int = 0,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Advice:
    """Plan from one half of the steps and judge on the other, both ways round.

    Args:
        routing: A routing log; with a trace the experts that vLLM returned.
        trace: The trace of the run, which gives times.
        run: Its record; trace and record go together.
        gpus: GPUs that share the experts; None for those of the trace.
        redundant: Experts of a layer that live twice, over all GPUs.
        class_map: Kernel classes.
        nsys: The nsys that exports a report.

    Raises:
        MissingDataError: Too little is known: no GPUs, one step, no fit.
        RoutingError: Log, trace and record are not of one run.
        PlacementError: Experts and redundant ones do not divide among the GPUs.
        NsysmoeError: An input cannot be used.
    """
    reading = {"class_map": class_map, "nsys": nsys}
    if trace is not None and run is not None:
        work = _traced(Path(routing), Path(trace), Path(run), gpus, reading)
    else:
        work = _logged(Path(routing), gpus)
    if len(work.cube) < 2:
        raise MissingDataError(f"{routing} holds one {work.unit}: nothing is left to judge on")
    experts = work.cube.shape[2]
    cluster = Cluster(work.gpus, experts + redundant)
    maps = _plans(work, cluster)
    loads = _loads(work, maps)
    times = [] if work.arm is None else _times(work.arm, maps, work)
    bounds = [] if trace is None or work.arm is None else _bounds(trace, reading)
    shape = {
        "gpus": work.gpus,
        "redundant": redundant,
        "experts": experts,
        "layers": work.cube.shape[1],
        "steps": len(work.cube),
        "unit": work.unit,
    }
    is_worth, sentences = _verdict(shape, loads, times, bounds)
    return Advice(
        source=str(routing),
        shape=shape,
        loads=tuple(loads),
        times=tuple(times),
        bound=tuple(bounds),
        map=tuple(tuple(row) for row in _final(work, cluster)),
        is_worth=is_worth,
        sentences=tuple(sentences),
        findings=work.findings,
    )


def _logged(routing: Path, gpus: int | None) -> _Workload:
    """Read a log alone; requests stand for steps where it tells none."""
    from nsysmoe.analysis.routing_load import count_logs  # noqa: PLC0415 - polars
    from nsysmoe.metrics.held_out import step_cube  # noqa: PLC0415
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    if gpus is None:
        raise MissingDataError("without a trace nothing tells how many GPUs there are: give --gpus")
    counted = count_logs([routing])
    unit, findings = "step", counted.findings
    if counted.counts["step"].null_count():
        counted = count_logs([routing], by_request=True)
        unit, findings = "request", (*_no_steps(routing), *counted.findings)
    experts = -(-counted.experts // gpus) * gpus
    cube = step_cube(counted.counts, experts)
    now = contiguous(cube.shape[1], experts, experts)
    return _Workload(cube, None, now, gpus, counted.top_k or 1, unit, None, findings)


def _traced(
    routing: Path, trace: Path, run: Path, gpus: int | None, reading: dict[str, Any]
) -> _Workload:
    """Read a log with the trace of its run, which tells steps, GPUs, and the map that holds."""
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.analysis.routed import Choices, Inputs, read_arm  # noqa: PLC0415
    from nsysmoe.metrics.held_out import step_cube  # noqa: PLC0415

    arm = read_arm(Inputs(trace, routing, run), Choices(), **reading)
    if gpus is not None and gpus != arm.ranks:
        raise RoutingError(
            f"{trace} has {arm.ranks} ranks, --gpus says {gpus}: its times say nothing about others"
        )
    steps = arm.launches.select("step", "phase").unique().sort("step")
    counts = (
        arm.choices.filter(pl.col("step").is_in(steps["step"].implode()))
        .group_by("step", "layer", "expert")
        .agg(pl.len().alias("tokens"))
        .with_columns(run=pl.lit(""))
    )
    cube = step_cube(counts, arm.history.after.experts)
    if len(cube) != steps.height:
        raise MissingDataError(f"{trace} has {steps.height:,} steps, more than can be judged")
    one = arm.choices.filter((pl.col("step") == steps["step"][0]) & (pl.col("layer") == 0))
    top_k = one.height // max(1, one["row"].n_unique())
    now, phases = arm.history.after.logical, steps["phase"].to_numpy()
    return _Workload(cube, phases, now, arm.ranks, top_k, "step", arm, arm.findings)


def _plans(work: _Workload, cluster: Cluster) -> list[dict[str, Map]]:
    """Return for each half of the steps the plans that were made from the other."""
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy

    folds = work.folds()
    seen = [work.cube[folds != fold].sum(axis=0) for fold in (0, 1)]
    return [{name: place(loads, cluster, name) for name in PLANS} for loads in seen]


def _final(work: _Workload, cluster: Cluster) -> list[list[int]]:
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy

    found: list[list[int]] = place(work.cube.sum(axis=0), cluster, "best").tolist()
    return found


def _loads(work: _Workload, maps: list[dict[str, Map]]) -> list[dict[str, Any]]:
    """Judge each placement on the steps that its plan has not seen, in choices."""
    from nsysmoe.metrics.expert_parallel import step_cost  # noqa: PLC0415 - numpy
    from nsysmoe.metrics.held_out import saved  # noqa: PLC0415

    every = {"now": [work.now, work.now]}
    every |= {name: [half[name] for half in maps] for name in PLANS}
    judged = {name: _judged(work, halves) for name, halves in every.items()}
    busiest = {name: devices.max(axis=2).sum(axis=1) for name, (devices, _) in judged.items()}
    rows = []
    for name, (devices, active) in judged.items():
        share, interval = saved(busiest["now"], busiest[name], work.phases)
        rows.append(_load_row(name, step_cost(devices), active, share, interval))
    mean = judged["now"][0].mean(axis=2)
    rows.append(_load_row("perfect_balance", *_ideal(mean.sum(), mean.sum(), busiest["now"])))
    uniform = _uniform_critical(work, work.cube, mean)
    rows.append(_load_row("uniform_router", *_ideal(uniform, mean.sum(), busiest["now"])))
    return rows


def _judged(work: _Workload, halves: list[Map]) -> tuple[Cube, float]:
    """Return loads of devices in every step, and the mean active experts of the one with most."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.expert_parallel import active_experts  # noqa: PLC0415
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

    folds = work.folds()
    devices = np.empty((*work.cube.shape[:2], work.gpus))
    active = np.empty(work.cube.shape[:2])
    for fold, map_ in enumerate(halves):
        unseen = work.cube[folds == fold]
        devices[folds == fold] = device_loads(map_, unseen, work.gpus)
        active[folds == fold] = active_experts(unseen, map_, work.gpus).max(axis=2)
    return devices, float(active.mean())


def _ideal(critical: float, mean: float, now: Cube) -> tuple[dict[str, Any], None, float, None]:
    cost = {"critical": float(critical), "wasted_share": 1 - float(mean / critical)}
    return cost, None, 1 - float(critical / now.sum()), None


def _load_row(
    what: str,
    cost: dict[str, Any],
    active: float | None,
    share: float,
    interval: tuple[float, float] | None,
) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {
        "what": what,
        "critical": cost["critical"],
        "wasted_share": cost["wasted_share"],
        "active": active,
        "saved": share,
        "low": low,
        "high": high,
    }


def _uniform_critical(work: _Workload, unseen: Cube, mean: Cube) -> float:
    """Return what the busiest GPUs would carry if every expert had the same chance."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.load_balance import max_over_mean  # noqa: PLC0415
    from nsysmoe.metrics.uniform_router import baseline  # noqa: PLC0415
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

    def measure(loads: Cube) -> Cube:
        return max_over_mean(device_loads(work.now[:1], loads[:, None], work.gpus)[:, 0])

    tokens = np.rint(unseen.sum(axis=2) / work.top_k).astype(np.int64)
    factors = baseline(tokens, work.top_k, unseen.shape[2], measure)
    return float(np.nansum(factors * mean))


def _times(arm: RoutedArm, maps: list[dict[str, Map]], work: _Workload) -> list[dict[str, Any]]:
    """Judge each placement in time: a fit on the trace, applied to steps held out of its plan."""
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.routing_cost import fit_costs, predict, whole_cells  # noqa: PLC0415

    costs = fit_costs(arm.launches.filter(~arm.launches["is_padded"]))
    if costs.is_empty():
        raise MissingDataError(
            f"{arm.source} has fewer than eight launches of any kind of MoE kernel: too few to fit"
        )
    steps = arm.launches["step"].unique().sort()
    halves = [steps.filter(pl.Series(work.folds() == fold)) for fold in (0, 1)]
    launches = {"now": arm.launches}
    for name in PLANS:
        moved = (_moved(arm, half[name], work.gpus) for half in maps)
        launches[name] = pl.concat(
            frame.filter(pl.col("step").is_in(unseen.implode()))
            for frame, unseen in zip(moved, halves, strict=True)
        )
    frames = {
        name: whole_cells(predict(costs, each), "predicted_ns") for name, each in launches.items()
    }
    return [row for phase in PHASES for row in _phase_times(phase, frames)]


def _moved(arm: RoutedArm, map_: Map, gpus: int) -> pl.DataFrame:
    from nsysmoe.analysis.routing_cost import with_placement  # noqa: PLC0415
    from nsysmoe.routing import Placement, PlacementHistory  # noqa: PLC0415

    placement = Placement(map_, gpus)
    return with_placement(arm, PlacementHistory(placement, placement))


def _phase_times(phase: str, frames: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Sum what the slowest rank takes, as measured, predicted now, and under each plan."""
    from nsysmoe.metrics.held_out import saved  # noqa: PLC0415
    from nsysmoe.metrics.routing_cost import critical  # noqa: PLC0415

    here = {
        name: frame if phase == "all" else frame.filter(frame["phase"] == phase)
        for name, frame in frames.items()
    }
    if here["now"].is_empty():
        return []
    predicted = ("predicted_ns", "spread_ns")
    sums = {name: critical(frame, *predicted) for name, frame in here.items()}
    now = sums["now"]["critical_ns"]
    steps = {name: _by_step(frame) for name, frame in here.items()}
    phases = here["now"].select("step", "phase").unique().sort("step")["phase"].to_numpy()
    found = [_time_row(phase, "measured", critical(here["now"], "dur_ns"), None, None)]
    for name, each in sums.items():
        interval = saved(steps["now"], steps[name], phases)[1]
        found.append(_time_row(phase, name, each, now, interval))
    ideal = {"critical_ns": sums["now"]["mean_ns"], "excess_ns": 0.0}
    found.append(_time_row(phase, "perfect_balance", ideal, now, None))
    return found


def _by_step(launches: pl.DataFrame) -> Cube:
    """Return the sum of the slowest rank of each cell, by step."""
    import polars as pl  # noqa: PLC0415

    return (
        launches.group_by("step", "ordinal")
        .agg(pl.col("predicted_ns").max())
        .group_by("step")
        .agg(pl.col("predicted_ns").sum())
        .sort("step")["predicted_ns"]
        .to_numpy()
    )


def _time_row(
    phase: str,
    what: str,
    sums: dict[str, float],
    now: float | None,
    interval: tuple[float, float] | None,
) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {
        "phase": phase,
        "what": what,
        "critical_ns": sums["critical_ns"],
        "excess_ns": sums["excess_ns"],
        "saved_ns": None if now is None else now - sums["critical_ns"],
        "saved": None if not now else 1 - sums["critical_ns"] / now,
        "low": low,
        "high": high,
    }


def _bounds(trace: str | Path, reading: dict[str, Any]) -> list[dict[str, Any]]:
    from nsysmoe.analysis.bound import bound  # noqa: PLC0415

    return [
        {key: row[key] for key in ("phase", "window_ns", "bound", "shares", "balance_ratio")}
        for row in bound(trace, **reading).rows
    ]


def _verdict(
    shape: dict[str, Any],
    loads: list[dict[str, Any]],
    times: list[dict[str, Any]],
    bounds: list[dict[str, Any]],
) -> tuple[bool, list[str]]:
    """Say whether it is worth it, then why, then when not."""
    by_load = {row["what"]: row for row in loads}
    by_time = {(row["phase"], row["what"]): row for row in times}
    judged = by_time.get(("all", "best"), by_load["best"])
    is_certain = judged["low"] is not None and judged["low"] > 0
    is_worth = bool(judged["saved"] >= _WORTH and is_certain)
    reasons: list[Callable[[], str | None]] = [
        lambda: _of_loads(by_load, shape),
        lambda: _one_expert(shape),
        lambda: _of_chance(by_load),
        lambda: _of_phases(by_time),
        lambda: _of_bounds(bounds),
    ]
    said = [text for reason in reasons if (text := reason()) is not None]
    return is_worth, [_lead(judged, shape, is_worth=is_worth), *said]


def _lead(judged: dict[str, Any], shape: dict[str, Any], *, is_worth: bool) -> str:
    """Say by how much, with its uncertainty."""
    what = "critical MoE time" if "saved_ns" in judged else "the busiest GPUs' load"
    verb, sign = ("would save", 1) if judged["saved"] >= 0 else ("would add", -1)
    amount = f" ({abs(judged['saved_ns']) / 1e6:,.2f} ms)" if "saved_ns" in judged else ""
    ends = [] if judged["low"] is None else sorted((sign * judged["low"], sign * judged["high"]))
    beside = f", 95 % interval {ends[0]:.1%} to {ends[1]:.1%}" if ends else ""
    start = "EPLB is worth turning on" if is_worth else "EPLB is not worth turning on"
    return (
        f"{start} for this workload: the best plan with {shape['redundant']} redundant experts on "
        f"{shape['gpus']} GPUs {verb} {abs(judged['saved']):.1%} of {what}{amount} on "
        f"{shape['steps']:,} {shape['unit']}s, each held out of its plan{beside}."
    )


def _of_loads(rows: dict[str, dict[str, Any]], shape: dict[str, Any]) -> str:
    now, best = rows["now"]["wasted_share"], rows["best"]["wasted_share"]
    chance = rows["uniform_router"]["wasted_share"]
    return (
        f"Waiting for the busiest of {shape['gpus']} GPUs wastes {now:.1%} of their work now, "
        f"{best:.1%} with the best plan, {rows['eplb']['wasted_share']:.1%} with EPLB's, and "
        f"{chance:.1%} if the router were perfectly uniform."
    )


def _one_expert(shape: dict[str, Any]) -> str | None:
    if shape["experts"] > shape["gpus"] or shape["redundant"]:
        return None
    return "One expert a GPU leaves nothing to rearrange without redundant experts."


def _of_chance(rows: dict[str, dict[str, Any]]) -> str | None:
    if rows["now"]["critical"] > _NOISE * rows["uniform_router"]["critical"]:
        return None
    return (
        "The imbalance is about what chance gives at this batch size, which no placement mends: "
        "larger batches would."
    )


def _of_phases(rows: dict[tuple[str, str], dict[str, Any]]) -> str | None:
    """Say what each phase gains: decode pays for active experts, prefill for tokens."""
    parts = [
        f"{phase} {-row['saved']:+.1%}"
        for phase in PHASES[1:]
        if (row := rows.get((phase, "best"))) is not None
    ]
    if not parts:
        return None
    decode = rows.get(("decode", "best"))
    text = f"Critical MoE time by phase: {', '.join(parts)}"
    if decode is not None and decode["saved"] < -_WORTH:
        text += "; decode reads every active expert, so more of them on a GPU cost it"
    return f"{text}."


def _of_bounds(bounds: list[dict[str, Any]]) -> str | None:
    """Say where MoE time is not what the run waits for."""
    late = [row for row in bounds if row["bound"] in _HOST_BOUND]
    whole = sum(row["window_ns"] for row in bounds)
    share = sum(row["window_ns"] for row in late) / whole if whole else 0.0
    if share < 0.5:
        return None
    return (
        f"{share:.0%} of the time is bound by the host, not by experts: wall time will hardly "
        "follow until launches are faster (CUDA graphs)."
    )


def _no_steps(routing: Path) -> list[Finding]:
    return [
        Finding(
            "no_steps",
            "warning",
            f"{routing} does not tell which tokens ran in which step: each request stands for a "
            "step, which is not the batch that ran; give --trace and --run",
            {"source": str(routing)},
        )
    ]
