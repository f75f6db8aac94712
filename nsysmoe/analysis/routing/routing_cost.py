"""What routing costs: a fit on one run, judged on another that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routing.routed import Choices, Inputs, RoutedArm, count_rows, read_arm
from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.routing import PlacementHistory

PHASES = ("decode", "prefill")
# Of kinds of kernels that routing does set; a log of another run leaves a quarter and more.
_WEAK_ERROR = 0.15
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
        sums: By ``phase`` (``all`` too) and ``what``: ``critical_ns``, ``excess_ns``, and
            ``critical_error`` and ``excess_error`` (relative to measured; null where not
            comparable). ``measured``; ``predicted``; ``no_change``, predicted with the first
            run's last placement; ``perfect_balance``; ``baseline``, the first run as measured.
            With one trace ``measured`` and ``perfect_balance`` alone.
        cells: ``cells`` of the judged trace, and those that could be ``predicted``.
        tax: Rows of ``metrics.replicas.tax`` with ``measured_before_ns`` and
            ``measured_after_ns`` a token; empty with one trace.
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

    from nsysmoe.metrics.routed_load.routing_cost import fit_costs  # noqa: PLC0415 - imports polars

    costs = fit_costs(fitted.launches.filter(~fitted.launches["is_padded"]))
    if costs.is_empty():
        raise MissingDataError(
            f"{fitted.source} has fewer than eight launches of any kind of MoE kernel: too few to "
            "fit"
        )
    findings = (
        *_weak(fitted.source, costs),
        *(finding for arm in arms for finding in arm.findings),
    )
    if len(arms) == 2:
        return _judged(fitted, arms[1], costs, findings)
    cells = fitted.launches["ordinal"].n_unique()
    return Explanation(
        source=fitted.source,
        against=None,
        costs=_rows(costs),
        scores=(),
        sums=_measured(fitted.launches),
        cells={"cells": cells, "predicted": 0},
        tax=(),
        break_even=None,
        findings=findings,
    )


def _judged(
    fitted: RoutedArm, judged: RoutedArm, costs: pl.DataFrame, findings: tuple[Finding, ...]
) -> Explanation:
    from nsysmoe.metrics.routed_load.replicas import break_even  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.routing_cost import predict, score, whole_cells  # noqa: PLC0415

    _check_alike(fitted, judged)
    before, after = (
        whole_cells(predict(costs, arm.launches), "predicted_ns") for arm in (fitted, judged)
    )
    unmoved = whole_cells(predict(costs, with_placement(judged, fitted.history)), "predicted_ns")
    every = judged.launches["ordinal"].n_unique()
    known = after["ordinal"].n_unique()
    everything = predict(costs, judged.launches.filter(~judged.launches["is_padded"]))
    changes = _tax(before, unmoved, after, costs)
    return Explanation(
        source=fitted.source,
        against=judged.source,
        costs=_rows(costs),
        scores=_rows(score(everything).sort("gemm", "phase")),
        sums=_sums(after, unmoved, fitted.launches, is_whole=every == known),
        cells={"cells": every, "predicted": known},
        tax=changes,
        break_even=break_even(list(changes)),
        findings=findings,
    )


def _tax(
    before: pl.DataFrame, unmoved: pl.DataFrame, after: pl.DataFrame, costs: pl.DataFrame
) -> tuple[dict[str, Any], ...]:
    """Return what the second placement changes a token, beside what was measured a token."""
    from nsysmoe.metrics.routed_load.replicas import phase_costs, tax  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.routing_cost import critical  # noqa: PLC0415

    measured = [
        {
            phase: critical(_of(launches, phase), "dur_ns")["critical_ns"] / count
            for phase, count in _tokens(launches).items()
        }
        for launches in (before, after)
    ]
    changes = tax(phase_costs(unmoved, costs), phase_costs(after, costs), _tokens(after))
    return tuple(
        {
            **row,
            "measured_before_ns": measured[0].get(row["phase"]),
            "measured_after_ns": measured[1].get(row["phase"]),
        }
        for row in changes
    )


def _tokens(launches: pl.DataFrame) -> dict[str, int]:
    """Return the tokens of the steps that launched them, by phase."""
    steps = launches.select("step", "phase", "step_tokens").unique()
    return {
        str(phase): int(steps.filter(steps["phase"] == phase)["step_tokens"].sum())
        for phase in steps["phase"].unique().to_list()
    }


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


def with_placement(arm: RoutedArm, history: PlacementHistory) -> pl.DataFrame:
    """Return an arm's launches with the work that the last map of ``history`` would give them."""
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.routed_load.routing_cost import rank_work  # noqa: PLC0415

    launches = arm.launches.drop("rows", "active", "busiest_rows", "padded_rows")
    counts = count_rows(arm.choices, launches.with_columns(is_after=pl.lit(True)), history)
    return rank_work(counts, launches)


