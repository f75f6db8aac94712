"""Traces of every version give the same views; what nsys does not write is refused."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import nsysmoe
from fixtures.builder import VERSIONS, TraceBuilder, global_pid
from nsysmoe.errors import InputError, MissingDataError, QueryError
from nsysmoe.export.sqlite import SqliteExport
from nsysmoe.resources import using
from nsysmoe.trace import catalogue
from tests.conftest import DP2
from tests.hardware import on_hardware_128
from tests.oracle import kernel_durations

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[TraceBuilder], Path]

OFF = DP2 / "eplb_off.sqlite"


def _change(path: Path, statement: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    return path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("lazy", [True, False])
def test_every_schema_version(version: str, lazy: bool, written: Write) -> None:
    build = TraceBuilder(version, lazy=lazy).gpu(0).process(1000, "python3")
    build.kernel("fused_moe_kernel", 100, 25, grid=(3, 1, 1))
    build.kernel("ncclKernel_AllReduce_RING_LL_Sum_float(x)", 200, 50, device=1, pid=2000)
    with nsysmoe.open(written(build)) as trace:
        kernels = trace.frame("kernels").sort("kernel_id")
        assert kernels["dur_ns"].to_list() == [25, 50]
        assert kernels["process_id"].to_list() == [1000, 2000]
        assert kernels["class"].to_list() == ["moe_gemm", "collective"]
        assert kernels["grid_x"].to_list() == [3, 1]
        collective = trace.row("collectives")
        assert (collective["collective"], collective["data_type"]) == ("all_reduce", "f32")
        assert trace.row("export_info")["schema_version"] == (
            None if version == "none" else version
        )
        assert {row["gpu_name"] for row in trace.rows("devices")} == {"NVIDIA H100 80GB HBM3"}
        for view in catalogue().public_views():
            trace.frame(view)


@cache
def _alone(view: str) -> pl.DataFrame:
    """Return a view that nothing was asked before."""
    with nsysmoe.open(OFF) as trace:
        trace._kept = None
        return trace.frame(view)


@pytest.mark.parametrize("first", ["matched_collectives", "moe_launches", "gpu_work", "steps"])
def test_views_asked_one_after_the_other_tell_what_each_tells_alone(first: str) -> None:
    """Nothing that one view had no need of stays empty for those after it."""
    for view in ("collective_steps", "gpu_work", "moe_launches", "host_gaps", "wait_ledger"):
        expected = _alone(view)
        with nsysmoe.open(OFF) as trace:
            trace._kept = None
            trace.frame(first)
            assert trace.frame(view).sort(expected.columns).equals(expected.sort(expected.columns))


def test_reading_columns_one_by_one_changes_nothing(off: Path) -> None:
    """What a view shows does not depend on what was asked before."""
    with nsysmoe.open(off) as trace:
        at_once = trace.frame("kernels").sort("kernel_id")
    with nsysmoe.open(off) as trace:
        for column in at_once.columns:
            alone = trace.frame("kernels", ("kernel_id", column)).sort("kernel_id")
            assert alone[column].equals(at_once[column]), column


def test_frames_have_their_columns_without_rows(small: Path) -> None:
    with nsysmoe.open(small) as trace:
        launches = trace.frame("graph_launches")
    assert launches.is_empty()
    assert launches.schema["dur_ns"] == pl.Int64


def test_correlation_ids_of_two_processes_do_not_mix(written: Write) -> None:
    build = TraceBuilder()
    for pid in (1000, 2000, 3000):
        build.kernel("fused_moe_kernel", 100, pid, pid=pid, correlation=7)
    with nsysmoe.open(written(build)) as trace:
        found = trace.frame("kernels").sort("process_id")
    assert found["dur_ns"].to_list() == [1000, 2000, 3000]


def test_serialised_pids(written: Write) -> None:
    build = TraceBuilder()
    build.kernel("k", 0, 1, pid=None)
    build.kernel("k", 1, 1)
    build.kernels[1]["globalPid"] = global_pid(0xABCDEF, hardware=0x7F, vm=3)
    with nsysmoe.open(written(build)) as trace:
        found = trace.frame("kernels").sort("kernel_id")
    assert found["process_id"].to_list() == [None, 0xABCDEF]
    assert found["global_pid"].to_list() == [None, global_pid(0xABCDEF, hardware=0x7F, vm=3)]


def test_hardware_whose_ids_are_negative_numbers(tmp_path: Path) -> None:
    """Ids are 64 bits, the hardware's on top: from 128 on SQLite shows them below zero."""
    top = -(1 << 63)
    path = on_hardware_128(Path(shutil.copy(OFF, tmp_path / "high.sqlite")))
    with nsysmoe.open(OFF) as low, nsysmoe.open(path) as high:
        for view in catalogue().views():
            if view.name == "export_info":
                continue
            expected, found = low.frame(view.name), high.frame(view.name)
            ids = [
                name
                for name in found.columns
                if name.endswith(("global_pid", "global_tid", "vm_id"))
            ]
            assert all((found[name].drop_nulls() < 0).all() for name in ids), view.name
            assert_frame_equal(
                found.with_columns(pl.col(ids) - top), expected, check_row_order=False
            )


