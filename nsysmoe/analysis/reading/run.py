"""An run of an experiment, read from whatever the user has: a trace, a report, or a summary."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.arrivals import (
    MET,
    TURNS,
    arrivals,
    known_clocks,
    transfers_of_files,
    waits_of_files,
)
from nsysmoe.analysis.reading.attribution import (
    attribution,
    read_cells,
    read_launches,
    trusted_steps,
)
from nsysmoe.analysis.reading.gathering import RunFiles
from nsysmoe.analysis.reading.steps import STALLS, read_stalls
from nsysmoe.classes import MOE_GEMM, ClassMap, default_class_map
from nsysmoe.errors import MissingDataError
from nsysmoe.export.files import identify, trace_of
from nsysmoe.export.kernel_csv import KernelRow, read_kernel_csv
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from nsysmoe.metrics.kernel_time.table1 import Value
    from nsysmoe.trace import Trace

_CELLS = ("ranks", "slowest_ns", "mean_ns", "slowest_rank")
# Of cells that are many, what is asked of a run.
_KEPT = ("ranks", "slowest_ns", "mean_ns", "slowest_rank", "start_ns", "phase")
_RANKED = ("rank", "global_pid", "device_id", "phase")
_STEPPED = ("kernel_id", "phase")
_MET = (*MET, "global_pid", "device_id")
_ACROSS = (
    ("matched_collectives", _MET),
    ("collective_steps", _STEPPED),
    ("wait_ledger", ("kernel_id",)),
)
_GPUS = ("global_pid", "device_id", "gpu_id")
_SCHEDULE = (
    ("moe_phases", None),
    ("moe_phase_steps", None),
    ("moe_phase_durations", None),
    ("moe_durations", None),
    ("moe_grids", None),
    ("moe_slices", None),
    ("moe_cells", None),
    ("moe_cell_places", None),
    ("collective_phases", None),
    ("collective_slices", None),
    *TURNS,
    ("clocks", None),
    ("device_time", None),
    ("slices", None),
    ("slice_work", None),
    ("steps", None),
    ("rearrangements", None),
    ("code_loads", None),
    *STALLS,
    ("wait_causes", None),
    ("idle_causes", None),
)


@dataclass(frozen=True)
class Schedule:
    """When things happened in a run, and in which step; all times in ns.

    Attributes:
        launches: MoE kernels by ``rank`` and ``phase`` (of all ranks that meet, as that of
            ``cells``; told by duration where nothing else tells it): ``global_pid``,
            ``device_id``, ``launches``, ``dur_ns``.
        durations: How many MoE kernels of each ``phase`` took how long: ``dur_ns``, ``launches``.
        ranked: What ``metrics.kernel_time.durations.counted_statistics`` says of each ``rank``.
        apart: Rows of ``device_time`` of ranks in another phase than those that they meet, with
            ``joint_phase`` (``metrics.kernel_time.steps.phases_apart``).
        worked: View ``moe_slices``.
        layers: MoE time by ``layer`` and ``rank``: ``dur_ns``; null where layers are not known.
        work: What work was done (``metrics.kernel_time.work.work_done``).
        cells: Of views ``moe_cells`` and ``moe_cell_places`` together: ``ranks``, ``slowest_ns``,
            ``mean_ns``, ``slowest_rank``, ``start_ns`` and ``phase``, in the order of cells.
        collectives: View ``collective_phases``.
        sliced: View ``collective_slices``.
        arrivals: Who arrives last (``arrivals.arrivals``).
        device_time: View ``device_time``.
        slices: View ``slices`` with what ``metrics.kernel_time.steps.with_work`` adds.
        steps: View ``steps``, no rows where the trace has no ranges.
        rearrangements: View ``rearrangements``.
        code_loads: View ``code_loads``.
        stalls: What else stretches steps (``metrics.stalls.distorting_events``).
        clocks: View ``clocks``.
        waits: View ``wait_causes``; ``unattributed`` where no phase is known.
        gaps: View ``idle_causes``.
        attribution: How phases are known (``attribution.attribution``).
    """

    launches: pl.DataFrame
    durations: pl.DataFrame
    ranked: pl.DataFrame
    apart: pl.DataFrame
    worked: pl.DataFrame
    layers: pl.DataFrame
    work: dict[str, Any]
    cells: pl.DataFrame
    collectives: pl.DataFrame
    sliced: pl.DataFrame
    arrivals: dict[str, Any] | None
    device_time: pl.DataFrame
    slices: pl.DataFrame
    steps: pl.DataFrame
    rearrangements: pl.DataFrame
    code_loads: pl.DataFrame
    stalls: dict[str, pl.DataFrame]
    clocks: pl.DataFrame
    waits: pl.DataFrame
    gaps: pl.DataFrame
    attribution: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What one side of a comparison measured.

    Attributes:
        path: The file.
        kernels: One row a kernel name: ``name``, ``function``, ``class``, ``backend``, ``role``,
            ``reduction``, ``data_type``, ``launches``, ``total_ns``; from a trace also
            ``name_id``, from a summary also its other statistics.
        moe_totals: View ``moe_totals``; None from a summary, which has no events.
        moe_durations: View ``moe_durations``; None from a summary, and with a schedule, which has
            durations by phase.
        ranks: View ``moe_ranks``; None from a summary.
        collectives: Communication kernels, summed by name and GPU: ``launches``, ``dur_ns``,
            ``wait_ns`` and ``transfer_ns`` beside ``name_id``, ``global_pid``, ``process_id``,
            ``device_id``, ``is_matched`` (view ``collective_totals``, or by phase as well).
        cells: One row a cell (``ranks``, ``slowest_ns``, ``mean_ns``); no rows where ranks
            launched different numbers of MoE kernels; None from a summary.
        gpus: How many GPUs ran MoE kernels; None where the input does not tell.
        graph_launches: CUDA graphs recorded as a whole, and their time in ns.
        schedule: When it all happened; None from a summary, or where it was not asked for.
        findings: What was odd about the input.
        files: The files, where there are several.
        hosts: As ``Trace`` has it.
        across: What clocks of files leave unsure of waits (``arrivals.waits_of_files``), with
            ``global_pid``, ``device_id``, ``phase``, and whether causes are told; None for
            one file.
        transfers: What they leave unsure of each transfer (``arrivals.transfers_of_files``), with
            ``global_pid``, ``device_id`` and ``phase``; None for one file.
    """

    path: Path
    kernels: pl.DataFrame
    moe_totals: pl.DataFrame | None = None
    moe_durations: pl.DataFrame | None = None
    ranks: pl.DataFrame | None = None
    collectives: pl.DataFrame | None = None
    cells: pl.DataFrame | None = None
    gpus: int | None = None
    graph_launches: tuple[int, int] = (0, 0)
    schedule: Schedule | None = None
    findings: list[Finding] = field(default_factory=list)
    files: tuple[Path, ...] = ()
    hosts: Mapping[int, str] = field(default_factory=dict)
    across: pl.DataFrame | None = None
    transfers: pl.DataFrame | None = None

    @functools.cached_property
    def durations(self) -> pl.DataFrame:
        """Statistics of all launches of MoE kernels, one row."""
        from nsysmoe.metrics.kernel_time.durations import (  # noqa: PLC0415 - polars loads beside the trace
            counted_statistics,
            pooled_statistics,
        )

        if self.schedule is not None:
            return counted_statistics(self.schedule.durations)
        if self.moe_durations is not None:
            return counted_statistics(self.moe_durations)
        return pooled_statistics(self.moe_kernels)

    @functools.cached_property
    def communication(self) -> pl.DataFrame:
        """Totals of communication, one row."""
        from nsysmoe.metrics.kernel_time.communication import communication_totals  # noqa: PLC0415

        return communication_totals(self.kernels)

    @property
    def moe_kernels(self) -> pl.DataFrame:
        """The rows of ``kernels`` that are MoE kernels, the largest first."""
        return self.kernels.filter(self.kernels["class"] == MOE_GEMM).sort(
            "total_ns", descending=True
        )

    @functools.cached_property
    def paired_cells(self) -> pl.DataFrame:
        """The cells over two ranks or more; no rows where there are none, or from a summary."""
        import polars as pl  # noqa: PLC0415

        if self.cells is None:
            schema = {"slowest_ns": pl.Int64, "mean_ns": pl.Float64}
            return pl.DataFrame(schema=schema)
        return _paired(self.cells)

    @functools.cached_property
    def values(self) -> dict[str, Value]:
        """Every metric by key; None where the input does not tell."""
        from nsysmoe.metrics.kernel_time.schedule import SCHEDULE, schedule_values  # noqa: PLC0415 - polars
        from nsysmoe.metrics.kernel_time.table1 import metric_values  # noqa: PLC0415

        found = metric_values(self.durations, self.communication)
        if self.moe_totals is None or self.collectives is None:
            return {**found, **dict.fromkeys((metric.key for metric in SCHEDULE), None)}
        device_time = None if self.schedule is None else self.schedule.device_time
        return {
            **found,
            **schedule_values(self.moe_totals, self.paired_cells, self.collectives, device_time),
        }

    def clock_uncertainty(
        self, condition: pl.Expr | None = None, devices: int | None = None
    ) -> dict[str, float]:
        """Return how far metrics may be off by clocks of files, ns by key; empty on one clock.

        Args:
            condition: What collectives of a part meet, by ``phase`` or by ``global_pid`` and
                ``device_id``; those of the run where left out.
            devices: How many devices the part has; those of the run where left out.
        """
        from nsysmoe.metrics.kernel_time.clock_error import uncertain_metrics  # noqa: PLC0415 - polars

        if self.across is None or self.transfers is None:
            return {}
        across, transfers = self.across, self.transfers
        if condition is not None:
            across, transfers = across.filter(condition), transfers.filter(condition)
        return uncertain_metrics(across, transfers, devices or self.gpus or 1)

    @property
    def explained_across(self) -> pl.DataFrame | None:
        """Return ``across`` of the waits that view ``wait_ledger`` explains."""
        return None if self.across is None else self.across.filter("is_explained")

    @property
    def work(self) -> dict[str, Any] | None:
        """What work was done (``Schedule.work``); None without a schedule."""
        return None if self.schedule is None else self.schedule.work

    @functools.cached_property
    def step_table(self) -> pl.DataFrame | None:
        """What each step holds (``metrics.steps.step_table``); None without a schedule."""
        import polars as pl  # noqa: PLC0415

        from nsysmoe.metrics.kernel_time.steps import step_table  # noqa: PLC0415

        if (schedule := self.schedule) is None:
            return None
        is_nccl = self.kernels.select(
            "name_id", (pl.col("backend") == "nccl").fill_null(value=False).alias("is_nccl")
        )
        collectives = schedule.sliced.join(is_nccl, on="name_id").with_columns(
            is_allreduce=pl.col("is_nccl") & (pl.col("collective") == "all_reduce")
        )
        return step_table(
            schedule.slices,
            schedule.worked,
            self.paired_cells,
            collectives,
            schedule.device_time,
        )

    @functools.cached_property
    def joint_device_time(self) -> pl.DataFrame | None:
        """View ``device_time`` in phases of all ranks, as cells; None without a schedule."""
        from nsysmoe.metrics.kernel_time.steps import in_joint_phases  # noqa: PLC0415 - polars

        if (schedule := self.schedule) is None:
            return None
        if schedule.apart.is_empty():
            return schedule.device_time
        return in_joint_phases(schedule.device_time, schedule.slices, "window_ns")

    @functools.cached_property
    def time_causes(self) -> pl.DataFrame | None:
        """Where each GPU's time went (``metrics.bounds.time_causes``); None without a schedule."""
        from nsysmoe.metrics.kernel_time.bounds import time_causes  # noqa: PLC0415 - polars

        if (schedule := self.schedule) is None:
            return None
        return time_causes(schedule.device_time, schedule.gaps, schedule.waits)

    @functools.cached_property
    def distorted_steps(self) -> pl.DataFrame | None:
        """Steps that something else than the workload stretched; None without a schedule."""
        from nsysmoe.metrics.kernel_time.steps import distorted  # noqa: PLC0415

        if self.schedule is None or self.step_table is None:
            return None
        # A rearrangement is what EPLB costs: its steps stay as they are.
        causes = (("code_load", self.schedule.code_loads), *self.schedule.stalls.items())
        return distorted(self.step_table, causes, self.schedule.rearrangements)

    @property
    def launches(self) -> int:
        """Launches of MoE kernels."""
        return int(self.moe_kernels["launches"].sum())


