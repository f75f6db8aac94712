"""Whether EPLB is worth turning on for a workload, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.placing.advice_words import Grounds, verdict
from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.export.files import trace_of
from nsysmoe.findings import Finding
from nsysmoe.placement.activity import BLOCK_ROWS
from nsysmoe.placement.cluster import Cluster

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.analysis.placing.advice_times import Times
    from nsysmoe.analysis.routing.routed import RoutedArm
    from nsysmoe.classes import ClassMap
    from nsysmoe.placement.cluster import Algorithm

    Cube = NDArray[np.float64]
    Map = NDArray[np.int64]

PLANS: tuple[Algorithm, ...] = ("eplb", "best")
# Tokens that stand for a batch where a log tells neither steps nor requests.
_WINDOW = 256


@dataclass(frozen=True)
class Advice:
    """What EPLB would gain on steps that its plan was not made from.

    Attributes:
        source: The routing log.
        shape: ``gpus``, ``redundant``, ``experts``, ``layers``, ``steps``, ``unit`` of a step
            (``step``, ``request`` or ``window``), ``small_steps`` (in which experts have fewer rows
            than a block, in the mean; None where the log tells no steps).
        loads: One a way to place: ``what`` (``now``; ``eplb``, what turning it on does; ``best``;
            ``active``, which balances what steps cost; ``eplb_plain``, EPLB without redundant
            experts where there are any; ``perfect_balance``, ``uniform_router``), ``critical``
            (sum of the busiest GPU, in choices), ``wasted_share``, ``active`` (mean active experts
            of the GPU with most; null where not placed), ``saved`` against now with ``low`` and
            ``high``.
        times: The same in time, from a trace: ``phase``, ``what``, ``critical_ns``,
            ``excess_ns``, ``saved_ns``, ``saved``, ``low``, ``high``; empty without one.
        bound: What bounds each phase of the trace: rows of ``analysis.bound``; empty without.
        single_runs: What one run with EPLB against one without may measure (``low_ns`` to
            ``high_ns`` saved, 95 %), and why: ``metrics.single_runs``; None without a trace.
        tax: ``phases``: rows of ``metrics.replicas.tax``, EPLB's plan with redundant experts
            against its plan without; ``break_even_prompt_tokens``. None without either.
        rearrangements: Those of the traces at hand: rows of
            ``metrics.rearrangement.rearrangement_effects``.
        moves: ``experts`` that EPLB's plan brings to a GPU that does not hold them now, of
            ``slots`` over all layers.
        limits: When EPLB would not help: ``code`` (``one_expert_a_gpu``, ``within_chance``,
            ``active_experts``, ``host_bound``), ``applies``, ``sentence``.
        expert_loads: Choices of each expert, [layers][experts].
        device_loads: By ``now``, ``eplb`` and ``best`` the choices of each GPU on held-out steps,
            [layers][gpus].
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
    single_runs: dict[str, Any] | None
    tax: dict[str, Any] | None
    rearrangements: tuple[dict[str, Any], ...]
    moves: dict[str, int]
    limits: tuple[dict[str, Any], ...]
    expert_loads: tuple[tuple[float, ...], ...]
    device_loads: dict[str, list[list[float]]]
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
    rearranged: str | Path | None = None,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Advice:
    """Plan from one half of the steps and judge on the other, both ways round.

    Args:
        routing: A routing log; for times the experts that vLLM returned (``.npz``).
        trace: The trace of the run, which gives times.
        run: Its record, which tells which tokens ran in which step; None for the one that lies
            beside the trace (``off.run.json`` of ``off.sqlite``, or ``run.json``). Without one
            the trace tells GPUs and what bounds the time, and no times of plans.
        gpus: GPUs that share the experts; None for those of the trace.
        redundant: Experts of a layer that live twice, over all GPUs.
        rearranged: A trace in which experts were rearranged, for what that costs.
        class_map: Kernel classes.
        nsys: The nsys that exports a report.

    Raises:
        MissingDataError: Too little is known: no GPUs, one step, no fit.
        RoutingError: Log, trace and record are not of one run.
        PlacementError: Experts and redundant ones do not divide among the GPUs.
        NsysmoeError: An input cannot be used.
    """
    reading = {"class_map": class_map, "nsys": nsys}
    work = _workload(Path(routing), trace, run, gpus, reading)
    if len(work.cube) < 2:
        raise MissingDataError(f"{routing} holds one {work.unit}: nothing is left to judge on")
    experts = work.cube.shape[2]
    cluster = Cluster(work.gpus, experts + redundant)
    costs = None if work.arm is None else _fit(work.arm)
    halves = _halves(work, cluster, costs)
    judged = {name: _judged(work, maps) for name, maps in halves.items()}
    loads = _loads(work, judged)
    times = None
    if work.arm is not None:
        times = _times(work, costs, halves, redundant)
    bounds, moved = _of_traces(trace, rearranged, reading)
    shape = {
        "gpus": work.gpus,
        "redundant": redundant,
        "experts": experts,
        "layers": work.cube.shape[1],
        "steps": len(work.cube),
        "unit": work.unit,
        "decode_active": _decode_active(work),
        "small_steps": _small_steps(work),
    }
    grounds = Grounds(
        shape=shape,
        loads={row["what"]: row for row in loads},
        times={} if times is None else {(row["phase"], row["what"]): row for row in times.rows},
        bounds=bounds,
        moves=_moves(work, halves["eplb"][0]),
        single_runs=None if times is None else times.single_runs,
        tax=None if times is None else times.tax,
        rearrangements=moved,
    )
    is_worth, sentences, limits = verdict(grounds)
    return Advice(
        source=str(routing),
        shape=shape,
        loads=tuple(loads),
        times=() if times is None else times.rows,
        bound=tuple(bounds),
        single_runs=grounds.single_runs,
        tax=grounds.tax,
        rearrangements=tuple(moved),
        moves=grounds.moves,
        limits=tuple(limits),
        expert_loads=tuple(tuple(row) for row in work.cube.sum(axis=0).tolist()),
        device_loads={
            name: judged[name][0].sum(axis=0).tolist() for name in ("now", "eplb", "best")
        },
        map=tuple(tuple(row) for row in _final(work, cluster)),
        is_worth=is_worth,
        sentences=tuple(sentences),
        findings=(*work.findings, *_of_times(times)),
    )


