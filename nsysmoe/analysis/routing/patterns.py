"""Activation patterns: popularity by domain, prefill against decode, experts that go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.analysis.routing.routing_load import Beside, TokenLogs
from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.metrics.routed_load.token_sample import Routes
    from nsysmoe.metrics.routed_load.unit_loads import UnitLoads

    Floats = NDArray[np.float64]

By = Literal["domain", "phase"]
_UNITS = 128
# Cells of a table of pairs by layer: 128 MB each of a handful.
_LARGEST_CELLS = 1 << 24
_STRONGEST = 10
_CERTAIN = 0.05
_NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Patterns:
    """Which experts are popular where, and which go together.

    Attributes:
        source: The logs.
        by: What groups popularity: ``domain`` or ``phase``; None where the logs tell neither.
        shape: ``requests``, ``layers``, ``experts``, ``top_k``, ``choices``.
        groups: One a group: ``group``, ``requests``, ``choices``, ``cv`` (mean over layers).
        popularity: One a group, layer and expert: ``group``, ``layer``, ``expert``, ``tokens``,
            ``share``.
        shifts: One a pair of groups, the Jensen-Shannon distance of popularity: ``one``,
            ``other``, ``distance`` (mean over layers), ``p50``, ``max``, ``worst_layer``,
            ``chance`` and ``chance_p95`` (of requests dealt at random), ``p`` (share of deals
            that are as far apart); the last three None for phases, and for fewer than two
            requests a domain.
        phases: Prefill against decode by layer: ``layer``, ``pearson``, ``spearman``,
            ``top_overlap``.
        agreement: Of these, one a measure: ``mean``, ``min`` over layers, ``by_chance`` (None but
            for overlap), and over single requests ``own`` (prefill and decode of one request),
            ``others`` (decode of the next one).
        top: Experts of ``top_overlap``.
        pairs: Strongest pairs of experts in tokens: ``layer``, ``one``, ``other``, ``tokens``,
            ``expected``, ``lift``, ``z``.
        transitions: Strongest steps to the next layer: the same with ``next_layer``.
        together: By layer: ``layer``, ``pairs`` and ``pairs_chance``, ``next`` and
            ``next_chance`` (total variation distance from what is expected, and its mean by
            chance).
        pictures: ``popularity`` by group ([layers][experts]), ``layers``, and the lift of the
            strongest ``pairs`` and ``transitions`` ([experts][experts], with their ``layer``).
        sentences: What it comes to.
        findings: What to know before believing it.
    """

    source: str
    by: By | None
    shape: dict[str, int]
    groups: tuple[dict[str, Any], ...]
    popularity: tuple[dict[str, Any], ...]
    shifts: tuple[dict[str, Any], ...]
    phases: tuple[dict[str, Any], ...]
    agreement: tuple[dict[str, Any], ...]
    top: int
    pairs: tuple[dict[str, Any], ...]
    transitions: tuple[dict[str, Any], ...]
    together: tuple[dict[str, Any], ...]
    pictures: dict[str, Any]
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


def patterns(
    paths: Sequence[str | Path],
    *,
    by: By | None = None,
    top: int | None = None,
    keep_dummy: bool = False,
    beside: Beside = _NOTHING_BESIDE,
) -> Patterns:
    """Find activation patterns in logs of which token chose which expert.

    Args:
        paths: Logs of any form but counts, or folders of them.
        by: What groups popularity; None for domains where the logs tell them, else phases.
        top: Experts whose overlap is counted; None for an eighth of a layer's, k at least.
        keep_dummy: Count rows of the engine's dummy runs too.
        beside: Files that tell phases and domains where the logs do not.

    Raises:
        InputError: A log cannot be used.
        MissingDataError: The logs hold counts alone, or not what ``by`` asks for.
    """
    from nsysmoe.metrics.routed_load.token_sample import TokenSample  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.unit_loads import UnitLoads  # noqa: PLC0415

    logs = TokenLogs(paths, beside, keep_dummy)
    units, sample = UnitLoads(("domain", "phase"), _UNITS), TokenSample()
    logs.feed(_real(units.add), _real(sample.add))
    loads = units.loads()
    experts = loads.shape[-1]
    top = min(experts, top or max(logs.top_k, -(-experts // 8)))
    by = _grouping(units, by, logs.name)
    names, grouped = _by_group(loads, units, by)
    shifts = _shifts(grouped, names, units.layers, is_dealt=by == "domain")
    phases, agreement = _phases(loads, units, top)
    routes = sample.routes()
    together = _together(routes, experts)
    return Patterns(
        source=logs.name,
        by=by,
        shape=_shape(logs, units, experts),
        groups=tuple(_groups(grouped, names)),
        popularity=tuple(_popularity(grouped, names, units.layers)),
        shifts=shifts,
        phases=phases,
        agreement=agreement,
        top=top,
        pairs=together["pairs"],
        transitions=together["transitions"],
        together=together["layers"],
        pictures={
            "popularity": dict(zip(names, grouped.sum(axis=1).tolist(), strict=True)),
            "layers": units.layers,
            **together["pictures"],
        },
        sentences=tuple(_sentences(shifts if by == "domain" else (), agreement, together, top)),
        findings=(
            *_findings(shifts if by == "domain" else (), routes, units, together),
            *logs.findings,
        ),
    )


def _real(take: Callable[[Any], None]) -> Callable[[Any], None]:
    """Leave out padding, whose routes nobody reads."""
    import polars as pl  # noqa: PLC0415 - slow to import

    def take_real(batch: pl.DataFrame) -> None:
        take(batch.filter(pl.col("padding").fill_null(value=False).not_()))

    return take_real


def _shape(logs: TokenLogs, units: UnitLoads, experts: int) -> dict[str, int]:
    return {
        "requests": units.units,
        "layers": len(units.layers),
        "experts": experts,
        "top_k": logs.top_k,
        "choices": logs.choices,
    }


def _grouping(units: UnitLoads, by: By | None, name: str) -> By | None:
    domains, phases = ({group[place] for group in units.groups} - {None} for place in (0, 1))
    if by == "domain" and not domains:
        raise MissingDataError(f"{name} tells no domains; give --domains")
    if by == "phase" and not phases:
        raise MissingDataError(f"{name} tells no phases; give --run, the record of the run")
    return by or ("domain" if domains else "phase" if phases else None)


def _by_group(
    loads: NDArray[np.int32], units: UnitLoads, by: By | None
) -> tuple[list[str], Floats]:
    """Add groups up; returns names, and loads [groups, units, layers, experts]."""
    import numpy as np  # noqa: PLC0415

    place = {None: None, "domain": 0, "phase": 1}[by]
    keys = ["all" if place is None else str(group[place] or "unknown") for group in units.groups]
    names = sorted(set(keys))
    number = np.array([names.index(key) for key in keys])
    summed = np.stack([loads[number == n].sum(axis=0, dtype=np.float64) for n in range(len(names))])
    return names, summed


def _groups(grouped: Floats, names: Sequence[str]) -> list[dict[str, Any]]:
    from nsysmoe.metrics.routed_load.load_balance import mean_known, variation  # noqa: PLC0415

    return [
        {
            "group": name,
            "requests": int((loads.sum(axis=(1, 2)) > 0).sum()),
            "choices": int(loads.sum()),
            "cv": mean_known(variation(loads.sum(axis=0))),
        }
        for name, loads in zip(names, grouped, strict=True)
    ]


def _popularity(
    grouped: Floats, names: Sequence[str], layers: Sequence[int]
) -> list[dict[str, Any]]:
    from nsysmoe.metrics.routed_load.activation import shares  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import known  # noqa: PLC0415

    rows = []
    for name, loads in zip(names, grouped.sum(axis=1), strict=True):
        parts = shares(loads)
        rows += [
            {"group": name, "layer": layers[place], "expert": expert,
             "tokens": int(loads[place, expert]), "share": known(parts[place, expert])}
            for place in range(len(layers))
            for expert in range(loads.shape[1])
        ]  # fmt: skip
    return rows


def _shifts(
    grouped: Floats, names: Sequence[str], layers: Sequence[int], *, is_dealt: bool
) -> tuple[dict[str, Any], ...]:
    """Return the distance of every pair of groups, beside requests that are dealt at random.

    Phases are not dealt: every request has both, and they differ in length.
    """
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.activation import mean_over_layers, shifts  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import known  # noqa: PLC0415

    distances = shifts(grouped.sum(axis=1))
    means = mean_over_layers(distances)
    dealt = _dealt(grouped) if is_dealt else None
    rows = []
    for pair, (one, other) in enumerate(zip(*np.triu_indices(len(names), 1), strict=True)):
        far = np.nan_to_num(distances[pair], nan=-1.0)
        row = {
            "one": names[one],
            "other": names[other],
            "distance": known(means[pair]),
            "p50": known(np.nanmedian(distances[pair])) if (far >= 0).any() else None,
            "max": known(distances[pair].max() if (far < 0).all() else far.max()),
            "worst_layer": int(layers[int(far.argmax())]),
        }
        rows.append({**row, **_by_chance(means[pair], None if dealt is None else dealt[:, pair])})
    return tuple(rows)


def _dealt(grouped: Floats) -> Floats | None:
    """Return distances of random deals [draws, pairs]; None with too few requests to deal."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.activation import shifts_by_chance  # noqa: PLC0415

    group, unit = np.nonzero(grouped.sum(axis=(2, 3)))
    counts = np.bincount(group, minlength=len(grouped))
    if len(grouped) < 2 or counts.min() < 2:
        return None
    return shifts_by_chance(grouped[group, unit].astype(np.float32), group)


