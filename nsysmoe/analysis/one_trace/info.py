"""What a trace is and holds, told without judging it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.arm import one_of_runs
from nsysmoe.analysis.reading.gathering import gathered, how_read
from nsysmoe.analysis.reading.hosts import host_of
from nsysmoe.classes import MOE_GEMM

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.findings import Finding
    from nsysmoe.trace import Trace

SCHEMA_VERSION = 1
_VIEWS = ("devices", "processes", "kernel_classes", "graph_launches", "gpus", "diagnostics")


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
        files: Of a run of several: ``source``, ``host``, ``ranks``, ``launches``,
            ``utc_zero_ns``, and how its clock stands to the first one's: ``offset_ns`` (beyond
            UTC), ``drift_ppm``, ``residual_ns`` (None where UTC alone is known), ``meetings``,
            ``is_applied``. Empty for one.
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
    files: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def describe(
    path: Source,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Info:
    """Describe an export or a report; one without kernels is described with a finding.

    A folder of one run's files is described as one; of a folder of runs, the first is.

    Raises:
        NsysmoeError: The input is no trace, or is damaged.
    """
    runs = gathered(path, gathering, class_map=class_map, nsys=nsys, with_tables=True)
    run = runs[0]
    with run.opened(class_map=class_map, nsys=nsys) as trace:
        has_kernels = trace.has_kernels()
        if has_kernels:
            trace.read_ahead(*((view, None) for view in _VIEWS))
        devices = trace.rows("devices") if has_kernels else []
        processes = trace.rows("processes") if has_kernels else []
        classes = _classes(trace) if has_kernels else []
        graphs = _cuda_graphs(trace, has_kernels=has_kernels)
        tables = trace.source_rows()
        return Info(
            source=str(run.path),
            export=_export(trace),
            cuda_graphs=graphs,
            kernels=_span(devices) if has_kernels else None,
            gpus=tuple(
                {**gpu, **_host(gpu["vm_id"], trace)}
                for gpu in sorted(trace.rows("gpus"), key=lambda gpu: (gpu["vm_id"], gpu["gpu_id"]))
            ),
            devices=tuple(
                {**device, **_host(device["global_pid"], trace)}
                for device in sorted(devices, key=_by_host)
            ),
            processes=tuple(sorted(processes, key=lambda row: row["global_pid"] or 0)),
            classes=tuple(classes),
            tables=tables,
            other_tables=len(trace.table_names()) - len(tables),
            diagnostics=tuple(_diagnostics(trace)),
            findings=(
                *one_of_runs(path, run.path, len(runs)),
                *how_read(runs),
                *_findings(str(run.path), classes, graphs),
                *trace.findings(),
            ),
            no_kernels_reason=None if has_kernels else str(trace.no_kernels()),
            files=tuple(_files(trace)),
        )


def _by_host(device: dict[str, Any]) -> tuple[int, int, int]:
    pid = device["global_pid"] or 0
    return (pid >> 48, device["device_id"], pid)


def _host(serialised: int | None, trace: Trace) -> dict[str, Any]:
    return {"host": host_of(serialised, trace.hosts)} if trace.hosts else {}


def _export(trace: Trace) -> dict[str, Any]:
    """Return where the trace comes from; of several files, what all of them say."""
    if not trace.members:
        return trace.row("export_info")
    rows = [member.export for member in trace.members]
    return {
        key: value if all(row[key] == value for row in rows) else None
        for key, value in rows[0].items()
    }


def _diagnostics(trace: Trace) -> list[dict[str, Any]]:
    """Return warnings and errors, those of several files added up."""
    times: dict[tuple[str, str], int] = {}
    for row in trace.rows("diagnostics"):
        key = (row["severity"], row["text"])
        times[key] = times.get(key, 0) + row["times"]
    rows = [
        {"severity": severity, "text": text, "times": count}
        for (severity, text), count in times.items()
    ]
    return sorted(rows, key=lambda row: (row["severity"], -row["times"]))


def _files(trace: Trace) -> list[dict[str, Any]]:
    """Return the files of a run of several: where each is from, and how its clock stands."""
    return [
        {
            "source": member.path,
            "host": member.host,
            "ranks": len(member.ranks),
            "launches": member.launches,
            "utc_zero_ns": member.utc_ns,
            "offset_ns": clock.offset_ns,
            "drift_ppm": clock.drift_ppm,
            "residual_ns": clock.residual_ns,
            "meetings": clock.meetings,
            "is_applied": clock.is_applied,
        }
        for member, clock in zip(trace.members, trace.file_clocks, strict=True)
    ]


def _classes(trace: Trace) -> list[dict[str, Any]]:
    from nsysmoe.metrics.kernel_time.communication import class_shares  # noqa: PLC0415 - imports polars

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
        nodes = sum(row["graph_launches"] for row in trace.rows("devices"))
    stated = _export(trace)["cuda_graph_trace"]
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