class OpenTraces(ExitStack):
    """Traces of runs that stay open after they were read, until the block ends: to ask more."""

    def __init__(self) -> None:
        super().__init__()
        self._traces: list[tuple[Run, Trace]] = []

    def keep(self, run: Run, trace: Trace, opened: ExitStack) -> None:
        """Close what opened a run's trace with this block; tables on disk give memory back."""
        trace.free_memory()
        self.callback(opened.close)
        self._traces.append((run, trace))

    def trace_of(self, run: Run) -> Trace | None:
        """Return the trace of a run; None where it was not kept open."""
        return next((trace for known, trace in self._traces if known is run), None)


def read_run(
    path: str | Path | RunFiles,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    with_schedule: bool = False,
    left_open: OpenTraces | None = None,
    **limits: int | None,
) -> Run:
    """Read one run.

    Args:
        path: A ``.sqlite`` export, a report, or a kernel summary as CSV; or the files of a run.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.
        with_schedule: Whether to read steps, phases and what GPUs did with their time as well:
            API calls and ranges beside the kernels.
        left_open: Where the trace stays open; it is closed where left out.
        limits: ``threads`` and ``memory_bytes``, as ``open_trace`` takes them.

    Raises:
        NsysmoeError: The input cannot be used; the message says why.
    """
    files = path if isinstance(path, RunFiles) else RunFiles(trace_of(path))
    class_map = class_map or default_class_map()
    if not files.members and identify(files.path) == "csv":
        return _run_of_csv(files.path, class_map)
    with ExitStack() as opened:
        trace = opened.enter_context(files.opened(class_map=class_map, nsys=nsys, **limits))
        run = run_of_trace(trace, with_schedule=with_schedule)
        if left_open is not None:
            left_open.keep(run, trace, opened.pop_all())
    return run