def _workload(
    routing: Path,
    trace: str | Path | None,
    run: str | Path | None,
    gpus: int | None,
    reading: dict[str, Any],
) -> _Workload:
    """Read a log, with the trace and the record of its run where they are there."""
    from nsysmoe.routing import record_beside  # noqa: PLC0415 - imports polars

    if trace is None:
        return _logged(routing, gpus)
    trace = trace_of(trace)
    arrays = _arrays_of(routing, trace)
    record = run
    if record is None and arrays is not None:
        record = record_beside(trace)
    if record is not None and arrays in {None, routing}:
        return _traced(routing, trace, Path(record), gpus, reading)
    findings = _no_record(trace)
    if record is not None and arrays is not None:
        try:
            work = _traced(arrays, trace, Path(record), gpus, reading)
        except (RoutingError, MissingDataError) as error:
            findings = _no_times(trace, error)
        else:
            return replace(work, findings=(*_arrays_read(routing, arrays), *work.findings))
    work = _logged(routing, gpus or _ranks(trace, reading))
    return replace(work, findings=(*findings, *work.findings))


def _arrays_of(routing: Path, trace: Path) -> Path | None:
    """Return the experts as vLLM returned them: the log, or what the log of a capture is made of.

    None where the log is neither.
    """
    from nsysmoe.routing.convert import ARRAYS, PARQUET  # noqa: PLC0415 - imports polars

    if routing.suffix == ".npz":
        return routing
    beside = routing.with_name(ARRAYS)
    is_of_trace = routing.resolve().parent == trace.resolve().parent
    return beside if routing.name == PARQUET and is_of_trace and beside.is_file() else None


def _ranks(trace: Path, reading: dict[str, Any]) -> int:
    """Return the GPUs of a trace that ran experts."""
    from nsysmoe.trace import open_trace  # noqa: PLC0415

    with open_trace(trace, **reading) as opened:
        ranks = int(opened.frame("moe_launches", ("rank",))["rank"].n_unique())
    if not ranks:
        raise MissingDataError(f"{trace} has no kernels of experts: give --gpus")
    return ranks


def _no_record(trace: Path) -> list[Finding]:
    from nsysmoe.routing import record_beside  # noqa: PLC0415 - imports polars
    from nsysmoe.routing.convert import ARRAYS  # noqa: PLC0415

    arrays = trace.with_name(ARRAYS)
    is_there = arrays.is_file() and record_beside(trace) is not None
    command = f"; `nsysmoe advise --routing {arrays} --trace {trace}` has both" if is_there else ""
    return [
        Finding(
            "no_record",
            "warning",
            f"which tokens ran in which step of {trace} is not known, so that plans have loads and "
            "no times: that takes the experts that vLLM returned (.npz) and the record of the run "
            f"(--run){command}",
            {"source": str(trace)},
        )
    ]


