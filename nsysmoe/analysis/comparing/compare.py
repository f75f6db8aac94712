"""Two arms in, a comparison out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.comparing.comparison import Breakdown, Comparison, Side
from nsysmoe.analysis.comparing.latency import latency_rows
from nsysmoe.analysis.reading.hosts import host_of
from nsysmoe.analysis.reading.kept import kept_answer
from nsysmoe.classes import COLLECTIVE, MOE_GEMM
from nsysmoe.export.files import runs_of
from nsysmoe.metrics.kernel_time.table1 import BASELINE_LABEL, CANDIDATE_LABEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.analysis.reading.run import Run
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source

_GROUPS = {MOE_GEMM: "moe_kernel", COLLECTIVE: "communication"}


def compare(  # noqa: PLR0913 - what one comparison is made of, by keyword
    baseline: Source,
    candidate: Source,
    *,
    baseline_label: str = BASELINE_LABEL,
    candidate_label: str = CANDIDATE_LABEL,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    quick: bool = False,
    gathering: Gathering | None = None,
) -> Comparison:
    """Compare two arms of one workload; they load at once, a thread each.

    Args:
        baseline: A ``.sqlite`` export, a report, or a kernel summary as CSV; a folder or a glob
            pattern of several, or a sequence of them: ranks of one run where the data say so,
            else a run each.
        candidate: The same for the other arm.
        baseline_label: How to call the first arm.
        candidate_label: How to call the second.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports reports; the one on PATH where left out.
        quick: Whether to read kernels alone, and leave steps, phases and intervals over steps out.
        gathering: How several files are read, and where.

    Raises:
        NsysmoeError: An input cannot be used, or holds no MoE kernel.
    """
    labels = (baseline_label, candidate_label)
    files = (runs_of(baseline), runs_of(candidate))
    kept = kept_answer(
        "comparison",
        [path for arm in files for path in arm],
        *labels,
        *(_named(source) for source in (baseline, candidate)),
        len(files[0]),
        quick,
        *(None, None) if gathering is None else (gathering.reading, gathering.engine),
        class_map=class_map,
        nsys=nsys,
    )
    if kept is not None and (values := kept.get()) is not None:
        found = Comparison.from_dict(values)
        # Records of runs lie beside the traces, and may have come since.
        return replace(found, latency=latency_rows(found.baseline.sources, found.candidate.sources))
    from nsysmoe.analysis.reading.arm import read_arms  # noqa: PLC0415 - DuckDB, and polars

    arms = read_arms(
        labels,
        (baseline, candidate),
        is_quick=quick,
        class_map=class_map,
        nsys=nsys,
        gathering=gathering,
    )
    comparison = compare_arms(*arms)
    # A file that came to a folder meanwhile was read, and is not what the answer is kept by.
    if kept is not None and files == (runs_of(baseline), runs_of(candidate)):
        kept.put(comparison.to_dict())
    return comparison


def _named(source: Source) -> str | list[str]:
    """Return what the user named: answers call a run of several files by it, unless by a list."""
    return str(source) if isinstance(source, str | Path) else [str(one) for one in source]


def compare_arms(baseline: Arm, candidate: Arm) -> Comparison:
    """Compare two arms that were read."""
    # polars loads beside the arms.
    from nsysmoe.analysis.comparing import judgement  # noqa: PLC0415
    from nsysmoe.analysis.comparing.verdict import totals_mislead, verdict_of  # noqa: PLC0415
    from nsysmoe.analysis.diagnosis import diagnose, not_comparable  # noqa: PLC0415

    is_comparable = not_comparable(baseline, candidate) is None
    metrics = judgement.judge(baseline, candidate, is_comparable=is_comparable)
    undistorted = judgement.judge_undistorted(baseline, candidate) if is_comparable else ()
    parts = judgement.judge_parts(baseline, candidate)
    return Comparison(
        _side(baseline),
        _side(candidate),
        metrics,
        tuple(diagnose(baseline, candidate, totals_mislead(metrics))),
        verdict_of(baseline, candidate, metrics, undistorted, parts),
        parts,
        undistorted,
        tuple(_distorted_steps(baseline) + _distorted_steps(candidate)),
        tuple(_causes(baseline, candidate)),
        latency_rows(baseline.sources, candidate.sources),
    )


def _causes(baseline: Arm, candidate: Arm) -> list[dict[str, Any]]:
    """Return where the wall time of both went, means over runs, and what its change is made of."""
    from nsysmoe.metrics.kernel_time.bounds import longest_window  # noqa: PLC0415 - polars

    arms = [list(map(longest_window, arm.time_causes)) for arm in (baseline, candidate)]
    if not all(arms):
        return []
    unsure = [_exposed_uncertainty(arm) for arm in (baseline, candidate)]
    rows = []
    for cause in arms[0][0]:
        before, after = ([run[cause] for run in runs] for runs in arms)
        means = sum(before) / len(before), sum(after) / len(after)
        rows.append(
            {
                "cause": cause,
                "baseline_ns": means[0],
                "candidate_ns": means[1],
                "change_ns": means[1] - means[0],
                "baseline_values": before,
                "candidate_values": after,
                **_unsure(cause, unsure),
            }
        )
    return rows


def _exposed_uncertainty(arm: Arm) -> float | None:
    """Return how far exposed waiting of the GPU with the longest window may be off by clocks.

    The mean over runs, as that of metrics; None where each run has one clock.
    """
    from nsysmoe.metrics.kernel_time.bounds import is_longest  # noqa: PLC0415 - polars

    told = [
        run.clock_uncertainty(is_longest(run.time_causes), devices=1)["exposed_wait_ns"]
        for run in arm.runs
        if run.across is not None and run.time_causes is not None and run.time_causes.height
    ]
    return sum(told) / len(arm.runs) if told else None


def _unsure(cause: str, arms: Sequence[float | None]) -> dict[str, float | None]:
    """Return what clocks leave unsure of a cause's change; nothing where each arm has one clock."""
    from nsysmoe.metrics.kernel_time.causes import ACROSS_CLOCKS  # noqa: PLC0415 - with its package

    known = [ns for ns in arms if ns is not None]
    if not known:
        return {}
    return {"uncertainty_ns": sum(known) if cause in ACROSS_CLOCKS else None}