def run_of_trace(trace: Trace, *, with_schedule: bool = False) -> Run:
    """Read from an opened trace what a comparison needs of it."""
    wanted: tuple[tuple[str, tuple[str, ...] | None], ...] = (
        ("moe_totals", None),
        ("moe_ranks", None),
        ("moe_cells", _CELLS),
        *(() if with_schedule else (("moe_durations", None), ("collective_totals", None))),
        *(_ACROSS if trace.members else ()),
        ("kernel_classes", None),
        ("graph_launches", ("dur_ns",)),
        ("devices", _GPUS),
    )
    trace.read_ahead(*wanted, *(_SCHEDULE if with_schedule else ()))
    moe_totals, ranks = trace.frame("moe_totals"), trace.frame("moe_ranks")
    launches = trace.frame("graph_launches", ("dur_ns",))
    kernels, gpus = trace.frame("kernel_classes"), _count_gpus(trace, ranks)
    # What has a row for each cell comes last: nothing else is read beside it.
    schedule = _read_schedule(trace) if with_schedule else None
    return Run(
        path=trace.path,
        kernels=kernels,
        moe_totals=moe_totals,
        moe_durations=None if schedule else trace.frame("moe_durations"),
        ranks=ranks,
        collectives=schedule.collectives if schedule else trace.frame("collective_totals"),
        cells=schedule.cells if schedule else trace.frame("moe_cells", _CELLS).sort(_CELLS),
        gpus=gpus,
        graph_launches=(launches.height, int(launches["dur_ns"].sum())),
        schedule=schedule,
        findings=trace.findings(),
        files=tuple(Path(member.path) for member in trace.members),
        hosts=trace.hosts,
        **(_read_across(trace) if trace.members else {}),
    )