def _no_times(trace: Path, error: Exception) -> list[Finding]:
    return [
        Finding(
            "no_times",
            "warning",
            f"plans have loads and no times: {error}",
            {"source": str(trace)},
        )
    ]


def _of_times(times: Times | None) -> list[Finding]:
    return [] if times is None or times.unseen is None else [_extrapolated(times.unseen)]


def _extrapolated(unseen: dict[str, Any]) -> Finding:
    """Say that the plan has more active experts than any launch of the trace had."""
    return Finding(
        "extrapolated",
        "warning",
        f"EPLB's plan has up to {unseen['planned']} active experts a GPU in decode, and no launch "
        f"of the trace had more than {unseen['seen']}: what the rest cost is extrapolated; if all "
        "of decode's MoE time is reading weights, it goes up by "
        f"{unseen['by_weights'] - 1:.1%}",
        unseen,
    )


def _arrays_read(routing: Path, arrays: Path) -> list[Finding]:
    return [
        Finding(
            "arrays_read",
            "info",
            f"read was {arrays}, which {routing} is made of: with the record of the run it gives "
            "times",
            {"source": str(arrays)},
        )
    ]


def _logged(routing: Path, gpus: int | None) -> _Workload:
    """Read a log alone; requests stand for steps where it tells none, or windows of the one."""
    from nsysmoe.analysis.routing.routing_load import count_logs  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.held_out import step_cube  # noqa: PLC0415
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415

    if gpus is None:
        raise MissingDataError("without a trace nothing tells how many GPUs there are: give --gpus")
    counted = count_logs([routing])
    unit, findings = "step", counted.findings
    if counted.counts["step"].null_count():
        counted = count_logs([routing], by_request=True)
        unit, stands = "request", "each request stands"
        if counted.counts["run"].n_unique() < 2:
            counted = count_logs([routing], window=_WINDOW)
            unit, stands = "window", f"each {_WINDOW} consecutive tokens stand"
        findings = (*_no_steps(routing, stands), *counted.findings)
    experts = -(-counted.experts // gpus) * gpus
    cube = step_cube(counted.counts, experts)
    now = contiguous(cube.shape[1], experts, experts)
    return _Workload(cube, None, now, gpus, counted.top_k or 1, unit, None, findings)


def _traced(
    routing: Path, trace: Path, run: Path, gpus: int | None, reading: dict[str, Any]
) -> _Workload:
    """Read a log with the trace of its run, which tells steps, GPUs, and the map that holds."""
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.analysis.routing.routed import Choices, Inputs, read_arm  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.held_out import step_cube  # noqa: PLC0415

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
    now, phases = arm.history.after.logical, steps["phase"].to_numpy()
    return _Workload(cube, phases, now, arm.ranks, arm.top_k, "step", arm, arm.findings)


def _fit(arm: RoutedArm) -> pl.DataFrame:
    from nsysmoe.analysis.placing.advice_times import fit  # noqa: PLC0415

    return fit(arm)


def _halves(work: _Workload, cluster: Cluster, costs: pl.DataFrame | None) -> dict[str, list[Map]]:
    """Return by placement the maps for each half of the steps, made from the other."""
    from nsysmoe.analysis.placing.advice_times import step_costs  # noqa: PLC0415
    from nsysmoe.placement.activity import blocks_cost, place_by_steps  # noqa: PLC0415
    from nsysmoe.placement.plan import place  # noqa: PLC0415

    cost = blocks_cost(len(work.cube))
    if work.arm is not None and costs is not None:
        cost = step_costs(work.arm, costs)
    others = [work.folds() != fold for fold in (0, 1)]
    seen = [work.cube[other].sum(axis=0) for other in others]
    maps = {"now": [work.now, work.now]}
    maps |= {name: [place(loads, cluster, name) for loads in seen] for name in PLANS}
    maps["active"] = [
        place_by_steps(work.cube[other], cluster.gpus, cluster.slots, cost.taken(other))
        for other in others
    ]
    experts = work.cube.shape[2]
    if cluster.slots > experts and experts % cluster.gpus == 0:
        plain = Cluster(cluster.gpus, experts)
        maps["eplb_plain"] = [place(loads, plain, "eplb") for loads in seen]
    return maps


def _times(
    work: _Workload, costs: pl.DataFrame | None, halves: dict[str, list[Map]], redundant: int
) -> Times:
    from nsysmoe.analysis.placing.advice_times import judge_times  # noqa: PLC0415

    assert work.arm is not None  # noqa: S101 - asked for with a trace alone
    assert costs is not None  # noqa: S101 - fitted with it
    plans = {name: maps for name, maps in halves.items() if name != "now"}
    return judge_times(
        work.arm, costs, plans, work.folds(), redundant="eplb_plain" in plans and redundant > 0
    )


def _moves(work: _Workload, map_: Map) -> dict[str, int]:
    """Count the experts of a plan that their GPU does not hold now, GPUs named as they fit best.

    Plans do not care which GPU is which: a GPU of the plan stands where most of its experts are,
    given away greedily.
    """
    import numpy as np  # noqa: PLC0415

    moved = 0
    gpus = work.gpus
    for before, after in zip(work.now, map_, strict=True):
        held = [set(part.tolist()) for part in np.split(before, gpus)]
        wanted = [part.tolist() for part in np.split(after, gpus)]
        kept = np.array([[sum(expert in have for expert in want) for have in held]
                         for want in wanted])  # fmt: skip
        for _ in range(gpus):
            want, have = np.unravel_index(kept.argmax(), kept.shape)
            moved += len(wanted[want]) - int(kept[want, have])
            kept[want], kept[:, have] = -1, -1
    return {"experts": moved, "slots": int(map_.size)}


def _decode_active(work: _Workload) -> float | None:
    """Return the mean active experts of the GPU with most of them in decode steps, as placed now.

    Steps whose phase is not known count; requests that stand for steps do not tell.
    """
    from nsysmoe.metrics.routed_load.expert_parallel import active_experts  # noqa: PLC0415 - numpy

    if work.unit != "step":
        return None
    cube = work.cube if work.phases is None else work.cube[work.phases == "decode"]
    if not len(cube):
        return None
    return float(active_experts(cube, work.now, work.gpus).max(axis=2).mean())


def _small_steps(work: _Workload) -> int | None:
    """Count steps in which experts have fewer rows than a block, in the mean.

    Such a step costs by the experts that are active, not by their load. Requests that stand for
    steps do not tell.
    """
    if work.unit != "step":
        return None
    layers, experts = work.cube.shape[1:]
    return int((work.cube.sum(axis=(1, 2)) < BLOCK_ROWS * layers * experts).sum())


def _final(work: _Workload, cluster: Cluster) -> list[list[int]]:
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy

    found: list[list[int]] = place(work.cube.sum(axis=0), cluster, "best").tolist()
    return found


def _loads(work: _Workload, judged: dict[str, tuple[Cube, float]]) -> list[dict[str, Any]]:
    """Judge each placement on the steps that its plan has not seen, in choices."""
    from nsysmoe.metrics.routed_load.expert_parallel import step_cost  # noqa: PLC0415 - numpy
    from nsysmoe.metrics.routed_load.held_out import saved  # noqa: PLC0415

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

    from nsysmoe.metrics.routed_load.expert_parallel import active_experts  # noqa: PLC0415
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

    from nsysmoe.metrics.routed_load.load_balance import max_over_mean  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.uniform_router import baseline  # noqa: PLC0415
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

    def measure(loads: Cube) -> Cube:
        return max_over_mean(device_loads(work.now[:1], loads[:, None], work.gpus)[:, 0])

    tokens = np.rint(unseen.sum(axis=2) / work.top_k).astype(np.int64)
    factors = baseline(tokens, work.top_k, unseen.shape[2], measure)
    return float(np.nansum(factors * mean))


def _of_traces(
    trace: str | Path | None, rearranged: str | Path | None, reading: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what bounds each phase of the trace, and the rearrangements of it or of the other."""
    from nsysmoe.analysis.diagnosis.eplb import rearranged as rearrangements  # noqa: PLC0415
    from nsysmoe.analysis.one_trace.bound import bound_rows  # noqa: PLC0415
    from nsysmoe.analysis.reading.run import read_run  # noqa: PLC0415

    bounds: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    if trace is not None:
        run = read_run(trace, with_schedule=True, **reading)
        assert run.time_causes is not None  # noqa: S101 - asked for with its schedule
        keys = ("phase", "window_ns", "bound", "shares", "balance_ratio")
        bounds = [{key: row[key] for key in keys} for row in bound_rows(run.time_causes, "phase")]
        moved = rearrangements(run)
    if rearranged is not None:
        moved = rearrangements(read_run(rearranged, with_schedule=True, **reading))
        if not moved:
            raise MissingDataError(f"{rearranged} shows no rearrangement of experts")
    return bounds, moved


def _no_steps(routing: Path, stands: str) -> list[Finding]:
    return [
        Finding(
            "no_steps",
            "warning",
            f"{routing} does not tell which tokens ran in which step: {stands} for a step, which "
            "is not the batch that ran; give --trace and --run",
            {"source": str(routing)},
        )
    ]
