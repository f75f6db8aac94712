"""A run cut into its steps: what each took, and which of them something else distorted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from nsysmoe.metrics.kernel_time.phases import DUMMY, UNATTRIBUTED
from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SUMS = (
    "wall_ns",
    "launches",
    "total_ns",
    "squares",
    "critical_ns",
    "mean_ns",
    "excess_ns",
    "wait_ns",
    "transfer_ns",
    "nccl_total_ns",
    "allreduce_total_ns",
    "exposed_wait_ns",
    "exposed_transfer_ns",
    "idle_ns",
)
_DEVICE = ["global_pid", "device_id"]
# A step with a cause at hand is distorted by half more than is usual; without one, by threefold.
_RATIO_WITH_CAUSE = 1.5
_RATIO_WITHOUT_CAUSE = 3.0
_FEWEST_STEPS = 4
_MET_IN = ("prefill", "decode", "mixed", DUMMY)
# Grids within a factor of two are of one size.
_SIZE = pl.col("blocks").log(2).round()


def timed_steps(cuts: pl.DataFrame, worked: pl.DataFrame) -> pl.DataFrame:
    """Return the slices of a run with the MoE launches of each: of ``step_table`` its lengths.

    Args:
        cuts: View ``slices``, in order, with what ``with_work`` adds.
        worked: View ``moe_slices``.

    Returns:
        ``cuts`` with ``launches``.
    """
    counted = worked.select("slice", "launches")
    return cuts.join(counted, on="slice", how="left", maintain_order="left").with_columns(
        pl.col("launches").fill_null(0)
    )


def with_work(steps: pl.DataFrame, work: pl.DataFrame, length: str = "wall_ns") -> pl.DataFrame:
    """Say of steps what all ranks had to do in them.

    Args:
        steps: ``phase``, ``start_ns`` and their length: of one GPU, or of several.
        work: View ``slice_work``.
        length: The column of lengths, ns.

    Returns:
        ``steps`` (phase ``unattributed`` where unknown) with ``joint_phase`` (of all ranks, their
        own where no MoE kernel ran) and ``blocks`` (of the largest MoE launch of any rank, null
        without one), in their order.
    """
    shared = work.sort("start_ns").select(
        pl.col("start_ns").alias("middle_ns"), pl.col("phase").alias("joint_phase"), "blocks"
    )
    # A step begins on one device a little before another: its middle says which slice it is.
    middles = steps.with_row_index("place").with_columns(
        pl.col("phase").fill_null(UNATTRIBUTED),
        (pl.col("start_ns") + pl.col(length) // 2).alias("middle_ns"),
    )
    return (
        middles.sort("middle_ns")
        .join_asof(shared, on="middle_ns", strategy="backward")
        .with_columns(pl.col("joint_phase").fill_null(pl.col("phase")))
        .sort("place")
        .drop("place", "middle_ns")
    )


def spent_by_slice(cuts: pl.DataFrame, device_time: pl.DataFrame) -> pl.DataFrame:
    """Return how long the mean device was exposed or idle in each slice.

    Args:
        cuts: View ``slices``, in order.
        device_time: View ``device_time``.

    Returns:
        ``slice``, ``exposed_wait_ns``, ``exposed_transfer_ns``, ``idle_ns``.
    """
    devices = device_time.select(_DEVICE).n_unique()
    exposed = ["exposed_wait_ns", "exposed_transfer_ns", "idle_ns"]
    # A step begins on one device a little before another: its middle says which slice it is.
    middles = device_time.with_columns(start_ns=pl.col("start_ns") + pl.col("window_ns") // 2)
    return _by_slice(cuts, middles, [pl.col(name).sum() / devices for name in exposed])


def phases_apart(events: pl.DataFrame, cuts: pl.DataFrame, length: str) -> pl.DataFrame:
    """Return the events of ranks that are in another phase than all ranks together.

    Args:
        events: ``phase``, ``start_ns`` and their length; no ``blocks``.
        cuts: View ``slices`` with what ``with_work`` adds.
        length: The column of lengths, ns.

    Returns:
        Those of ``events``, with ``joint_phase`` and ``blocks``.
    """
    return _with_joint(events, cuts, length).filter(pl.col("phase") != pl.col("joint_phase"))


def in_joint_phases(events: pl.DataFrame, cuts: pl.DataFrame, length: str) -> pl.DataFrame:
    """Give events the phase of all ranks together, as MoE cells have it.

    Arguments are those of ``phases_apart``; returns ``events`` with ``phase`` replaced.
    """
    joined = _with_joint(events, cuts, length)
    return joined.with_columns(pl.col("joint_phase").alias("phase")).drop("joint_phase", "blocks")


def _with_joint(events: pl.DataFrame, cuts: pl.DataFrame, length: str) -> pl.DataFrame:
    work = cuts.select("start_ns", pl.col("joint_phase").alias("phase"), "blocks")
    found = with_work(events, work, length)
    # Of a rank that does nothing of the model, or nobody knows what, the phase is its own.
    is_met = pl.col("phase").is_in(_MET_IN)
    return found.with_columns(
        pl.when(is_met).then("joint_phase").otherwise("phase").alias("joint_phase")
    )


def step_table(
    cuts: pl.DataFrame,
    worked: pl.DataFrame,
    cells: pl.DataFrame,
    collectives: pl.DataFrame,
    device_time: pl.DataFrame,
) -> pl.DataFrame:
    """Sum what every slice of a run holds.

    Args:
        cuts: View ``slices``, in order, with what ``with_work`` adds.
        worked: View ``moe_slices``.
        cells: Cells; ``start_ns``, ``slowest_ns``, ``mean_ns``.
        collectives: View ``collective_slices`` with ``is_nccl`` and ``is_allreduce``.
        device_time: View ``device_time``.

    Returns:
        ``cuts`` with ``SUMS`` (times in ns over all devices,
        ``squares`` in ns², exposed times and idle the mean of devices) and ``stratum``: steps of
        one phase of all ranks and one size of grid (within a factor of two), which may stand for
        one another.
    """
    duration = pl.col("dur_ns")
    balanced = _by_slice(
        cuts,
        cells,
        [
            pl.col("slowest_ns").sum().alias("critical_ns"),
            ordered_sum(pl.col("mean_ns")),
            ordered_sum(pl.col("slowest_ns") - pl.col("mean_ns")).alias("excess_ns"),
        ],
    )
    communicated = collectives.group_by("slice").agg(
        pl.col("wait_ns", "transfer_ns").sum(),
        duration.filter("is_nccl").sum().alias("nccl_total_ns"),
        duration.filter("is_allreduce").sum().alias("allreduce_total_ns"),
    )
    table = cuts
    launched = worked.rename({"dur_ns": "total_ns"})
    for part in (launched, balanced, communicated, spent_by_slice(cuts, device_time)):
        table = table.join(part, on="slice", how="left", maintain_order="left")
    size = _SIZE.cast(pl.String).fill_null("")
    return table.with_columns(
        pl.col(SUMS).fill_null(0),
        pl.concat_str("joint_phase", size, separator=" ").alias("stratum"),
    )


def distorted(
    table: pl.DataFrame,
    causes: Sequence[tuple[str, pl.DataFrame]],
    part_of_it: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return the steps whose length something other than the workload explains.

    A step is distorted when it took half as long again as is usual (``with_typical``) and a cause
    falls into it, or three times that without one (``stall``). Where there is no usual length: a
    cause and a device that idled for half of the step.

    Args:
        table: What ``step_table`` returned.
        causes: Name and events (``start_ns``, ``end_ns``) of each cause, the first that fits
            counts.
        part_of_it: Events that stretch steps and belong to what is measured: no step that they
            fall into is distorted.

    Returns:
        ``slice``, ``step``, ``phase``, ``start_ns``, ``wall_ns``, ``typical_ns`` (null where there
        are too few to tell), ``cause``.
    """
    judged = with_typical(table).with_columns(
        (pl.col("start_ns") + pl.col("wall_ns")).alias("end_ns"),
        pl.lit(None, pl.String).alias("cause"),
    )
    for name, events in causes:
        is_met = _met_by(judged, events) & pl.col("cause").is_null()
        judged = judged.with_columns(
            pl.when(is_met).then(pl.lit(name)).otherwise("cause").alias("cause")
        )
    ratio = pl.col("wall_ns") / pl.col("typical_ns")
    is_long = (
        pl.when(pl.col("cause").is_null())
        .then(ratio > _RATIO_WITHOUT_CAUSE)
        .when(pl.col("typical_ns").is_null())
        .then(pl.col("idle_ns") > pl.col("wall_ns") / 2)
        .otherwise(ratio > _RATIO_WITH_CAUSE)
    )
    if part_of_it is not None:
        is_long &= ~_met_by(judged, part_of_it)
    # Idle steps wait for requests; how long is the workload's.
    return judged.filter(is_long & (pl.col("phase") != "idle")).select(
        "slice",
        "step",
        "phase",
        "start_ns",
        "wall_ns",
        "typical_ns",
        pl.col("cause").fill_null("stall"),
    )