def _read_across(trace: Trace) -> dict[str, pl.DataFrame]:
    """Read what clocks of files leave unsure, and of which part of the run; nothing on one clock.

    Returns:
        ``across`` and ``transfers`` of a run.
    """
    met = trace.frame("matched_collectives", _MET)
    waits, transfers = waits_of_files(trace, met), transfers_of_files(trace, met)
    if waits is None or transfers is None:
        return {}
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.waits import with_phase  # noqa: PLC0415 - polars

    places = met.select("kernel_id", "global_pid", "device_id")
    steps = trace.frame("collective_steps", _STEPPED)
    explained = trace.frame("wait_ledger", ("kernel_id",)).with_columns(is_explained=True)
    waits, transfers = (
        with_phase(part.join(places, on="kernel_id"), steps) for part in (waits, transfers)
    )
    return {
        "across": waits.join(explained, on="kernel_id", how="left").with_columns(
            pl.col("is_explained").fill_null(value=False)
        ),
        "transfers": transfers,
    }


def _read_schedule(trace: Trace) -> Schedule:
    from nsysmoe.metrics.kernel_time.steps import with_work  # noqa: PLC0415 - polars
    from nsysmoe.metrics.kernel_time.waits import with_known_phase  # noqa: PLC0415

    collectives, device_time = trace.frame("collective_phases"), trace.frame("device_time")
    slices = with_work(trace.frame("slices").sort("slice"), trace.frame("slice_work"))
    clocks = known_clocks(trace)
    return Schedule(
        collectives=collectives,
        sliced=trace.frame("collective_slices"),
        arrivals=arrivals(trace, clocks),
        device_time=device_time,
        slices=slices,
        rearrangements=trace.frame("rearrangements"),
        code_loads=trace.frame("code_loads"),
        stalls=read_stalls(trace),
        clocks=clocks,
        waits=with_known_phase(trace.frame("wait_causes")),
        gaps=trace.frame("idle_causes"),
        # The largest comes last, and most of it goes before another run is read.
        **_read_work(trace, slices, collectives, device_time),
    )


