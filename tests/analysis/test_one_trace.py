"""Summary, kernels and info of one trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.errors import MissingDataError
from tests.conftest import TABLE1
from tests.oracle import kernel_durations, statistics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[TraceBuilder], Path]


def test_summary_by_device(small: Path) -> None:
    found = nsysmoe.summarize(small)
    overall = {metric.metric: metric.value for metric in found.metrics}
    assert (overall["total_time_ns"], overall["launches"]) == (101 - 20, 4)
    by_device = {d.device: {m.metric: m.value for m in d.metrics} for d in found.devices}
    assert by_device[0]["total_time_ns"] == 40
    assert by_device[1]["total_time_ns"] == 41
    assert by_device[1]["nccl_total_ns"] == 23
    assert [d.process for d in found.devices] == [1000, 2000]


def test_devices_come_in_their_order(off: Path) -> None:
    found = nsysmoe.summarize(off)
    assert [(device.device, device.process) for device in found.devices] == [(0, 1295), (1, 1291)]


def test_devices_add_up_to_the_whole(off: Path) -> None:
    found = nsysmoe.summarize(off)
    for key in ("total_time_ns", "launches", "nccl_total_ns", "allreduce_total_ns"):
        whole = next(m.value for m in found.metrics if m.metric == key)
        parts = [next(m.value for m in d.metrics if m.metric == key) for d in found.devices]
        assert sum(part or 0 for part in parts) == whole


def test_a_trace_without_moe_kernels_is_a_finding(written: Write) -> None:
    path = written(TraceBuilder().kernel("k", 0, 1))
    assert "no_moe_kernel" in [f.code for f in nsysmoe.summarize(path).findings]
    assert "no_moe_kernel" in [f.code for f in nsysmoe.describe(path).findings]


def test_kernels_by_name_equal_an_independent_reading(on: Path) -> None:
    oracle = kernel_durations(on)
    rows = nsysmoe.kernel_table(on).rows
    assert [row["name"] for row in rows] == [
        row["name"] for row in sorted(rows, key=lambda row: -row["total_ns"])
    ]
    assert {row["name"] for row in rows} == oracle.keys()
    for row in rows:
        expected = statistics_of(oracle[row["name"]])
        for key in ("launches", "total_ns", "mean_ns", "median_ns", "min_ns", "max_ns"):
            assert row[key] == pytest.approx(expected[key], rel=1e-12), row["name"]
        if expected["stddev_ns"] is None:
            assert row["stddev_ns"] is None
        else:
            assert row["stddev_ns"] == pytest.approx(expected["stddev_ns"], rel=1e-9)


def test_kernels_by_class_and_device_add_up(on: Path) -> None:
    whole = sum(len(durations) for durations in kernel_durations(on).values())
    for by in ("class", "device"):
        assert sum(row["launches"] for row in nsysmoe.kernel_table(on, by).rows) == whole


def test_kernels_of_a_summary() -> None:
    rows = nsysmoe.kernel_table(TABLE1 / "eplb_off.csv").rows
    assert rows[0]["name"] == "fused_moe_kernel"
    assert rows[0]["total_ns"] == 102_664_000_000
    classes = nsysmoe.kernel_table(TABLE1 / "eplb_off.csv", "class").rows
    assert {row["class"] for row in classes} == {"moe_gemm", "collective"}
    with pytest.raises(MissingDataError, match="does not tell devices apart"):
        nsysmoe.kernel_table(TABLE1 / "eplb_off.csv", "device")


def test_info(off: Path) -> None:
    found = nsysmoe.describe(off)
    assert found.export["nsys_version"] == "2025.3.2.0"
    assert found.export["schema_version"] == "3.20.3"
    assert found.cuda_graphs["mode"] == "node"
    assert found.kernels is not None
    assert found.kernels["launches"] == 4304
    assert [gpu["gpu_id"] for gpu in found.gpus] == [0, 1]
    assert {process["name"] for process in found.processes} == {"python3"}
    assert sum(row["time_ratio"] for row in found.classes) == pytest.approx(1)
    assert found.tables["CUPTI_ACTIVITY_KIND_KERNEL"] == 4304
    assert found.no_kernels_reason is None


def test_info_tells_graph_modes_apart(written: Write) -> None:
    whole = nsysmoe.describe(written(TraceBuilder().kernel("k", 0, 1).graph(5, 6)))
    assert (whole.cuda_graphs["mode"], whole.cuda_graphs["graph_total_ns"]) == ("graph", 6)
    assert "cuda_graph_mode" in [finding.code for finding in whole.findings]
    nodes = nsysmoe.describe(written(TraceBuilder().kernel("k", 0, 1, graph_node=4)))
    assert (nodes.cuda_graphs["mode"], nodes.cuda_graphs["kernels_in_graphs"]) == ("node", 1)
    none = nsysmoe.describe(written(TraceBuilder().kernel("k", 0, 1)))
    assert none.cuda_graphs["mode"] is None


def test_info_shows_nsys_warnings_once_each(written: Write) -> None:
    build = TraceBuilder().kernel("k", 0, 1)
    build.diagnostics = [(1, "fine"), (2, "lost some"), (2, "lost some"), (3, "broken")]
    found = nsysmoe.describe(written(build)).diagnostics
    assert [(row["severity"], row["text"], row["times"]) for row in found] == [
        ("error", "broken", 1),
        ("warning", "lost some", 2),
    ]


def test_info_of_a_trace_without_kernels(written: Write) -> None:
    found = nsysmoe.describe(written(TraceBuilder().gpu(0)))
    assert found.kernels is None
    assert "no GPU kernels" in (found.no_kernels_reason or "")