def test_shifted_and_negative_times(written: Write) -> None:
    build = TraceBuilder()
    build.kernel("k", 1_795_302_237_418_429_892, 3)
    build.kernel("k", -500, 499)
    build.kernel("k", 0, 0)
    with nsysmoe.open(written(build)) as trace:
        assert sorted(trace.frame("kernels")["dur_ns"]) == [0, 3, 499]


def test_two_ids_of_one_name_are_one_kernel(written: Write) -> None:
    build = TraceBuilder().kernel("k", 0, 1)
    build.strings[50] = "k"
    build.kernel("k", 5, 2)
    build.kernels[1]["demangledName"] = 50
    with nsysmoe.open(written(build)) as trace:
        assert trace.row("kernel_classes")["launches"] == 2


def test_names_that_stringids_lacks_and_broken_texts(written: Write) -> None:
    build = TraceBuilder().kernel("gone", 0, 1).kernel(b"nul\0bad\xff", 5, 2)
    del build.strings[1]
    with nsysmoe.open(written(build)) as trace:
        assert sorted(trace.frame("kernels")["name"]) == ["?", "nul\ufffdbad\ufffd"]
        assert {finding.code for finding in trace.findings()} == {
            "nameless_kernels",
            "repaired_text",
        }


def test_no_stringids_at_all(written: Write) -> None:
    path = _change(written(TraceBuilder().kernel("k", 0, 1)), "DROP TABLE StringIds")
    with nsysmoe.open(path) as trace:
        assert trace.row("kernels")["name"] == "?"


def test_the_gpu_of_a_process_is_known_only_from_a_map(written: Write) -> None:
    build = TraceBuilder().gpu(0, "A100").gpu(1, "A40").device(1000, 0, 1).device(1000, 1, 0)
    build.kernel("k", 0, 1, device=0).kernel("k", 0, 1, device=0, pid=2000)
    with nsysmoe.open(written(build)) as trace:
        rows = {row["process_id"]: row for row in trace.rows("devices")}
    assert (rows[1000]["gpu_id"], rows[1000]["gpu_name"]) == (1, "A40")
    assert (rows[2000]["gpu_id"], rows[2000]["gpu_name"]) == (None, None)


def test_the_same_pid_and_gpu_number_in_two_vms(written: Write) -> None:
    """One process and GPU a VM: nothing is merged, nothing is counted twice."""
    build = TraceBuilder().gpu(0, "H100").gpu(0, "H200").device(1000, 0, 0)
    build.gpus[1]["vmId"] = 2 << 48
    for vm in (1, 2):
        for launch in range(vm + 1):
            build.kernel("fused_moe_kernel", launch, 10)
            build.kernels[-1]["globalPid"] = global_pid(1000, vm=vm)
    path = written(build)
    with nsysmoe.open(path) as trace:
        devices = sorted((row["gpu_name"], row["launches"]) for row in trace.rows("devices"))
        assert devices == [("H100", 2), ("H200", 3)]
        assert sorted(row["launches"] for row in trace.rows("processes")) == [2, 3]
        assert trace.frame("gpus").height == 2
    assert [row["launches"] for row in nsysmoe.kernel_table(path, "device").rows] == [3, 2]
    assert len(nsysmoe.summarize(path).devices) == 2
    sides = nsysmoe.compare(path, path).baseline.breakdown
    assert sorted(row.launches for row in sides) == [2, 3]


def test_a_process_that_is_listed_twice_is_counted_once(written: Write) -> None:
    build = TraceBuilder().process(1000, "bash").process(1000, "python3").kernel("k", 0, 1)
    with nsysmoe.open(written(build)) as trace:
        assert trace.rows("processes")[0]["launches"] == 1


def test_a_failed_read_is_not_taken_for_done(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nsysmoe.open(small) as trace:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteExport, "strings", _fail)
            with pytest.raises(InputError):
                trace.frame("kernel_classes")
        assert "?" not in trace.frame("kernel_classes")["name"].to_list()


