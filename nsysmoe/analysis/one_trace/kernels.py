"""Every kernel of a trace: launches and durations by name, class or device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.analysis.reading.run import read_run
from nsysmoe.export.files import identify, trace_of
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

By = Literal["name", "class", "device"]
_KEYS: dict[By, tuple[str, ...]] = {
    "name": ("name", "class"),
    "class": ("class",),
    "device": ("process", "device"),
}
_NAMES = ("name_id", "name", "class")
# A pid is unique within a VM only: what is shown is less than what tells processes apart.
_GROUPS: dict[By, tuple[str, ...]] = {
    "name": ("name_id",),
    "class": ("class",),
    "device": ("global_pid", "process", "device"),
}


@dataclass(frozen=True)
class KernelTable:
    """Kernel statistics; a row holds its keys, then times in ns, null where unknown."""

    source: str
    by: By
    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def kernel_table(
    path: str | Path,
    by: By = "name",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> KernelTable:
    """Return the statistics of every kernel, the largest total first.

    Args:
        path: A ``.sqlite`` export, a report, or a kernel summary as CSV (not by device).
        by: What one row is: a kernel name, a class, or a process and device.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    from nsysmoe.metrics.kernel_time.durations import SUMMARY  # noqa: PLC0415 - imports polars

    path = trace_of(path)
    if identify(path) == "csv":
        frame, findings = _of_summary(path, by, class_map)
    else:
        frame, findings = _of_trace(path, by, class_map, nsys)
    rows = frame.select(*_KEYS[by], *SUMMARY).iter_rows(named=True)
    return KernelTable(str(path), by, tuple(rows), tuple(findings))


def _of_trace(
    path: Path, by: By, class_map: ClassMap | None, nsys: str | None
) -> tuple[pl.DataFrame, list[Finding]]:
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        view = "device_durations" if by == "device" else "kernel_durations"
        trace.read_ahead((view, None), ("kernel_classes", _NAMES))
        counts, names = trace.frame(view), trace.frame("kernel_classes", _NAMES)
        findings = trace.findings()

    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.durations import counted_statistics  # noqa: PLC0415

    if by == "class":
        # A text for each of millions of durations would take more memory than they do.
        classes = names.select("name_id", pl.col("class").cast(pl.Categorical))
        counts = counts.join(classes, on="name_id").drop("name_id")
    elif by == "device":
        counts = counts.rename({"process_id": "process", "device_id": "device"})
    statistics = counted_statistics(counts, _GROUPS[by])
    if by == "class":
        statistics = statistics.with_columns(pl.col("class").cast(pl.String))
    if by == "name":
        statistics = statistics.join(names, on="name_id", maintain_order="left")
    return statistics, findings


def _of_summary(
    path: Path, by: By, class_map: ClassMap | None
) -> tuple[pl.DataFrame, list[Finding]]:
    import polars as pl  # noqa: PLC0415

    from nsysmoe.errors import MissingDataError  # noqa: PLC0415
    from nsysmoe.metrics.kernel_time.durations import pooled_statistics  # noqa: PLC0415

    run = read_run(path, class_map=class_map)
    if by == "device":
        raise MissingDataError(f"{path} does not tell devices apart; give the .sqlite export")
    keys = list(_KEYS[by])
    groups = run.kernels.partition_by(keys, as_dict=True, maintain_order=True)
    pooled = [
        pooled_statistics(rows).with_columns(
            **{key: pl.lit(value) for key, value in zip(keys, group, strict=True)}
        )
        for group, rows in groups.items()
    ]
    return pl.concat(pooled).sort("total_ns", descending=True), run.findings
