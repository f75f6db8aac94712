"""What placements cost in time: a fit on the trace, applied to steps held out of each plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.analysis.routing.routed import RoutedArm
    from nsysmoe.placement.activity import StepCost

    Map = NDArray[np.int64]

PHASES = ("all", "decode", "prefill")
# Of a plan's launches: fewer beyond what was seen do not move its sums.
_FEW = 0.05


@dataclass(frozen=True)
class Times:
    """Placements judged in time.

    Attributes:
        rows: An advice's ``times``.
        single_runs: An advice's ``single_runs``.
        tax: An advice's ``tax``.
        unseen: What EPLB's plan has in decode and no launch of the trace had, as ``_unseen``.
    """

    rows: tuple[dict[str, Any], ...]
    single_runs: dict[str, Any]
    tax: dict[str, Any] | None
    unseen: dict[str, Any] | None


def fit(arm: RoutedArm) -> pl.DataFrame:
    """Return what experts and rows cost on the trace.

    Raises:
        MissingDataError: Too few launches of any kind.
    """
    from nsysmoe.metrics.routed_load.routing_cost import fit_costs  # noqa: PLC0415 - polars

    costs = fit_costs(arm.launches.filter(~arm.launches["is_padded"]))
    if costs.is_empty():
        raise MissingDataError(
            f"{arm.source} has fewer than eight launches of any kind of MoE kernel: too few to fit"
        )
    return costs


def step_costs(arm: RoutedArm, costs: pl.DataFrame) -> StepCost:
    """Return what an expert costs in each step of the trace, both products together, in ns.

    Steps of a kind that was not fitted cost nothing: they do not tell plans apart.
    """
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.placement.activity import StepCost  # noqa: PLC0415

    kinds = arm.launches.select("step", "gemm", "phase", "block_m").unique(maintain_order=True)
    priced = kinds.join(
        costs, on=["gemm", "phase", "block_m"], how="left", maintain_order="left"
    ).with_columns(block=pl.col("per_row_ns") * pl.col("block_m"))
    found = (
        priced.group_by("step", maintain_order=True)
        .agg(pl.col("per_expert_ns", "block").sum(), pl.col("block_m").max())
        .sort("step")
    )
    per_expert, per_block = (
        found[name].fill_null(0).to_numpy().astype(np.float64)
        for name in ("per_expert_ns", "block")
    )
    return StepCost(per_expert, per_block, found["block_m"].to_numpy().astype(np.int64))


def judge_times(
    arm: RoutedArm,
    costs: pl.DataFrame,
    halves: dict[str, list[Map]],
    folds: NDArray[np.int64],
    *,
    redundant: int,
) -> Times:
    """Judge each placement in time.

    Args:
        arm: The trace with its routing.
        costs: What ``fit`` returned.
        halves: By placement the maps for the steps of fold 0 and of fold 1.
        folds: Of each step of the trace, in order.
        redundant: Redundant experts; with some, ``halves`` holds ``eplb_plain`` too.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.routed_load.routing_cost import predict, whole_cells  # noqa: PLC0415

    steps = arm.launches["step"].unique().sort()
    parts = [steps.filter(pl.Series(folds == fold)) for fold in (0, 1)]
    launches = {"now": arm.launches}
    for name, maps in halves.items():
        moved = (_moved(arm, map_) for map_ in maps)
        launches[name] = pl.concat(
            frame.filter(pl.col("step").is_in(unseen.implode()))
            for frame, unseen in zip(moved, parts, strict=True)
        )
    frames = {
        name: whole_cells(predict(costs, each), "predicted_ns") for name, each in launches.items()
    }
    rows = [row for phase in PHASES for row in _phase_rows(phase, frames)]
    return Times(
        tuple(rows),
        _single_runs(frames["now"], rows),
        _tax(frames, costs) if redundant else None,
        _unseen(frames["now"], frames["eplb"]),
    )