def _fail(*_arguments: object) -> None:
    raise InputError("the disk went away")


def test_a_gpu_without_a_number_is_refused(small: Path) -> None:
    path = _change(small, "CREATE TABLE g AS SELECT * FROM TARGET_INFO_GPU")
    _change(path, "DROP TABLE TARGET_INFO_GPU")
    _change(path, "ALTER TABLE g RENAME TO TARGET_INFO_GPU")
    _change(path, "UPDATE TARGET_INFO_GPU SET id = 'x'")
    with nsysmoe.open(path) as trace, pytest.raises(InputError, match="have no id"):
        trace.rows("gpus")


def test_broken_secrets_are_not_even_mentioned(small: Path) -> None:
    _change(small, "CREATE TABLE IF NOT EXISTS META_DATA_CAPTURE (name TEXT, value TEXT)")
    _change(small, "INSERT INTO META_DATA_CAPTURE VALUES ('ENV', CAST(x'41ff00' AS TEXT))")
    with nsysmoe.open(small) as trace:
        trace.row("export_info")
        assert trace.findings() == []


def test_secrets_are_not_even_loaded(written: Write) -> None:
    build = TraceBuilder().kernel("k", 0, 1)
    build.capture = [
        ("PROCESS_0:ENVIRONMENT_VARIABLE", "TOKEN=hunter2"),
        ("PROCESS_0:COMMAND", "serve --key hunter2"),
        ("PROCESS_0:CUDA_GRAPH_TRACE_OPTIONS:MODE", "Node"),
    ]
    build.strings[99] = "TOKEN=hunter2"
    with nsysmoe.open(written(build)) as trace:
        for view in catalogue().views(public_only=False):
            trace.ask(f"select * from {view.schema}.{view.name}")
        settings = trace.ask("select * from nsys.META_DATA_CAPTURE")
        strings = trace.ask("select * from nsys.StringIds")
    assert settings["value"].to_list() == ["Node"]
    assert "TOKEN=hunter2" not in strings["value"].to_list()


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("ALTER TABLE StringIds RENAME COLUMN value TO text", InputError, "no column value"),
        ("DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL", MissingDataError, "no GPU kernels"),
        ("DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL", MissingDataError, "no GPU kernels"),
        ('ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN "end"', InputError, "no column end"),
        (
            "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN demangledName",
            InputError,
            "no column demangledName",
        ),
        (
            'UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET "end" = start - 1 WHERE rowid = 3',
            InputError,
            "1 of 12 rows of CUPTI_ACTIVITY_KIND_KERNEL have an end before its start",
        ),
        (
            "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'soon' WHERE rowid = 12",
            InputError,
            "not an integer",
        ),
        (
            "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 1.5",
            InputError,
            "not an integer",
        ),
        (
            'UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = -9223372036854775807, "end" = 9e18',
            InputError,
            "not an integer|beyond 292 years",
        ),
    ],
)
def test_what_nsys_does_not_write_is_refused(
    small: Path, statement: str, error: type[Exception], message: str
) -> None:
    with nsysmoe.open(_change(small, statement)) as trace, pytest.raises(error, match=message):
        trace.frame("kernels")


def test_missing_values_where_nsys_has_some(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "null.sqlite"
    shutil.copy(small, path)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE k AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL;"
            "DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL;"
            "ALTER TABLE k RENAME TO CUPTI_ACTIVITY_KIND_KERNEL;"
            "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET deviceId = NULL WHERE rowid = 2;"
        )
    with nsysmoe.open(path) as trace, pytest.raises(InputError, match="have no deviceId"):
        trace.frame("kernels")


def test_times_beyond_what_64_bits_can_sum(written: Write) -> None:
    build = TraceBuilder()
    for _ in range(3):
        build.kernel("k", -(2**61), 2**62)
    with nsysmoe.open(written(build)) as trace, pytest.raises(InputError, match="292 years"):
        trace.frame("kernels")


def test_graphs_that_hide_all_kernels(written: Write) -> None:
    with (
        nsysmoe.open(written(TraceBuilder().graph(0, 10))) as trace,
        pytest.raises(MissingDataError, match=r"1 CUDA graph launches.*--cuda-graph-trace=node"),
    ):
        trace.frame("kernels")