def _met_by(steps: pl.DataFrame, events: pl.DataFrame) -> pl.Expr:
    """Return whether any of the events falls into a step (``start_ns`` to ``end_ns``)."""
    met = steps.join_where(
        events.select(pl.col("start_ns").alias("from_ns"), pl.col("end_ns").alias("to_ns")),
        pl.col("from_ns") < pl.col("end_ns"),
        pl.col("to_ns") > pl.col("start_ns"),
    )["slice"].unique()
    return pl.col("slice").is_in(met.implode())


def undistorted(table: pl.DataFrame, steps: pl.DataFrame) -> tuple[pl.DataFrame, set[str]]:
    """Put the mean of its stratum's other steps in the place of each distorted one.

    Args:
        table: What ``step_table`` returned.
        steps: What ``distorted`` returned.

    Returns:
        The table, and the strata that hold distorted steps alone: they are not in it.
    """
    sound = table.join(steps, on="slice", how="anti")
    hit = table.join(steps, on="slice", how="semi")
    usual = sound.group_by("stratum").agg(pl.col(SUMS).cast(pl.Float64).mean())
    replaced = hit.drop(SUMS).join(usual, on="stratum", how="inner")
    lost = set(hit["stratum"]) - set(usual["stratum"])
    parts = [part.with_columns(pl.col(SUMS).cast(pl.Float64)) for part in (sound, replaced)]
    return pl.concat(parts, how="diagonal").sort("slice"), lost


