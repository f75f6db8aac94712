"""What a trace is and holds, told without judging it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.arm import one_of_runs
from nsysmoe.classes import MOE_GEMM
from nsysmoe.export.files import runs_of
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding
    from nsysmoe.trace import Trace

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Info:
    """The contents of one export.

    Attributes:
        source: The file.
        export: Version of nsys and of the schema, host, zero of time; None where unknown.
        cuda_graphs: ``mode`` (``graph``, ``node`` or None), how the mode is known, and what
            was recorded in it.
        kernels: ``launches``, ``start_ns``, ``end_ns``, ``span_ns``; None without kernels.
        gpus: GPUs of the host.
        devices: GPUs as the processes that ran kernels saw them.
        processes: Processes that ran kernels.
        classes: Launches, time and share by class.
        tables: Rows of the tables that nsysmoe reads.
        other_tables: How many more tables there are.
        diagnostics: Warnings and errors that nsys left.
        findings: What to know before asking more.
        no_kernels_reason: Why no other command can use the trace; None where it holds kernels.
    """

    source: str
    export: dict[str, Any]
    cuda_graphs: dict[str, Any]
    kernels: dict[str, int] | None
    gpus: tuple[dict[str, Any], ...]
    devices: tuple[dict[str, Any], ...]
    processes: tuple[dict[str, Any], ...]
    classes: tuple[dict[str, Any], ...]
    tables: dict[str, int]
    other_tables: int
    diagnostics: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    no_kernels_reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def describe(
    path: str | Path, *, class_map: ClassMap | None = None, nsys: str | None = None
) -> Info:
    """Describe an export or a report; one without kernels is described with a finding.

    Of a folder of runs, the first is described.

    Raises:
        NsysmoeError: The input is no trace, or is damaged.
    """
    source, runs = path, runs_of(path)
    path = runs[0]
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        has_kernels = trace.has_kernels()
        devices = trace.rows("devices") if has_kernels else []
        classes = _classes(trace) if has_kernels else []
        graphs = _cuda_graphs(trace, has_kernels=has_kernels)
        tables = trace.source_rows()
        return Info(
            source=str(path),
            export=trace.row("export_info"),
            cuda_graphs=graphs,
            kernels=_span(devices) if has_kernels else None,
            gpus=tuple(sorted(trace.rows("gpus"), key=lambda gpu: gpu["gpu_id"])),
            devices=tuple(sorted(devices, key=lambda d: (d["device_id"], d["global_pid"] or 0))),
            processes=tuple(trace.rows("processes") if has_kernels else []),
            classes=tuple(classes),
            tables=tables,
            other_tables=len(trace.table_names()) - len(tables),
            diagnostics=tuple(
                sorted(trace.rows("diagnostics"), key=lambda row: (row["severity"], -row["times"]))
            ),
            findings=(
                *one_of_runs(source, path, len(runs)),
                *_findings(str(path), classes, graphs),
                *trace.findings(),
            ),
            no_kernels_reason=None if has_kernels else str(trace.no_kernels()),
        )


def _classes(trace: Trace) -> list[dict[str, Any]]:
    from nsysmoe.metrics.communication import class_shares  # noqa: PLC0415 - imports polars

    kernels = trace.frame("kernel_classes", ("class", "launches", "total_ns"))
    return class_shares(kernels).to_dicts()


def _span(devices: list[dict[str, Any]]) -> dict[str, int]:
    start = min(device["first_start_ns"] for device in devices)
    end = max(device["last_end_ns"] for device in devices)
    launches = sum(device["launches"] for device in devices)
    return {"launches": launches, "start_ns": start, "end_ns": end, "span_ns": end - start}


def _cuda_graphs(trace: Trace, *, has_kernels: bool) -> dict[str, Any]:
    launches = trace.frame("graph_launches", ("dur_ns",))
    nodes = 0
    if has_kernels:
        kernels = trace.frame("kernels", ("graph_node_id",))
        nodes = kernels.height - kernels["graph_node_id"].null_count()
    stated = trace.row("export_info")["cuda_graph_trace"]
    seen = "graph" if launches.height else "node" if nodes else None
    return {
        "mode": stated or seen,
        "mode_from": "capture settings" if stated else "events" if seen else None,
        "graph_launches": launches.height,
        "graph_total_ns": int(launches["dur_ns"].sum()),
        "kernels_in_graphs": nodes,
    }


def _findings(source: str, classes: list[dict[str, Any]], graphs: dict[str, Any]) -> list[Finding]:
    from nsysmoe.analysis.diagnosis import hidden_kernels, no_moe_kernel  # noqa: PLC0415

    has_moe = any(row["class"] == MOE_GEMM for row in classes)
    hidden = hidden_kernels(
        "this trace", source, graphs["graph_launches"], graphs["graph_total_ns"]
    )
    return [*([] if has_moe else [no_moe_kernel(source)]), *([hidden] if hidden else [])]