def _sums(
    after: pl.DataFrame, unmoved: pl.DataFrame, before: pl.DataFrame, *, is_whole: bool
) -> tuple[dict[str, Any], ...]:
    """Sum slowest and excess over the cells that could be predicted, by phase.

    The first trace as measured is a prediction too, but only of the whole of the second.
    """
    from nsysmoe.metrics.routed_load.routing_cost import critical  # noqa: PLC0415

    rows = []
    for phase in ("all", *PHASES):
        here = _of(after, phase)
        if here.is_empty():
            continue
        measured, model = critical(here, "dur_ns"), critical(here, *_PREDICTED)
        found = {
            "measured": measured,
            "predicted": model,
            "no_change": critical(_of(unmoved, phase), *_PREDICTED),
            "perfect_balance": {"critical_ns": model["mean_ns"], "excess_ns": 0.0},
            "baseline": critical(_of(before, phase), "dur_ns"),
        }
        compared = {
            "predicted",
            "no_change",
            "perfect_balance",
            *(["baseline"] if is_whole else []),
        }
        rows += [
            _against(phase, what, sums, measured if what in compared else None)
            for what, sums in found.items()
        ]
    return tuple(rows)


def _measured(launches: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    """Sum slowest and excess as measured, beside what perfect balance would leave."""
    from nsysmoe.metrics.routed_load.routing_cost import critical  # noqa: PLC0415

    rows = []
    for phase in ("all", *PHASES):
        here = critical(_of(launches, phase), "dur_ns")
        balanced = {"critical_ns": here["mean_ns"], "excess_ns": 0.0}
        if here["critical_ns"]:
            rows.append(_against(phase, "measured", here, None))
            rows.append(_against(phase, "perfect_balance", balanced, here))
    return tuple(rows)


def _against(
    phase: str, what: str, sums: dict[str, float], measured: dict[str, float] | None
) -> dict[str, Any]:
    return {
        "phase": phase,
        "what": what,
        "critical_ns": sums["critical_ns"],
        "excess_ns": sums["excess_ns"],
        **{
            f"{name}_error": sums[f"{name}_ns"] / measured[f"{name}_ns"] - 1
            if measured and measured[f"{name}_ns"]
            else None
            for name in ("critical", "excess")
        },
    }


def _weak(source: str, costs: pl.DataFrame) -> list[Finding]:
    """Say so where routing hardly explains durations: the labels cannot tell two logs apart."""
    worst = costs.filter(costs["error_ratio"] > _WEAK_ERROR).sort("error_ratio", descending=True)
    if worst.is_empty():
        return []
    row = worst.row(0, named=True)
    return [
        Finding(
            "weak_fit",
            "warning",
            f"routing explains {row['gemm']} of {row['phase']} in {source} to "
            f"{row['error_ratio']:.0%} only: the log may be of another run with prompts of the "
            "same lengths, or something else than routing sets durations",
            {
                "source": source,
                **{name: row[name] for name in ("gemm", "phase", "block_m", "r2", "error_ratio")},
            },
        )
    ]


def _of(launches: pl.DataFrame, phase: str) -> pl.DataFrame:
    return launches if phase == "all" else launches.filter(launches["phase"] == phase)


def _rows(frame: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple(frame.to_dicts())