def _by_chance(distance: Floats, dealt: Floats | None) -> dict[str, float | None]:
    import numpy as np  # noqa: PLC0415

    if dealt is None:
        return {"chance": None, "chance_p95": None, "p": None}
    # The observed deal is one of those that chance could give.
    as_far = (1 + int((dealt >= distance).sum())) / (1 + len(dealt))
    return {
        "chance": float(dealt.mean()),
        "chance_p95": float(np.percentile(dealt, 95)),
        "p": as_far,
    }


def _phases(
    loads: NDArray[np.int32], units: UnitLoads, top: int
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Set popularity in prefill against that in decode: by layer, and by single requests."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.activation import agreement  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import known, mean_known  # noqa: PLC0415

    phase = np.array([group[1] for group in units.groups], dtype=object)
    if not {"prefill", "decode"} <= set(phase):
        return (), ()
    prefill, decode = (
        loads[phase == name].sum(axis=0, dtype=np.float64) for name in ("prefill", "decode")
    )
    found = {
        name: measure(prefill.sum(axis=0), decode.sum(axis=0))
        for name, measure in agreement(top).items()
    }
    rows = [
        {"layer": layer, **{name: known(values[place]) for name, values in found.items()}}
        for place, layer in enumerate(units.layers)
    ]
    single = slice(0, min(units.units, _UNITS))
    both = np.flatnonzero((prefill[single].sum(axis=(1, 2)) > 0) & (decode[single].sum((1, 2)) > 0))
    return tuple(rows), tuple(
        {
            "measure": name,
            "mean": mean_known(found[name]),
            "min": known(np.fmin.reduce(found[name])),
            "by_chance": top / loads.shape[-1] if name == "top_overlap" else None,
            "own": mean_known(measure(prefill[both], decode[both])),
            "others": mean_known(measure(prefill[both], np.roll(decode[both], 1, axis=0)))
            if len(both) > 1
            else None,
        }
        for name, measure in agreement(top).items()
    )


def _together(routes: Routes, experts: int) -> dict[str, Any]:
    """Find experts that go together: in a token's choice, and from layer to layer."""
    from nsysmoe.metrics.routed_load import coactivation as co  # noqa: PLC0415

    if len(routes.layers) * experts * experts > _LARGEST_CELLS:
        return {"pairs": (), "transitions": (), "layers": (), "pictures": {}, "is_left_out": True}
    pairs = co.pair_counts(routes, experts)
    even = co.expected_pairs(pairs)
    steps = co.transition_counts(routes, experts)
    apart = co.expected_transitions(steps)
    return {
        "pairs": tuple(_named(co.strongest(pairs, even, 2 * _STRONGEST), routes, is_pair=True)),
        "transitions": tuple(_named(co.strongest(steps, apart, _STRONGEST), routes, is_pair=False)),
        "layers": tuple(_strengths(co.strength(pairs, even), co.strength(steps, apart), routes)),
        "pictures": {
            "pairs": _lift(pairs, even, routes),
            "transitions": _lift(steps, apart, routes),
        },
        "is_left_out": False,
    }


def _named(
    rows: Sequence[dict[str, Any]], routes: Routes, *, is_pair: bool
) -> list[dict[str, Any]]:
    """Call layers by their numbers; of a pair, which stands in the table twice, keep one."""
    found = []
    for row in rows:
        place = row["place"]
        if is_pair and row["one"] > row["other"]:
            continue
        more = {} if is_pair else {"next_layer": routes.layers[place + 1]}
        kept = {key: value for key, value in row.items() if key != "place"}
        found.append({"layer": routes.layers[place], **more, **kept})
    return found


def _strengths(
    pairs: tuple[Floats, Floats], steps: tuple[Floats, Floats], routes: Routes
) -> list[dict[str, Any]]:
    from nsysmoe.metrics.routed_load.load_balance import known  # noqa: PLC0415

    last = len(routes.layers) - 1
    return [
        {
            "layer": layer,
            "pairs": known(pairs[0][place]),
            "pairs_chance": known(pairs[1][place]),
            "next": known(steps[0][place]) if place < last else None,
            "next_chance": known(steps[1][place]) if place < last else None,
        }
        for place, layer in enumerate(routes.layers)
    ]


def _lift(observed: Floats, expected: Floats, routes: Routes) -> dict[str, Any] | None:
    """Return observed / expected of the layer that is furthest from what is expected."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.coactivation import strength  # noqa: PLC0415

    far, noise = strength(observed, expected)
    beyond = np.nan_to_num(far - noise, nan=-1.0)
    if not beyond.size or beyond.max() < 0:
        return None
    place = int(beyond.argmax())
    # Fewer than one choice expected says nothing.
    is_known = expected[place] >= 1
    lift = np.divide(
        observed[place], expected[place], out=np.full(is_known.shape, np.nan), where=is_known
    )
    cells = [[None if np.isnan(value) else float(value) for value in row] for row in lift]
    return {"layer": routes.layers[place], "lift": cells}


def _sentences(
    shifts: Sequence[dict[str, Any]],
    agreement: Sequence[dict[str, Any]],
    together: dict[str, Any],
    top: int,
) -> list[str]:
    said = []
    known = [row for row in shifts if row["distance"] is not None]
    if known:
        said.append(_shift_sentence(known))
    if agreement:
        said.append(_agreement_sentence({row["measure"]: row for row in agreement}, top))
    said += _together_sentence(together["layers"], "pairs", "the pairs of experts within a token")
    said += _together_sentence(
        together["layers"], "next", "the steps from one layer's expert to the next's"
    )
    return said or ["The log tells neither domains nor phases, and too little of pairs."]


def _shift_sentence(rows: Sequence[dict[str, Any]]) -> str:
    far = max(rows, key=lambda row: row["distance"])
    text = (
        f"Popularity shifts most between {far['one']} and {far['other']}: Jensen-Shannon distance "
        f"{far['distance']:.3f}"
    )
    if far["p"] is None:
        return f"{text} (too few requests to tell it from chance)."
    clear = sum(row["p"] < _CERTAIN for row in rows)
    return (
        f"{text}, where requests dealt at random are {far['chance']:.3f} apart; {clear} of "
        f"{len(rows)} pairs of domains are further apart than 95 % of such deals."
    )


def _agreement_sentence(rows: dict[str, dict[str, Any]], top: int) -> str:
    def said(row: dict[str, Any], key: str) -> str:
        return "n/a" if row[key] is None else f"{row[key]:.2f}"

    linear, ranked, overlap = (rows[name] for name in ("pearson", "spearman", "top_overlap"))
    return (
        f"Popularity in prefill against decode: Pearson {said(linear, 'mean')}, Spearman "
        f"{said(ranked, 'mean')}, {said(overlap, 'mean')} of the top {top} in common (by chance "
        f"{said(overlap, 'by_chance')}); for a single request Pearson {said(linear, 'own')}, with "
        f"another request's decode {said(linear, 'others')}."
    )


def _together_sentence(rows: Sequence[dict[str, Any]], key: str, what: str) -> list[str]:
    known = [row for row in rows if row[key] is not None]
    if not known:
        return []
    mean, chance = (sum(row[name] for row in known) / len(known) for name in (key, f"{key}_chance"))
    far = max(known, key=lambda row: row[key])
    sentence = (
        f"Of {what} {mean:.1%} are others than popularity alone gives (mean over layers; "
        f"{chance:.1%} by chance), most in layer {far['layer']}: {far[key]:.1%}."
    )
    return [sentence]


def _findings(
    shifts: Sequence[dict[str, Any]], routes: Routes, units: UnitLoads, together: dict[str, Any]
) -> list[Finding]:
    found = []
    if any(row["p"] is None for row in shifts):
        found.append(
            Finding(
                "few_requests", "warning",
                "a group has fewer than two requests: a shift cannot be told from how requests "
                "differ anyway",
            )
        )  # fmt: skip
    if routes.every > 1:
        found.append(
            Finding(
                "thinned_tokens", "info",
                f"pairs and steps are of one in {routes.every} tokens, drawn evenly; popularity "
                "is of all",
                {"every": routes.every},
            )
        )  # fmt: skip
    if routes.odd:
        found.append(
            Finding(
                "uneven_routes", "warning",
                f"{routes.odd:,} routes have another number of experts than the rest: not in "
                "pairs and steps",
                {"routes": routes.odd},
            )
        )  # fmt: skip
    if units.units > _UNITS:
        found.append(
            Finding(
                "shared_requests", "info",
                f"of {units.units:,} requests the first {_UNITS} stand alone, those after them for "
                f"{_UNITS} more: what single requests show is of the first",
                {"requests": units.units, "single": _UNITS},
            )
        )  # fmt: skip
    if together["is_left_out"]:
        found.append(
            Finding("too_many_pairs", "warning", "layers have too many experts to count pairs of")
        )
    return found
