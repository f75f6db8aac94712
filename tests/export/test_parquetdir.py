"""A folder of Parquet gives the answers of the SQLite export of the same report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nsysmoe
from nsysmoe.errors import InputError
from nsysmoe.export.files import identify, is_parquetdir, runs_of
from nsysmoe.export.parquetdir import open_parquetdir
from tests.conftest import GRAPHS
from tests.export.parquet import write_parquetdir
from tests.hardware import on_hardware_128


@pytest.fixture
def folder(off: Path, tmp_path: Path) -> Path:
    return write_parquetdir(off, tmp_path / "off_pqtdir")


def test_every_view_is_that_of_the_sqlite_export(off: Path, folder: Path) -> None:
    assert identify(folder) == "parquetdir"
    with nsysmoe.open(off) as expected, nsysmoe.open(folder) as trace:
        for view in nsysmoe.catalogue().public_views():
            frame, right = trace.frame(view), expected.frame(view)
            order = right.columns
            assert frame.sort(order).equals(right.sort(order)), view
        assert trace.source_rows() == expected.source_rows()
        assert trace.findings() == expected.findings()


def test_ids_that_fill_64_bits_are_those_of_the_sqlite_export(off: Path, tmp_path: Path) -> None:
    file = on_hardware_128(shutil.copyfile(off, tmp_path / "off.sqlite"))
    folder = write_parquetdir(file, tmp_path / "off_pqtdir")
    with nsysmoe.open(file) as expected, nsysmoe.open(folder) as trace:
        for view in ("kernels", "devices", "steps", "host_gaps", "wait_ledger"):
            frame, right = trace.frame(view), expected.frame(view)
            assert frame.sort(right.columns).equals(right.sort(right.columns)), view
        assert trace.frame("kernels", ("global_pid",))["global_pid"].max() < 0  # type: ignore[operator]


def test_a_number_beyond_64_bits_of_sqlite_is_no_crash(folder: Path) -> None:
    path = folder / "TARGET_INFO_GPU.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("totalMemory")
    huge = pa.array([2**64 - 1] * table.num_rows, pa.uint64())
    pq.write_table(table.set_column(place, "totalMemory", huge), path)
    with nsysmoe.open(folder) as trace:
        assert trace.frame("gpus")["memory_bytes"].null_count() == table.num_rows


def test_a_comparison_is_the_same(tmp_path: Path) -> None:
    files = [GRAPHS / f"eplb_{arm}.sqlite" for arm in ("off", "on")]
    folders = [write_parquetdir(file, tmp_path / file.stem) for file in files]
    right = json.dumps(nsysmoe.compare(*files).to_dict(), sort_keys=True)
    found = json.dumps(nsysmoe.compare(*folders).to_dict(), sort_keys=True)
    for file, one in zip(files, folders, strict=True):
        found = found.replace(str(one), str(file))
    assert found == right


def test_runs_of_a_folder_are_found_in_every_form(off: Path, tmp_path: Path) -> None:
    arm = tmp_path / "arm"
    arm.mkdir()
    first = write_parquetdir(off, arm / "a_pqtdir")
    (arm / "a.nsys-rep").write_bytes(b"report")
    (arm / "b.nsys-rep").write_bytes(b"report")
    (arm / "notes").mkdir()
    assert runs_of(arm) == [first, arm / "b.nsys-rep"]
    assert runs_of(first) == [first]
    # Where both forms of an export are there, one stands for the report.
    (arm / "a.sqlite").write_bytes(off.read_bytes())
    assert runs_of(arm) == [arm / "a.sqlite", arm / "b.nsys-rep"]


def test_texts_that_are_no_utf8_are_mended(folder: Path) -> None:
    path = folder / "StringIds.parquet"
    table = pq.read_table(path)
    texts = [text.encode() for text in table["value"].to_pylist()]
    texts = [b"fused_moe_kernel\xff" if b"fused_moe" in text else text for text in texts]
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": table["id"], "value": column}), path)
    with nsysmoe.open(folder) as trace:
        names = trace.frame("kernel_classes")["name"].to_list()
        assert "fused_moe_kernel\ufffd" in names
        assert [finding.code for finding in trace.findings()] == ["repaired_text"]


@pytest.mark.parametrize("keep", [0, 100, -8, -1])
def test_a_truncated_table_is_one_line(folder: Path, keep: int) -> None:
    path = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"CUPTI_ACTIVITY_KIND_KERNEL\.parquet is damaged"):
        nsysmoe.open(folder)


def test_overwritten_pages_are_one_line(folder: Path) -> None:
    path = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    content = bytearray(path.read_bytes())
    content[2000:6000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(InputError) as refused, nsysmoe.open(folder) as trace:
        trace.frame("kernels")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "column", [pa.array([1.5]), pa.array(["x"]), pa.array([2**63], pa.uint64())]
)
def test_values_that_are_no_integers_are_refused(folder: Path, column: pa.Array) -> None:
    path = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    table = pq.read_table(path).slice(0, 1)
    place = table.column_names.index("gridX")
    pq.write_table(table.set_column(place, "gridX", column), path)
    with (
        pytest.raises(InputError, match="not an integer"),
        nsysmoe.open(folder) as trace,
    ):
        trace.frame("kernels", ("grid_x",))


def test_a_folder_without_tables_is_none(tmp_path: Path) -> None:
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    assert not is_parquetdir(tmp_path)
    with pytest.raises(InputError, match=r"without \.sqlite exports"):
        runs_of(tmp_path)


def test_an_id_with_two_texts_is_refused_where_it_is_asked_for(folder: Path) -> None:
    path = folder / "StringIds.parquet"
    table = pq.read_table(path)
    key, other = table["id"][0].as_py(), table["id"][1].as_py()
    twice = table.slice(0, 1).set_column(
        table.schema.get_field_index("value"), table.schema.field("value"), [["another"]]
    )
    pq.write_table(pa.concat_tables([table, table.slice(1, 1), twice]), path)
    export = open_parquetdir(folder)
    assert export.strings([other]) == {other: table["value"][1].as_py()}
    with pytest.raises(InputError, match=f"the id {key} with two texts"):
        export.strings([key])