def _read_work(
    trace: Trace, slices: pl.DataFrame, collectives: pl.DataFrame, device_time: pl.DataFrame
) -> dict[str, Any]:
    """Read MoE launches and cells: the fields of ``Schedule`` that stand on them."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.phases import engines, phase_times  # noqa: PLC0415
    from nsysmoe.metrics.kernel_time.steps import phases_apart  # noqa: PLC0415
    from nsysmoe.metrics.kernel_time.work import work_done  # noqa: PLC0415

    # All tables are made by now: what DuckDB holds of them makes room for what has many rows.
    trace.free_memory()
    launches = read_launches(trace)
    apart = phases_apart(device_time, slices, "window_ns")
    # Ranks that meet nowhere are in phases of their own.
    is_apart = not apart.is_empty() and bool(collectives["is_matched"].any())
    # Before cells, which have more rows to keep.
    durations = _read_durations(trace, launches, is_apart=is_apart)
    cells = read_cells(trace).select(_KEPT)
    steps = trusted_steps(trace.frame("steps"), launches)
    times = phase_times(
        steps, launches, trace.frame("moe_phase_steps"), _paired(cells), engines(collectives)
    )
    return {
        **durations,
        "apart": apart if is_apart else apart.clear(),
        "worked": trace.frame("moe_slices"),
        "layers": launches.group_by("layer", "rank").agg(pl.col("dur_ns").sum()),
        "work": work_done(times, trace.frame("moe_grids")),
        # A copy: a column as it came holds the whole answer in memory, and all its other columns.
        "cells": cells.rechunk(),
        "steps": steps,
        "attribution": attribution(launches),
    }


def _read_durations(trace: Trace, launches: pl.DataFrame, *, is_apart: bool) -> dict[str, Any]:
    """Read how long launches took, in the phases of ranks or, where these differ, of all."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.durations import counted_statistics  # noqa: PLC0415

    own = launches.group_by(_RANKED).agg(pl.col("launches", "dur_ns").sum())
    return {
        "launches": trace.frame("moe_joint_phases") if is_apart else own,
        "durations": trace.frame("moe_joint_durations" if is_apart else "moe_phase_durations"),
        "ranked": counted_statistics(trace.frame("moe_durations"), ["rank"]),
    }


