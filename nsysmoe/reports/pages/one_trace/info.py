"""What a trace is and holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.one_trace.info import Info


def info_page(info: Info) -> Document:
    """Return the facts of a trace, then its GPUs, processes, classes, tables and warnings."""
    facts = _facts(info)
    tables = [
        _table(f"Trace {info.source}", ("Fact", "Value"), facts, text_columns=2),
        _table(
            "Files and their clocks",
            ("File", "Host", "Ranks", "Kernels", "Beyond UTC (us)", "Drift (ppm)", "Residual (us)"),
            _files(info),
            text_columns=2,
        ),
        _table(
            "GPUs of the host", ("Host", "GPU", "Bus", "Memory (GiB)", "SMs", "Model"), _gpus(info)
        ),
        _table(
            "Processes and their devices",
            (
                "Host",
                "Process",
                "Device",
                "GPU",
                "Kernels",
                "First start (s)",
                "Last end (s)",
                "Program",
            ),
            _devices(info),
        ),
        _table(
            "Kernels by class",
            ("Class", "Names", "Launches", "Total (ms)", "Share of GPU time"),
            _classes(info),
        ),
        _table(
            "Tables that nsysmoe reads",
            ("Table", "Rows"),
            [(name, numbers.count(rows)) for name, rows in sorted(info.tables.items())],
        ),
        _table(
            "What nsys warned of",
            ("Severity", "Message", "Times"),
            [
                (row["severity"], row["text"] or "", numbers.count(row["times"]))
                for row in info.diagnostics
            ],
            text_columns=2,
        ),
    ]
    return Document(
        title=f"Trace {info.source}",
        tables=tuple(table for table in tables if table.rows),
        data=info.to_dict(),
        records=tuple({"fact": fact, "value": value} for fact, value in facts),
        findings=info.findings,
    )


def _facts(info: Info) -> list[tuple[str, str]]:
    export, graphs, kernels = info.export, info.cuda_graphs, info.kernels
    mode = f"{graphs['mode']} (by its {graphs['mode_from']})" if graphs["mode"] else "none seen"
    facts = [
        ("nsys that exported", export["nsys_version"] or "before 2022.1 (no metadata)"),
        ("Schema", export["schema_version"] or "before 2.9 (no metadata)"),
        ("Host", _hosts(info)),
        ("CUDA graphs recorded by", mode),
        ("Graphs recorded as a whole", numbers.count(graphs["graph_launches"])),
        ("Kernels recorded inside graphs", numbers.count(graphs["kernels_in_graphs"])),
        ("Kernels", numbers.count(kernels["launches"] if kernels else 0)),
        ("Span of kernels (s)", numbers.seconds(kernels["span_ns"] if kernels else None)),
        ("Tables", f"{len(info.tables)} read, {info.other_tables} others"),
    ]
    if export["is_time_normalized"] or export["time_shift_ns"]:
        facts.append(("Times", "shifted by the exporter (--ts-normalize or --ts-shift)"))
    return facts


def _hosts(info: Info) -> str:
    names = dict.fromkeys(row["host"] for row in info.files if row["host"]) or (
        [info.export["host"]] if info.export["host"] else []
    )
    return ", ".join(names) or numbers.UNKNOWN


def _gpus(info: Info) -> list[tuple[str, ...]]:
    return [
        (
            gpu.get("host") or info.export["host"] or numbers.UNKNOWN,
            str(gpu["gpu_id"]),
            gpu["bus_location"] or numbers.UNKNOWN,
            numbers.decimal(gpu["memory_bytes"] / 2**30 if gpu["memory_bytes"] else None),
            numbers.count(gpu["sm_count"]),
            gpu["name"] or numbers.UNKNOWN,
        )
        for gpu in info.gpus
    ]


def _devices(info: Info) -> list[tuple[str, ...]]:
    programs = {row["global_pid"]: row["name"] for row in info.processes}
    return [
        (
            device.get("host") or info.export["host"] or numbers.UNKNOWN,
            numbers.as_is(device["process_id"]),
            str(device["device_id"]),
            numbers.as_is(device["gpu_id"]),
            numbers.count(device["launches"]),
            numbers.seconds(device["first_start_ns"]),
            numbers.seconds(device["last_end_ns"]),
            programs.get(device["global_pid"]) or numbers.UNKNOWN,
        )
        for device in info.devices
    ]


def _files(info: Info) -> list[tuple[str, ...]]:
    return [
        (
            row["source"],
            row["host"] or numbers.UNKNOWN,
            numbers.count(row["ranks"]),
            numbers.count(row["launches"]),
            numbers.decimal(row["offset_ns"] / 1e3),
            numbers.decimal(row["drift_ppm"]),
            numbers.decimal(None if row["residual_ns"] is None else row["residual_ns"] / 1e3),
        )
        for row in info.files
    ]


def _classes(info: Info) -> list[tuple[str, ...]]:
    return [
        (
            row["class"],
            numbers.count(row["kernels"]),
            numbers.count(row["launches"]),
            numbers.milliseconds(row["total_ns"]),
            numbers.share(row["time_ratio"]),
        )
        for row in info.classes
    ]


def _table(
    caption: str, titles: tuple[str, ...], rows: list[Any], *, text_columns: int = 1
) -> Table:
    last_is_text = titles[-1] in {"Model", "Program"}
    columns = tuple(
        Column(title, "left")
        if number < text_columns or (last_is_text and number == len(titles) - 1)
        else Column(title)
        for number, title in enumerate(titles)
    )
    return Table(caption, columns, tuple(Row(tuple(cells)) for cells in rows))