def test_a_page_that_is_read_twice_is_noticed(off: Path, tmp_path: Path) -> None:
    """Repeated pages decode without an error; only their row numbers tell."""
    content = bytearray(off.read_bytes())
    with closing(sqlite3.connect(off)) as database:
        root = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_KERNEL'"
        ).fetchone()[0]
    page = (root - 1) * 4096
    assert content[page] == 5, "the root of the table is an interior page"
    first, second = (int.from_bytes(content[page + 12 + 2 * n :][:2], "big") for n in (0, 1))
    content[page + first : page + first + 4] = content[page + second : page + second + 4]
    path = tmp_path / "doubled.sqlite"
    path.write_bytes(content)
    with nsysmoe.open(path) as trace, pytest.raises(InputError, match="damaged"):
        trace.frame("moe_kernels")


def test_rows_that_a_damaged_page_no_longer_counts(off: Path, tmp_path: Path) -> None:
    """A leaf that forgot ten of its rows decodes without an error as well."""
    content = bytearray(off.read_bytes())
    with closing(sqlite3.connect(off)) as database:
        root = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_KERNEL'"
        ).fetchone()[0]
    interior = (root - 1) * 4096
    last = (int.from_bytes(content[interior + 8 : interior + 12], "big") - 1) * 4096
    assert content[last] == 13, "the last leaf of the table"
    cells = int.from_bytes(content[last + 3 : last + 5], "big")
    content[last + 3 : last + 5] = (cells - 10).to_bytes(2, "big")
    path = tmp_path / "forgetful.sqlite"
    path.write_bytes(content)
    with nsysmoe.open(path) as trace, pytest.raises(InputError, match="damaged"):
        trace.frame("moe_kernels")


def test_pages_lost_all_over_the_file(off: Path, tmp_path: Path) -> None:
    """A zeroed page never becomes a number: an error, or the same answer."""
    content = off.read_bytes()
    expected = sum(kernel_durations(off)["fused_moe_kernel"])
    refused = 0
    for page in range(1, len(content) // 4096, 16):
        damaged = bytearray(content)
        damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        path = tmp_path / "zeroed.sqlite"
        path.write_bytes(damaged)
        try:
            with nsysmoe.open(path) as trace:
                total = trace.frame("moe_kernels", ("dur_ns",))["dur_ns"].sum()
        except nsysmoe.NsysmoeError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert total == expected
    assert refused > 5


def test_unknown_views_and_columns(small: Path) -> None:
    with nsysmoe.open(small) as trace:
        with pytest.raises(QueryError, match=r"no view kernel;.*moe_kernels"):
            trace.frame("kernel")
        with pytest.raises(QueryError, match=r"no column duration;.*dur_ns"):
            trace.frame("kernels", ("duration",))


@pytest.mark.parametrize("smallest", [0, 1 << 40])
def test_batches_hold_the_same_rows(
    off: Path, monkeypatch: pytest.MonkeyPatch, smallest: int
) -> None:
    # On disk or in memory: a cursor starts in the database of the process, whatever is in use.
    monkeypatch.setattr("nsysmoe.trace.store._SMALL_BYTES", smallest)
    with nsysmoe.open(off) as trace:
        batches = list(trace.batches("moe_kernels", ("dur_ns",), rows=100))
        total = trace.frame("moe_kernels", ("dur_ns",))["dur_ns"].sum()
    assert sum(sum(batch.column("dur_ns").to_pylist()) for batch in batches) == total


def test_a_reader_that_is_not_used_up_blocks_nobody(off: Path) -> None:
    with nsysmoe.open(off) as trace:
        reader = trace.batches("kernels", ("dur_ns",), rows=10)
        reader.read_next_batch()
        assert trace.frame("moe_kernels").height == 384
        assert reader.read_next_batch().num_rows > 0


def test_many_threads_ask_one_trace(off: Path) -> None:
    with nsysmoe.open(off) as trace, ThreadPoolExecutor(8) as threads:
        views = ["kernels", "moe_kernels", "collectives", "kernel_classes"] * 4
        heights = list(threads.map(lambda view: trace.frame(view).height, views))
    assert heights == heights[:4] * 4


def test_an_answer_does_not_depend_on_what_was_asked_before(on: Path) -> None:
    """A query that can do without a table leaves it to those that cannot."""
    later = ("device_steps", "moe_cell_places")
    with using(has_cache=False):
        alone = {}
        for view in later:
            with nsysmoe.open(on) as trace:
                alone[view] = trace.frame(view)
        with nsysmoe.open(on) as trace:
            # Reads no API calls: only NCCL's ranges, which this trace lacks, would need them.
            trace.frame("rearrangements")
            for view in later:
                found = trace.frame(view)
                assert_frame_equal(found, alone[view], check_row_order=False)
