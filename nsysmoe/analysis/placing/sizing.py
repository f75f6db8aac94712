"""What layouts and limits of a batch would give for a replayed workload, and what is not known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError, PlacementError
from nsysmoe.findings import Finding
from nsysmoe.placement.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.metrics.serving.batching import Requests, Served
    from nsysmoe.metrics.serving.step_time import StepTime
    from nsysmoe.traffic.outcome import Outcome

    Cube = NDArray[np.float64]
    Map = NDArray[np.int64]

# Batch sizes that loads are drawn for; between them lies a line.
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Units of a routing log that are drawn from: 0.5 GB at most.
_LARGEST = 1 << 26
# Beyond it requests of the replay are left out of the simulation.
_MOST_REQUESTS = 50_000
_SHARES = (50, 95, 99)
# An error of the replay's own tails beyond which others are not to be relied on.
_WEAK = 0.25
_UNKNOWN_SHARE = (
    "Which share of a step follows the experts: rows are its two ends, none and all; give "
    "--expert-share (critical MoE time over wall time, of a capture)."
)
_NEVER_KNOWN = (
    "Communication: how it grows with the devices is in no replay; capture both layouts.",
    "Memory: whether weights, redundant experts and the KV cache of such a batch fit.",
    "CUDA graphs and kernels that change with the batch size: costs are straight lines here.",
    "Prefix caching and preemption: every prompt is read whole, and nothing is put off.",
)


@dataclass(frozen=True)
class Layout:
    """Experts over devices.

    Attributes:
        gpus: Devices that share the experts.
        redundant: Slots beyond the experts, placed by EPLB; None for experts in order, no EPLB.
    """

    gpus: int
    redundant: int | None = None

    @property
    def name(self) -> str:
        """How the command line writes it: ``8`` or ``8+32``."""
        return str(self.gpus) if self.redundant is None else f"{self.gpus}+{self.redundant}"


@dataclass(frozen=True)
class Sizing:
    """Expected steps and tails; times in s.

    Attributes:
        replay: Its folder.
        routing: The log.
        now: The layout that the replay ran on, by name.
        model: Costs of a step there: ``base_s``, ``per_sequence_s``, ``per_prompt_token_s``,
            ``error_ratio``, ``most_sequences``, ``is_separable``.
        check: The simulation of the replay itself beside what was measured: ``measure``,
            ``measured_s``, ``simulated_s``.
        layouts: A row a layout: ``layout``, ``gpus``, ``slots``, ``load_ratio`` and
            ``active_ratio`` (busiest device against now, at the batch size of the replay),
            ``balancedness``.
        rows: A row a layout, limit and end: ``layout``, ``max_num_seqs``, ``end``
            (``unmoved``: nothing of a step follows the experts; ``moved``: all of it does;
            ``expected``, where the share of experts is given), ``step_p50_s`` and so on,
            ``ttft_p50_s`` …, ``tpot_…``, ``e2e_…``, ``output_tok_per_s``, ``utilisation``
            (time in steps), ``is_extrapolated``.
        lost: A row a layout: what the loss of its worst device does: ``homeless_share`` of all
            choices find no expert; ``at_once_ratio`` is the busiest of the others against the
            busiest before, ``load_ratio`` after EPLB placed all experts anew; ``others``, a row a
            device that is left: its load ``before``, ``at_once`` and ``after``, against the mean
            of all devices before.
        unknown: What this cannot know, a sentence each.
        findings: What to know before believing it.
    """

    replay: str
    routing: str
    now: str
    model: dict[str, Any]
    check: tuple[dict[str, Any], ...]
    layouts: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]
    lost: tuple[dict[str, Any], ...]
    unknown: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Limits:
    """What is asked: layouts, and limits of a batch.

    Attributes:
        now: What the replay ran on; None where nobody knows: the first of ``layouts`` then.
        layouts: To judge; ``now`` is judged too.
        most_sequences: Values of ``max_num_seqs``.
        most_tokens: ``max_num_batched_tokens``.
        expert_share: Share of a step that follows the experts' loads; None where not known.
    """

    now: Layout | None
    layouts: tuple[Layout, ...]
    most_sequences: tuple[int, ...]
    most_tokens: int = 8192
    expert_share: float | None = None

    @property
    def present(self) -> Layout:
        """What the replay ran on.

        Raises:
            MissingDataError: Neither it nor any layout is given.
        """
        if self.now is None and not self.layouts:
            raise MissingDataError("no layout is given: neither that of the replay nor another")
        return self.now or self.layouts[0]


@dataclass(frozen=True)
class _Routing:
    """Choices by request (or step): half to plan from, half to judge on.

    ``drawn`` are loads of batches of ``_SIZES`` sequences, drawn from the second half.
    """

    seen: Cube
    unseen: Cube
    drawn: tuple[Cube, ...]
    findings: tuple[Finding, ...]


def size(replay: str | Path, routing: str | Path, limits: Limits) -> Sizing:
    """Say what each layout and limit would give.

    Args:
        replay: Folder of ``nsysmoe replay``.
        routing: A routing log of the same workload, of any form.
        limits: What is asked.

    Raises:
        MissingDataError: Too few requests were answered, the log holds too little, or no layout is
            given.
        PlacementError: Experts and slots do not divide among the devices.
        NsysmoeError: An input cannot be used.
    """
    from nsysmoe.traffic.folder import Folder  # noqa: PLC0415

    folder = Folder(Path(replay))
    folder.replayed()
    outcomes = folder.last_outcomes()
    answered = [one for _, one in sorted(outcomes.items()) if one.error is None]
    model = _model(replay, answered)
    requests = _requests(answered)
    chosen = _routing(Path(routing), limits)
    layouts = list(dict.fromkeys((limits.present, *limits.layouts)))
    factors = {layout: _Factors.of(layout, limits.present, chosen) for layout in layouts}
    most = max(1, model.most_sequences)
    rows = [
        row
        for layout in layouts
        for most_sequences in limits.most_sequences
        for row in _rows(layout, most_sequences, factors[layout], model, requests, limits)
    ]  # fmt: skip
    check = _check(answered, requests, model, limits)
    return Sizing(
        replay=str(replay),
        routing=str(routing),
        now=limits.present.name,
        model=_told(model),
        check=tuple(check),
        layouts=tuple(factors[layout].told(most) for layout in layouts),
        rows=tuple(rows),
        lost=tuple(_lost(layout, chosen) for layout in layouts if layout.gpus > 1),
        unknown=tuple(_unknown(limits)),
        findings=(
            *_assumed(limits),
            *chosen.findings,
            *_findings(model, check, len(answered)),
        ),
    )


def _told(model: StepTime) -> dict[str, Any]:
    return {
        "base_s": model.base,
        "per_sequence_s": model.per_sequence,
        "per_prompt_token_s": model.per_prompt_token,
        "error_ratio": model.error_ratio,
        "most_sequences": model.most_sequences,
        "is_separable": model.is_separable,
    }


def _model(replay: str | Path, answered: Sequence[Outcome]) -> StepTime:
    import numpy as np  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.serving.step_time import FEWEST, Spans, fit  # noqa: PLC0415

    starts = _session_starts(answered)
    due = np.array([starts[one.session] + one.intended_s for one in answered])
    spans = Spans(
        first=due + np.array([one.ttft_s or 0.0 for one in answered]),
        last=due + np.array([one.e2e_s for one in answered]),
        prompt_tokens=np.array([one.prompt_tokens or 0 for one in answered], dtype=np.float64),
        output_tokens=np.array([one.output_tokens for one in answered], dtype=np.float64),
    )
    found = fit(spans) if answered else None
    if found is None:
        raise MissingDataError(
            f"{replay} has fewer than {FEWEST} answered requests of two tokens and more: too few "
            "to tell what a step takes"
        )
    return found


def _session_starts(answered: Sequence[Outcome]) -> dict[int, float]:
    """Return when each session begins, one after the other: their clocks all begin at 0."""
    ends: dict[int, float] = {}
    for one in answered:
        ends[one.session] = max(ends.get(one.session, 0.0), one.intended_s + one.e2e_s)
    starts, clock = {}, 0.0
    for session in sorted(ends):
        starts[session] = clock
        clock += ends[session]
    return starts


def _requests(answered: Sequence[Outcome]) -> Requests:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.serving.batching import Requests  # noqa: PLC0415

    starts = _session_starts(answered)
    taken = sorted(answered, key=lambda one: starts[one.session] + one.intended_s)[:_MOST_REQUESTS]
    return Requests(
        np.array([starts[one.session] + one.intended_s for one in taken]),
        np.array([one.prompt_tokens or 1 for one in taken], dtype=np.int64),
        np.array([max(1, one.output_tokens) for one in taken], dtype=np.int64),
    )


def _routing(path: Path, limits: Limits) -> _Routing:
    """Count a log by request; by step where it tells no requests."""
    from nsysmoe.analysis.routing.routing_load import count_logs  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.held_out import step_cube  # noqa: PLC0415
    from nsysmoe.metrics.serving.batch_loads import drawn_loads  # noqa: PLC0415

    counted = count_logs([path], by_request=True)
    experts = _divisible(counted.experts, limits)
    cube = step_cube(counted.counts.with_columns(step=0), experts)
    findings = [*counted.findings, *_about_experts(counted.experts, experts, limits)]
    if len(cube) < 2:
        cube = step_cube(counted.counts, experts)
        message = "the log tells no requests: its steps stand for them"
        findings.append(Finding("no_requests", "warning", message, {"steps": len(cube)}))
    if len(cube) < 2:
        raise MissingDataError(f"{path} holds one request: nothing is left to judge on")
    if counted.top_k is None:
        message = "the log does not tell how many experts a token chooses: one is taken"
        findings.append(Finding("unknown_top_k", "info", message, {}))
    every = -(-cube.size // _LARGEST)
    cube = cube[::every]
    unseen = cube[1::2]
    drawn = tuple(drawn_loads(unseen, sequences, counted.top_k or 1) for sequences in _SIZES)
    return _Routing(cube[::2], unseen, drawn, tuple(findings))


def _divisible(experts: int, limits: Limits) -> int:
    """Return the experts of a layer; a log that never chose the last ones tells too few."""
    gpus = limits.present.gpus
    return -(-experts // gpus) * gpus


def _about_experts(told: int, taken: int, limits: Limits) -> list[Finding]:
    if told == taken:
        return []
    message = (
        f"the log names experts 0 to {told - 1}, which do not divide among the "
        f"{limits.present.gpus} GPUs of the replay: {taken} are taken, the last never chosen"
    )
    return [Finding("more_experts", "warning", message, {"named": told, "taken": taken})]


@dataclass(frozen=True)
class _Factors:
    """The busiest device of a layout against that of now, by batch size."""

    layout: Layout
    slots: int
    loads: tuple[float, ...]
    active: tuple[float, ...]
    prompt: float
    balancedness: float | None

    @classmethod
    def of(cls, layout: Layout, now: Layout, chosen: _Routing) -> _Factors:
        from nsysmoe.metrics.routed_load.load_balance import vllm_balancedness  # noqa: PLC0415
        from nsysmoe.metrics.serving.batch_loads import (  # noqa: PLC0415 - numpy
            busiest,
            most_active,
        )
        from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

        maps = [(_map(one, chosen.seen), one.gpus) for one in (layout, now)]
        loads = [_ratio(*(busiest(drawn, *each) for each in maps)) for drawn in chosen.drawn]
        active = [_ratio(*(most_active(drawn, *each) for each in maps)) for drawn in chosen.drawn]
        whole = device_loads(maps[0][0], chosen.unseen.sum(axis=0), layout.gpus)
        return cls(
            layout,
            maps[0][0].shape[1],
            tuple(loads),
            tuple(active),
            _ratio(*(busiest(chosen.unseen, *each) for each in maps)),
            vllm_balancedness(whole),
        )

    def at(self, sequences: float) -> tuple[float, float]:
        """Return the ratios of loads and of active experts at a batch size."""
        import numpy as np  # noqa: PLC0415

        place = float(np.log2(max(1.0, sequences)))
        sizes = np.log2(_SIZES)
        return (
            float(np.interp(place, sizes, self.loads)),
            float(np.interp(place, sizes, self.active)),
        )

    def told(self, sequences: int) -> dict[str, Any]:
        load, active = self.at(sequences)
        return {
            "layout": self.layout.name,
            "gpus": self.layout.gpus,
            "slots": self.slots,
            "load_ratio": load,
            "active_ratio": active,
            "prompt_load_ratio": self.prompt,
            "balancedness": self.balancedness,
        }


def _ratio(here: float, now: float) -> float:
    return here / now if now else 1.0


def _map(layout: Layout, seen: Cube) -> Map:
    from nsysmoe.placement.plan import place  # noqa: PLC0415 - numpy

    loads = seen.sum(axis=0)
    experts = loads.shape[1]
    if layout.redundant is None:
        return place(loads, Cluster(layout.gpus, experts), "contiguous")
    return place(loads, Cluster(layout.gpus, experts + layout.redundant), "eplb")


def _rows(  # noqa: PLR0913, PLR0917 - a grid has as many sides
    layout: Layout,
    most_sequences: int,
    factors: _Factors,
    model: StepTime,
    requests: Requests,
    limits: Limits,
) -> list[dict[str, Any]]:
    """Simulate one layout under one limit, at both ends of what is not known."""
    from nsysmoe.metrics.serving.batching import simulate  # noqa: PLC0415

    shares = {"unmoved": 0.0, "moved": 1.0}
    if limits.expert_share is not None:
        shares = {"expected": limits.expert_share, **shares}
    rows = []
    for end, share in shares.items():
        cost = _cost(model, factors, share, most_sequences)
        served = simulate(requests, cost, most_sequences, limits.most_tokens)
        row = {"layout": layout.name, "max_num_seqs": most_sequences, "end": end}
        rows.append(
            {
                **row,
                **_tails(served, requests),
                "is_extrapolated": served.most_sequences > model.most_sequences,
            }
        )
    return rows


def _cost(model: StepTime, factors: _Factors, share: float, most: int) -> Any:
    """Return the time of a step where a share of it follows the busiest device."""
    table = [factors.at(sequences) for sequences in range(most + 1)]

    def cost(sequences: int, prompt_tokens: int) -> float:
        load, active = table[min(sequences, most)]
        moved = (
            model.base * active
            + model.per_sequence * sequences * load
            + model.per_prompt_token * prompt_tokens * factors.prompt
        )
        return (1 - share) * model.of(sequences, prompt_tokens) + share * moved

    return cost


def _tails(served: Served, requests: Requests) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.serving.latency import percentiles  # noqa: PLC0415

    left = requests.output_tokens - 1
    several = left > 0
    measures = {
        "step": served.step_s,
        "ttft": served.first_s,
        "tpot": (served.last_s - served.first_s)[several] / left[several],
        "e2e": served.last_s,
    }
    found: dict[str, Any] = {
        f"{name}_{key}_s": value
        for name, values in measures.items()
        for key, value in percentiles(np.asarray(values, dtype=np.float64), _SHARES).items()
    }
    wall = served.end_s - float(requests.arrival_s[0])
    found["output_tok_per_s"] = float(requests.output_tokens.sum()) / wall if wall else None
    found["utilisation"] = served.busy_s / wall if wall else None
    return found


def _check(
    answered: Sequence[Outcome], requests: Requests, model: StepTime, limits: Limits
) -> list[dict[str, Any]]:
    """Simulate the replay itself: what the model gets wrong there, it gets wrong elsewhere."""
    from nsysmoe.analysis.experiments.traffic import served_of  # noqa: PLC0415
    from nsysmoe.metrics.serving.batching import simulate  # noqa: PLC0415
    from nsysmoe.metrics.serving.latency import percentiles  # noqa: PLC0415

    # The server's own limit is not known; where it held requests back, this was it.
    most = max(1, model.most_sequences)
    served = _tails(simulate(requests, model.of, most, limits.most_tokens), requests)
    measured = served_of(answered)
    return [
        {"measure": f"{name}_{key}", "measured_s": value, "simulated_s": served[f"{name}_{key}_s"]}
        for name in ("ttft", "tpot", "e2e")
        for key, value in percentiles(getattr(measured, f"{name}_s"), _SHARES).items()
    ]


def _lost(layout: Layout, chosen: _Routing) -> dict[str, Any]:
    """Say what the loss of one device does: at once, and after experts are placed anew."""
    from nsysmoe.placement.loads import device_loads, loads_without  # noqa: PLC0415

    map_, gpus = _map(layout, chosen.seen), layout.gpus
    loads = chosen.unseen.sum(axis=0)
    before = device_loads(map_, loads, gpus)
    losses = [(one, *loads_without(map_, loads, gpus, one)) for one in range(gpus)]
    # The worst: most choices without an answer, then the busiest device among the others.
    device, homeless, at_once = max(
        losses, key=lambda one: (float(loads[one[1]].sum()), float(one[2].max(axis=1).sum()))
    )
    again, needed = _placed_again(chosen.seen, map_.shape[1] // gpus, gpus - 1)
    after = None if again is None else device_loads(again, loads, gpus - 1)
    return {
        "layout": layout.name,
        "worst_device": device,
        "homeless_experts": int(homeless.sum()),
        "experts": loads.size,
        "homeless_share": float(loads[homeless].sum() / loads.sum()),
        "at_once_ratio": _busiest_ratio(at_once, before),
        "slots_per_device": map_.shape[1] // gpus,
        "slots_needed": needed,
        "load_ratio": None if after is None else _busiest_ratio(after, before),
        "others": _others(device, before, at_once, after),
    }


def _placed_again(seen: Cube, slots: int, gpus: int) -> tuple[Map | None, int]:
    """Return EPLB's plan on the devices that are left, and the slots that each of them needs.

    As many slots a device as before, or as many as hold every expert; no plan where EPLB has none.
    """
    from nsysmoe.placement.plan import place  # noqa: PLC0415

    loads = seen.sum(axis=0)
    needed = max(slots, -(-loads.shape[1] // gpus))
    try:
        return place(loads, Cluster(gpus, needed * gpus), "eplb"), needed
    except PlacementError:
        return None, needed


def _busiest_ratio(now: Cube, before: Cube) -> float | None:
    """Return the busiest device's load against before, summed over layers."""
    was = float(before.max(axis=1).sum())
    return float(now.max(axis=1).sum()) / was if was else None