def with_typical(table: pl.DataFrame) -> pl.DataFrame:
    """Add ``typical_ns``: the median wall time of the other steps with as much to do.

    These are the steps of one phase of all ranks and one size of grid (within a factor of two);
    where fewer than four are, those of the phase that are as large or larger: a step that takes
    longer than larger ones do is not of usual length either. Null where these are fewer than four.

    Args:
        table: ``wall_ns``, ``joint_phase``, ``blocks``; ``slice`` tells the order.
    """
    parts = [
        part.with_columns(_typical(part).alias("typical_ns"))
        for part in table.partition_by("joint_phase")
    ]
    if not parts:
        return table.with_columns(pl.lit(None, pl.Float64).alias("typical_ns"))
    return pl.concat(parts).sort("slice")


def _typical(steps: pl.DataFrame) -> pl.Series:
    """Return ``typical_ns`` of the steps of one phase, in their order."""
    walls = steps["wall_ns"].to_numpy()
    # A step without MoE kernels is smaller than any with them.
    sizes = steps.select(_SIZE.fill_null(-1.0)).to_series().to_numpy()
    typical = np.full(walls.size, np.nan)
    for size in np.unique(sizes):
        alike = sizes == size
        peers = alike if alike.sum() >= _FEWEST_STEPS else sizes >= size
        if peers.sum() >= _FEWEST_STEPS:
            typical[alike] = _medians_of_others(walls[peers])[alike[peers]]
    return pl.Series(typical).fill_nan(None)


def _medians_of_others(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each value the median of all but it: shape (n,), n at least 2."""
    order = np.argsort(values, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(values.size)
    others = values.size - 1
    # Of the others, the two in the middle (the same one where they are odd); its own place in
    # the order is skipped.
    middles = [index + (index >= place) for index in ((others - 1) // 2, others // 2)]
    ranked = values[order].astype(np.float64)
    found: NDArray[np.float64] = (ranked[middles[0]] + ranked[middles[1]]) / 2
    return found


def _by_slice(cuts: pl.DataFrame, events: pl.DataFrame, measures: list[pl.Expr]) -> pl.DataFrame:
    """Aggregate events by the slice in which they start; what starts before all is in the first."""
    placed = events.sort("start_ns").join_asof(
        cuts.select("slice", "start_ns"), on="start_ns", strategy="backward"
    )
    return placed.with_columns(pl.col("slice").fill_null(0)).group_by("slice").agg(measures)
