"""One run as a report draws it: small rows, whatever the size of the trace they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.one_trace.timeline import (
    COLUMNS,
    Choice,
    StepKernels,
    chosen_step,
    step_kernels,
)
from nsysmoe.analysis.one_trace.whatif import MOST_BYTES, replay_bytes, whatif_of
from nsysmoe.analysis.reading.steps import needed_views, read_step_times
from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from nsysmoe.analysis.reading.run import Run
    from nsysmoe.trace import Trace

Rows = tuple[dict[str, Any], ...]

_DEVICE = ["global_pid", "device_id"]
# What a browser draws without a pause.
_MOST_STEPS = 2_000
_BINS_A_DECADE = 20


@dataclass(frozen=True)
class Portrait:
    """What the pictures of one run are drawn from; times in ns, null where unknown.

    Attributes:
        label: The arm's name.
        source: The file.
        time_use: One row a device: ``rank``, ``process``, ``device``, and what its window was
            spent on, which adds up to ``window_ns``: ``moe_ns``, ``other_compute_ns``,
            ``exposed_transfer_ns``, ``exposed_wait_ns``, ``exposed_unmatched_ns``, ``copy_ns``,
            ``idle_ns``.
        phases: One row a phase: ``phase``, ``cells``, ``mean_ns``, ``excess_ns``,
            ``critical_ns`` (mean + excess).
        durations: A histogram of MoE launches: ``phase``, ``low_ns``, ``high_ns`` (a bin's
            edges, equal on a log axis), ``launches``.
        communication: One row a rank: ``rank``, ``process``, ``device``, ``transfer_ns``,
            ``wait_ns`` of matched collectives, ``unmatched_ns`` of the others.
        layers: One row a layer and rank: ``layer``, ``rank``, ``dur_ns`` (summed), ``ratio``
            (the rank's time over the mean of ranks).
        steps: One row a step in order of time: ``step``, ``phase``, ``start_ns``, ``wall_ns``,
            ``p50`` and ``max`` (of slowest / mean over its cells), ``cause`` (why it is
            distorted, or None).
        rearrangements: One row each: ``start_ns``, ``end_ns``, ``transfers``, ``stall_ns``.
        timeline: Kernels of one step over all ranks: ``rank``, ``start_ns``, ``dur_ns``,
            ``name``, ``kind`` (``moe``, ``compute``, ``transfer``, ``wait``, ``unmatched``,
            ``copy``).
        timeline_step: Which step that is, and ``timeline_choice`` why: slowest, median, or asked.
        reduced: What was left out to keep the page small, a sentence each.
        waits: One row a phase, and one for all (``phase`` None): what ``waits_by_cause`` returned.
        removals: What the replay saves: ``kind`` (``alone`` or ``order``), ``change`` (names),
            ``added`` (the last of them), ``whatif_ns``, ``saved_ns``.
        replayed_ns: Wall time of the unchanged replay; None where nothing was replayed.
    """

    label: str
    source: str
    time_use: Rows = ()
    phases: Rows = ()
    durations: Rows = ()
    communication: Rows = ()
    layers: Rows = ()
    steps: Rows = ()
    rearrangements: Rows = ()
    timeline: Rows = ()
    timeline_step: int | None = None
    timeline_choice: str = ""
    reduced: tuple[str, ...] = ()
    waits: Rows = ()
    removals: Rows = ()
    replayed_ns: float | None = None


def portray(label: str, run: Run) -> Portrait:
    """Draw up the portrait of a run that was read with its schedule; all but the timeline.

    Raises:
        MissingDataError: The run is a summary, which has no events.
    """
    from nsysmoe.analysis.diagnosis.eplb import rearranged  # noqa: PLC0415 - polars
    from nsysmoe.metrics.kernel_time.imbalance import imbalance  # noqa: PLC0415

    if (schedule := run.schedule) is None or run.step_table is None:
        raise MissingDataError(
            f"{run.path} is a summary of kernels; a report draws events: give the .sqlite export"
        )
    ranks = _ranks(run)
    cells = run.paired_cells
    steps, reduced = _steps(run)
    return Portrait(
        label,
        str(run.path),
        time_use=_time_use(schedule.device_time, ranks),
        phases=tuple(
            imbalance(cells.drop_nulls("phase"), ["phase"])
            .select("phase", "cells", "mean_ns", "excess_ns", "critical_ns")
            .iter_rows(named=True)
        ),
        durations=_durations(schedule.durations),
        communication=_communication(schedule.collectives, ranks),
        layers=_layers(schedule.layers),
        steps=steps,
        rearrangements=tuple(rearranged(run)),
        reduced=reduced,
        waits=_waits(run),
    )


def without_replay(portrait: Portrait) -> Portrait:
    """Say what a run of several files is shown without: both take all kernels of all files."""
    note = "A run of several files is shown without a timeline and without a replay."
    return replace(portrait, reduced=(*portrait.reduced, note))


def add_whatif(portrait: Portrait, run: Run, trace: Trace) -> Portrait:
    """Add what would be saved without each bottleneck, replayed from the run's trace.

    Args:
        portrait: What ``portray`` returned.
        run: The run that it shows.
        trace: The run's trace.
    """
    kernels = int(run.kernels["launches"].sum())
    if (size := replay_bytes(kernels)) > MOST_BYTES:
        note = (
            f"{kernels:,} kernels were not replayed for this page: `nsysmoe whatif` does, in about "
            f"{size / 1e9:.1f} GB of memory."
        )
        return replace(portrait, reduced=(*portrait.reduced, note))
    found = whatif_of(trace)
    alone = [{"kind": "alone", "added": row["change"][0], **row} for row in found.alone]
    order = [{"kind": "order", **row} for row in found.order]
    return replace(portrait, removals=(*alone, *order), replayed_ns=found.replayed_ns)


def add_timeline(
    portrait: Portrait, run: Run, trace: Trace, choice: Choice, *, phase: str | None = None
) -> Portrait:
    """Add what ran in one step of the run's trace.

    Args:
        portrait: What ``portray`` returned.
        run: The run that it shows.
        trace: The run's trace.
        choice: A step's number, or which one by wall time; distorted steps are not chosen.
        phase: The phase that the median is chosen from; any where left out.

    Raises:
        MissingDataError: There is no such step.
    """
    if run.step_table is None:
        raise MissingDataError(f"{run.path} holds no steps")
    chosen = chosen_step(run.path, run.step_table, run.distorted_steps, choice, phase)
    return _with_step(portrait, choice, chosen, step_kernels(trace, chosen, _ranks(run)))


def step_portrait(trace: Trace, choice: Choice) -> Portrait:
    """Return the portrait of one step of a trace, and of nothing else.

    Args:
        trace: The trace, of one file.
        choice: As ``add_timeline`` takes it.

    Raises:
        NsysmoeError: The trace cannot be used, or has no such step.
    """
    # A step that is asked for by number may be distorted.
    with_distorted = not isinstance(choice, int)
    trace.read_ahead(
        *needed_views(with_distorted=with_distorted), ("moe_ranks", None), ("timeline", COLUMNS)
    )
    times = read_step_times(trace, with_distorted=with_distorted)
    chosen = chosen_step(trace.path, times.table, times.distorted, choice)
    ranks = trace.frame("moe_ranks").select("rank", *_DEVICE)
    kernels = step_kernels(trace, chosen, ranks)
    return _with_step(Portrait(str(trace.path), str(trace.path)), choice, chosen, kernels)


def _with_step(
    portrait: Portrait, choice: Choice, chosen: dict[str, Any], kernels: StepKernels
) -> Portrait:
    why = f"step {choice}" if isinstance(choice, int) else choice
    return replace(
        portrait,
        timeline=kernels.rows,
        timeline_step=chosen["step"],
        timeline_choice=f"{why}, {chosen['phase']}",
        reduced=portrait.reduced + (() if kernels.reduced is None else (kernels.reduced,)),
    )


def most_frequent_phase(runs: Sequence[Run]) -> str | None:
    """Return the phase that all runs have and that most steps are in; None where there is none."""
    counts = [
        {} if run.step_table is None else dict(run.step_table["phase"].value_counts().iter_rows())
        for run in runs
    ]
    shared = set.intersection(*map(set, counts)) - {"idle", "dummy", "unattributed"}
    return max(shared, key=lambda phase: sum(found[phase] for found in counts), default=None)


def _waits(run: Run) -> Rows:
    from nsysmoe.metrics.kernel_time.waits import waits_by_cause  # noqa: PLC0415 - polars

    assert run.schedule is not None  # noqa: S101 - portray asks
    causes, across = run.schedule.waits, run.explained_across
    if causes.is_empty():
        return ()
    whole = {"phase": None, **waits_by_cause(causes, (), across).row(0, named=True)}
    return (whole, *waits_by_cause(causes, ["phase"], across).iter_rows(named=True))


def _ranks(run: Run) -> pl.DataFrame:
    """Return the number of each rank that ran MoE kernels, by process and device."""
    assert run.schedule is not None  # noqa: S101 - portray asks
    return run.schedule.launches.select("rank", *_DEVICE).unique().sort("rank")


def _time_use(device_time: pl.DataFrame, ranks: pl.DataFrame) -> Rows:
    import polars as pl  # noqa: PLC0415

    parts = ("moe_ns", "exposed_transfer_ns", "exposed_wait_ns", "exposed_unmatched_ns", "idle_ns")
    frame = (
        device_time.group_by(*_DEVICE, "process_id")
        .agg(pl.col(*parts, "compute_ns", "exposed_copy_ns", "window_ns").sum())
        .join(ranks, on=_DEVICE, how="left", nulls_equal=True)
        .with_columns((pl.col("compute_ns") - pl.col("moe_ns")).alias("other_compute_ns"))
        .rename({"process_id": "process", "device_id": "device", "exposed_copy_ns": "copy_ns"})
        .sort("rank", "device", nulls_last=True)
    )
    columns = ("rank", "process", "device", *parts, "other_compute_ns", "copy_ns", "window_ns")
    return tuple(frame.select(columns).iter_rows(named=True))


def _durations(durations: pl.DataFrame) -> Rows:
    """Count launches by phase in bins that are equal on a log axis."""
    import polars as pl  # noqa: PLC0415

    number = (pl.col("dur_ns").clip(1).log10() * _BINS_A_DECADE).floor()
    frame = (
        durations.group_by(
            pl.col("phase").fill_null("unattributed"), number.cast(pl.Int64).alias("bin")
        )
        .agg(pl.col("launches").sum())
        .sort("phase", "bin")
        .select(
            "phase",
            (10.0 ** (pl.col("bin") / _BINS_A_DECADE)).alias("low_ns"),
            (10.0 ** ((pl.col("bin") + 1) / _BINS_A_DECADE)).alias("high_ns"),
            "launches",
        )
    )
    return tuple(frame.iter_rows(named=True))


def _communication(collectives: pl.DataFrame, ranks: pl.DataFrame) -> Rows:
    import polars as pl  # noqa: PLC0415

    frame = (
        collectives.group_by(*_DEVICE, "process_id")
        .agg(
            pl.col("transfer_ns", "wait_ns").sum(),
            pl.col("dur_ns").filter(~pl.col("is_matched")).sum().alias("unmatched_ns"),
        )
        .join(ranks, on=_DEVICE, how="left", nulls_equal=True)
        .rename({"process_id": "process", "device_id": "device"})
        .sort("rank", "device", nulls_last=True)
    )
    columns = ("rank", "process", "device", "transfer_ns", "wait_ns", "unmatched_ns")
    return tuple(frame.select(columns).iter_rows(named=True))


def _layers(layers: pl.DataFrame) -> Rows:
    import polars as pl  # noqa: PLC0415

    frame = (
        layers.drop_nulls("layer")
        .with_columns((pl.col("dur_ns") / pl.col("dur_ns").mean().over("layer")).alias("ratio"))
        .sort("layer", "rank")
    )
    return tuple(frame.iter_rows(named=True))


def _steps(run: Run) -> tuple[Rows, tuple[str, ...]]:
    """Return the steps with balance and causes, every n-th where there are too many."""
    import polars as pl  # noqa: PLC0415

    table, distorted = run.step_table, run.distorted_steps
    assert table is not None  # noqa: S101 - portray asks
    assert distorted is not None  # noqa: S101
    ratio = pl.col("slowest_ns") / pl.col("mean_ns")
    balance = (
        run.paired_cells.filter(pl.col("mean_ns") > 0)
        .sort("start_ns")
        .join_asof(table.select("slice", "start_ns"), on="start_ns", strategy="backward")
        .group_by("slice")
        .agg(ratio.median().alias("p50"), ratio.max().alias("max"))
    )
    frame = (
        table.join(balance, on="slice", how="left", maintain_order="left")
        .join(distorted.select("slice", "cause"), on="slice", how="left", maintain_order="left")
        .select("slice", "step", "phase", "start_ns", "wall_ns", "p50", "max", "cause")
    )
    every = -(-frame.height // _MOST_STEPS)
    if every > 1:
        kept = (pl.col("slice") % every == 0) | pl.col("cause").is_not_null()
        note = (
            f"Balance over time shows every {every}th of {frame.height:,} steps, and all that are "
            "distorted."
        )
        return tuple(frame.filter(kept).drop("slice").iter_rows(named=True)), (note,)
    return tuple(frame.drop("slice").iter_rows(named=True)), ()