def _paired(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells that ranks share: one alone has nobody to wait for."""
    is_paired = cells["ranks"] > 1
    # As a rule all are: filtered, they would be there twice.
    return cells if is_paired.all() else cells.filter(is_paired)


def _count_gpus(trace: Trace, ranks: pl.DataFrame) -> int:
    """Count the GPUs that ran MoE kernels: those that the export maps ordinals to.

    Without a map (before schema 3.17.2) each process and ordinal counts as one: a rank of vLLM's
    is one process on one GPU, and helpers launch no experts.
    """
    gpu_ids = {(pid, device): gpu for pid, device, gpu in trace.frame("devices", _GPUS).iter_rows()}
    devices = ranks.select("global_pid", "device_id").iter_rows()
    return len(
        {
            (vm, gpu, None)
            if (gpu := gpu_ids.get((pid, device))) is not None
            else (vm, pid, device)
            for pid, device in devices
            for vm in [None if pid is None else pid >> 48]
        }
    )


def require_moe_kernels(run: Run) -> None:
    """Refuse a run that a Table 1 would show as zeros.

    Raises:
        MissingDataError: No kernel of the run is an MoE kernel.
    """
    if run.launches:
        return
    hidden, _ = run.graph_launches
    cause = (
        f"{hidden:,} CUDA graph launches hide theirs: capture again with --cuda-graph-trace=node"
        if hidden
        else "is this the right file? `nsysmoe kernels` lists what ran, --classes FILE teaches "
        "nsysmoe other MoE kernels"
    )
    raise MissingDataError(f"{run.path} holds no MoE kernel (class {MOE_GEMM}); {cause}")


def _run_of_csv(path: Path, class_map: ClassMap) -> Run:
    import polars as pl  # noqa: PLC0415

    rows = read_kernel_csv(path)
    kernels = pl.DataFrame(
        [_csv_row(row, class_map) for row in rows],
        schema_overrides={
            **dict.fromkeys(("launches", "total_ns", "min_ns", "max_ns"), pl.Int64),
            **dict.fromkeys(("mean_ns", "median_ns", "stddev_ns"), pl.Float64),
            **dict.fromkeys(("backend", "role", "reduction", "data_type"), pl.String),
        },
        infer_schema_length=None,
    )
    return Run(path, kernels, findings=_rounded_input(path, rows))


def _csv_row(row: KernelRow, class_map: ClassMap) -> dict[str, object]:
    found = class_map.classify(row.name)
    return {
        "name": row.name,
        "function": found.function,
        "class": found.name,
        "backend": found.backend,
        "role": found.role,
        "reduction": found.reduction,
        "data_type": found.data_type,
        "launches": row.launches,
        "total_ns": row.total_ns,
        # A rounded total says less about the mean than the mean that stands beside it.
        "mean_ns": row.mean_ns if row.is_rounded and row.mean_ns else row.total_ns / row.launches,
        "median_ns": row.median_ns,
        "min_ns": row.min_ns,
        "max_ns": row.max_ns,
        "stddev_ns": row.stddev_ns,
    }


def _rounded_input(path: Path, rows: list[KernelRow]) -> list[Finding]:
    if not any(row.is_rounded for row in rows):
        return []
    return [
        Finding(
            "rounded_input",
            "info",
            f"{path} was rounded by Nsight to three decimals of each value's unit (a total in s is "
            "exact to 0.5 ms); the .sqlite export is exact to the ns",
            {"source": str(path)},
        )
    ]
