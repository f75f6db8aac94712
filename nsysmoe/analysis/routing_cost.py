"""What routing costs: a fit on one run, judged on another that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routed import Choices, Inputs, RoutedArm, count_rows, read_arm
from nsysmoe.errors import MissingDataError, RoutingError

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

PHASES = ("decode", "prefill")
_PREDICTED = ("predicted_ns", "spread_ns")


@dataclass(frozen=True)
class Explanation:
    """Durations of MoE products explained by routing; times in ns.

    Attributes:
        source: The trace that was fitted.
        against: The trace that the fit was judged on; None where only one was given.
        costs: Rows of ``metrics.routing_cost.COSTS_SCHEMA``: a, b, c and how well they explain.
        scores: Rows of ``metrics.routing_cost.score`` on the second trace, by product and phase,
            batches without padding only.
        sums: By ``phase`` (``all`` too) and ``what`` (``measured``, ``predicted``, ``no_change``,
            ``perfect_balance``, ``baseline``): ``critical_ns``, ``excess_ns``, and
            ``critical_error`` and ``excess_error`` (relative to measured; null for it).
        cells: Cells of the judged trace, and those that could be predicted.
        tax: Rows of ``metrics.replicas.tax``; empty with one trace.
        break_even: Prompt tokens a generated one at which the change of decode and that of
            prefill cancel out; None where both have one sign.
        findings: What to know before believing it.
    """

    source: str
    against: str | None
    costs: tuple[dict[str, Any], ...]
    scores: tuple[dict[str, Any], ...]
    sums: tuple[dict[str, Any], ...]
    cells: dict[str, int]
    tax: tuple[dict[str, Any], ...]
    break_even: float | None
    findings: tuple[Finding, ...]


def explain(
    baseline: Inputs,
    candidate: Inputs | None = None,
    choices: Choices | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Explanation:
    """Fit durations of the first run to its routing, and predict the second with it.

    Raises:
        RoutingError: A trace, its log and its record are not of one run, or the runs are of
            different models.
        MissingDataError: Too little is known of a trace.
        NsysmoeError: An input cannot be used.
    """
    choices = choices or Choices()
    arms = [
        read_arm(inputs, choices, class_map=class_map, nsys=nsys)
        for inputs in (baseline, candidate)
        if inputs is not None
    ]
    fitted = arms[0]

    from nsysmoe.metrics.routing_cost import fit_costs, predict  # noqa: PLC0415 - imports polars

    clean = fitted.launches.filter(~fitted.launches["is_padded"])
    costs = fit_costs(clean)
    if costs.is_empty():
        raise MissingDataError(
            f"{fitted.source} has fewer than eight launches of any kind of MoE kernel: too few to "
            "fit"
        )
    findings = tuple(finding for arm in arms for finding in arm.findings)
    if len(arms) == 1:
        own = predict(costs, fitted.launches)
        sums, cells = _sums(own, None, None)
        return Explanation(
            fitted.source, None, _rows(costs), (), sums, cells, (), None, findings
        )
    return _judged(fitted, arms[1], costs, findings)


def _judged(
    fitted: RoutedArm, judged: RoutedArm, costs: pl.DataFrame, findings: tuple[Finding, ...]
) -> Explanation:
    from nsysmoe.metrics.replicas import break_even, phase_costs, tax  # noqa: PLC0415
    from nsysmoe.metrics.routing_cost import predict, score, whole_cells  # noqa: PLC0415

    _check_alike(fitted, judged)
    before, after = (predict(costs, arm.launches) for arm in (fitted, judged))
    unmoved = predict(costs, _with_placement_of(fitted, judged))
    sums, cells = _sums(after, unmoved, before)
    changes = tax(
        *(
            phase_costs(whole_cells(launches, "predicted_ns"), costs, arm.tokens)
            for launches, arm in ((before, fitted), (after, judged))
        )
    )
    return Explanation(
        source=fitted.source,
        against=judged.source,
        costs=_rows(costs),
        scores=_rows(score(after.filter(~after["is_padded"])).sort("gemm", "phase")),
        sums=sums,
        cells=cells,
        tax=tuple(changes),
        break_even=break_even(changes),
        findings=findings,
    )


def _check_alike(fitted: RoutedArm, judged: RoutedArm) -> None:
    arms = (fitted, judged)
    for what, (one, other) in {
        "ranks": [arm.ranks for arm in arms],
        "MoE layers": [arm.history.after.layers for arm in arms],
        "experts": [arm.history.after.experts for arm in arms],
    }.items():
        if one != other:
            raise RoutingError(
                f"{fitted.source} has {one} {what}, {judged.source} {other}: a fit of one says "
                "nothing about the other"
            )


def _with_placement_of(fitted: RoutedArm, judged: RoutedArm) -> pl.DataFrame:
    """Return the second run's launches with the work that the first one's placement would give."""
    from nsysmoe.metrics.routing_cost import rank_work  # noqa: PLC0415

    launches = judged.launches.drop("rows", "active", "busiest_rows", "padded_rows")
    return rank_work(count_rows(judged.choices, launches, fitted.history), launches)


def _sums(
    predicted: pl.DataFrame, unmoved: pl.DataFrame | None, before: pl.DataFrame | None
) -> tuple[tuple[dict[str, Any], ...], dict[str, int]]:
    """Sum slowest and excess over the cells that could be predicted, by phase."""
    from nsysmoe.metrics.routing_cost import critical, whole_cells  # noqa: PLC0415

    known = whole_cells(predicted, "predicted_ns")
    rows = []
    for phase in ("all", *PHASES):
        here = _of(known, phase)
        if here.is_empty():
            continue
        measured, model = critical(here, "dur_ns"), critical(here, *_PREDICTED)
        found = {"measured": measured, "predicted": model}
        if unmoved is not None and before is not None:
            same = unmoved.join(here.select("kernel_id"), on="kernel_id", how="semi")
            found["no_change"] = critical(_of(same, phase), *_PREDICTED)
            found["perfect_balance"] = {"critical_ns": model["mean_ns"], "excess_ns": 0.0}
            found["baseline"] = critical(_of(before, phase), "dur_ns")
        else:
            found["perfect_balance"] = {"critical_ns": measured["mean_ns"], "excess_ns": 0.0}
        rows += [_against(phase, what, sums, measured) for what, sums in found.items()]
    cells = {
        "cells": predicted["ordinal"].n_unique(), "predicted": known["ordinal"].n_unique(),
    }  # fmt: skip
    return tuple(rows), cells


def _against(
    phase: str, what: str, sums: dict[str, float], measured: dict[str, float]
) -> dict[str, Any]:
    compared = what not in {"measured", "baseline"}
    return {
        "phase": phase,
        "what": what,
        "critical_ns": sums["critical_ns"],
        "excess_ns": sums["excess_ns"],
        **{
            f"{name}_error": sums[f"{name}_ns"] / measured[f"{name}_ns"] - 1
            if compared and measured[f"{name}_ns"]
            else None
            for name in ("critical", "excess")
        },
    }


def _of(launches: pl.DataFrame, phase: str) -> pl.DataFrame:
    return launches if phase == "all" else launches.filter(launches["phase"] == phase)


def _rows(frame: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple(frame.to_dicts())