def _distorted_steps(arm: Arm) -> list[dict[str, Any]]:
    return [
        {"label": arm.label, "source": str(run.path), **row}
        for run in arm.runs
        if run.distorted_steps is not None
        for row in run.distorted_steps.drop("slice").iter_rows(named=True)
    ]


def _side(arm: Arm) -> Side:
    return Side(arm.label, arm.sources, tuple(_breakdown(arm.representative)))


def _breakdown(run: Run) -> list[Breakdown]:
    import polars as pl  # noqa: PLC0415

    counted = run.kernels.filter(pl.col("class").is_in(list(_GROUPS)))
    if run.moe_totals is not None and run.collectives is not None:
        keys = ["name_id", "global_pid", "process_id", "device_id"]
        total = pl.col("dur_ns").sum().alias("total_ns")
        per_device = pl.concat(
            [
                part.group_by(keys).agg(pl.col("launches").sum(), total)
                for part in (run.moe_totals, run.collectives)
            ]
        )
        counted = counted.drop("launches", "total_ns").join(per_device, on="name_id")
    else:
        unknown = pl.lit(None, pl.Int64)
        counted = counted.with_columns(global_pid=unknown, process_id=unknown, device_id=unknown)
    columns = ["class", "function", "global_pid", "process_id", "device_id"]
    rows = counted.group_by(columns).agg(pl.col("launches", "total_ns").sum())
    rows = rows.sort("class", "total_ns", *columns[1:], descending=[True, True, *[False] * 4])
    return [
        Breakdown(
            _GROUPS[kind], function, process, device, launches, total, host_of(pid, run.hosts)
        )
        for pid, kind, function, process, device, launches, total in rows.select(
            "global_pid",
            *(name for name in columns if name != "global_pid"),
            "launches",
            "total_ns",
        ).iter_rows()
    ]