def _others(lost: int, before: Cube, at_once: Cube, after: Cube | None) -> list[dict[str, Any]]:
    """Return what each device that is left carries, against the mean of all before."""
    mean = float(before.sum()) / before.shape[1]
    left = [one for one in range(before.shape[1]) if one != lost]
    return [
        {
            "device": device,
            "before": float(before[:, device].sum()) / mean,
            "at_once": float(at_once[:, place].sum()) / mean,
            "after": None if after is None else float(after[:, place].sum()) / mean,
        }
        for place, device in enumerate(left)
    ]


def _unknown(limits: Limits) -> list[str]:
    found = list(_NEVER_KNOWN)
    if limits.expert_share is None:
        found.insert(0, _UNKNOWN_SHARE)
    return found


def _assumed(limits: Limits) -> list[Finding]:
    if limits.now is not None:
        return []
    name = limits.present.name
    message = f"the replay is taken to have run on the first layout, {name}; say so with --now"
    return [Finding("assumed_layout", "warning", message, {"now": name})]


def _findings(model: StepTime, check: Sequence[dict[str, Any]], answered: int) -> list[Finding]:
    found = []
    if not model.is_separable:
        found.append(
            Finding(
                "one_batch_size",
                "warning",
                "as many sequences generated at all times: what a step costs by itself and what a "
                "sequence adds cannot be told apart; replay at another --speed too",
                {"most_sequences": model.most_sequences},
            )
        )
    found += _weak(check)
    if answered > _MOST_REQUESTS:
        found.append(
            Finding(
                "thinned",
                "info",
                f"the first {_MOST_REQUESTS:,} of {answered:,} requests were simulated",
                {"requests": answered},
            )
        )
    return found


def _weak(check: Sequence[dict[str, Any]]) -> list[Finding]:
    """Say so where the simulation does not even know the replay."""
    errors = [abs(row["simulated_s"] / row["measured_s"] - 1) for row in check if row["measured_s"]]
    worst = max(errors, default=0.0)
    if worst <= _WEAK:
        return []
    return [
        Finding(
            "weak_model",
            "warning",
            f"the simulation of the replay itself is off by up to {worst:.0%}: tails of other "
            "layouts are no better",
            {"worst": worst},
        )
    ]