def _moved(arm: RoutedArm, map_: Map) -> pl.DataFrame:
    from nsysmoe.analysis.routing.routing_cost import with_placement  # noqa: PLC0415
    from nsysmoe.routing import Placement, PlacementHistory  # noqa: PLC0415

    placement = Placement(map_, arm.ranks)
    return with_placement(arm, PlacementHistory(placement, placement))


def _phase_rows(phase: str, frames: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Sum what the slowest rank takes, as measured, predicted now, and under each plan."""
    from nsysmoe.metrics.routed_load.held_out import saved  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.routing_cost import critical  # noqa: PLC0415

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
    found = [_row(phase, "measured", critical(here["now"], "dur_ns"), None, None)]
    for name, each in sums.items():
        interval = saved(steps["now"], steps[name], phases)[1]
        found.append(_row(phase, name, each, now, interval))
    ideal = {"critical_ns": sums["now"]["mean_ns"], "excess_ns": 0.0}
    found.append(_row(phase, "perfect_balance", ideal, now, None))
    return found


def _by_step(launches: pl.DataFrame) -> NDArray[np.float64]:
    """Return the sum of the slowest rank of each cell, by step; added in one order, always."""
    import polars as pl  # noqa: PLC0415

    return (
        launches.group_by("step", "ordinal", maintain_order=True)
        .agg(pl.col("predicted_ns").max())
        .group_by("step", maintain_order=True)
        .agg(pl.col("predicted_ns").sum())
        .sort("step")["predicted_ns"]
        .to_numpy()
    )


def _row(
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


def _single_runs(now: pl.DataFrame, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what one run with EPLB against one without may measure."""
    from nsysmoe.metrics.statistics.single_runs import between_runs, pair_interval  # noqa: PLC0415

    row = next(row for row in rows if (row["phase"], row["what"]) == ("all", "eplb"))
    spread = between_runs(now)
    half = 0.0
    if row["low"] is not None and row["saved"]:
        half = (row["high"] - row["low"]) / 2 * abs(row["saved_ns"] / row["saved"])
    (low, high), runs = pair_interval(row["saved_ns"], half, spread["sd_ns"])
    return {**spread, "saved_ns": row["saved_ns"], "low_ns": low, "high_ns": high, "runs": runs}


def _unseen(now: pl.DataFrame, planned: pl.DataFrame) -> dict[str, Any] | None:
    """Say whether a plan has more active experts a GPU in decode than any launch of the trace.

    A fit says nothing of what it has not seen: the cost of one more expert is then the slope
    between fewer. With prompts rows take the time, which a trace has in every number.

    Returns:
        ``seen`` and ``planned`` (the most active experts of a launch), ``share`` of the plan's
        launches with more than were seen, ``by_weights``: what decode takes of what it took where
        time goes with active experts, as that of reading weights does. None where few have more.
    """
    before, after = (frame.filter(frame["phase"] == "decode")["active"] for frame in (now, planned))
    if before.is_empty() or after.is_empty():
        return None
    seen: int = before.max()  # type: ignore[assignment]
    share = float((after > seen).mean())  # type: ignore[arg-type]
    if share < _FEW:
        return None
    by_weights = float(after.mean()) / float(before.mean())  # type: ignore[arg-type]
    return {"seen": seen, "planned": after.max(), "share": share, "by_weights": by_weights}


def _tax(frames: dict[str, pl.DataFrame], costs: pl.DataFrame) -> dict[str, Any]:
    """Set EPLB's plan with redundant experts against its plan without, on the same steps."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.replicas import break_even, phase_costs, tax  # noqa: PLC0415

    steps = frames["now"].select("step", "phase", "step_tokens").unique()
    tokens = {
        str(phase): int(steps.filter(pl.col("phase") == phase)["step_tokens"].sum())
        for phase in steps["phase"].unique().to_list()
    }
    plain, doubled = (phase_costs(frames[name], costs) for name in ("eplb_plain", "eplb"))
    changes = tax(plain, doubled, tokens)
    return {"phases": changes, "break_even_prompt_tokens": break_even(changes)}
