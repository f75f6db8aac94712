"""The same numbers as plain Python and as nsys itself, on real exports.

The real pair in `fixtures/` is always read. NSYSMOE_TRACES names a folder of more exports
(`.sqlite`, or gzip of it); an `nsys` on PATH, or the one that NSYSMOE_NSYS names, is asked too.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import nsysmoe
from nsysmoe.errors import MissingDataError
from tests.conftest import DP2
from tests.oracle import kernel_durations, statistics_of

NSYS = shutil.which(os.environ.get("NSYSMOE_NSYS", "nsys"))


def _exports() -> list[Path]:
    folder = os.environ.get("NSYSMOE_TRACES")
    more = [p for s in ("sqlite", "sqlite.gz") for p in sorted(Path(folder).rglob(f"*.{s}"))] if (
        folder
    ) else []  # fmt: skip
    return [*sorted(DP2.glob("*.sqlite")), *more]


@pytest.fixture(params=_exports(), ids=lambda path: f"{path.parent.name}/{path.name}")
def export(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    source: Path = request.param
    copy = tmp_path / source.name.removesuffix(".gz")
    if source.suffix == ".gz":
        copy.write_bytes(gzip.decompress(source.read_bytes()))
    else:
        shutil.copy(source, copy)
    return copy


def _has_kernels(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_KERNEL'"
        return database.execute(query).fetchone() is not None


def test_kernels_and_summary_equal_plain_python(export: Path) -> None:
    if not _has_kernels(export):
        with pytest.raises(MissingDataError):
            nsysmoe.kernel_table(export)
        return
    oracle = kernel_durations(export)
    rows = nsysmoe.kernel_table(export).rows
    assert {row["name"] for row in rows} == oracle.keys()
    for row in rows:
        for key, expected in statistics_of(oracle[row["name"]]).items():
            if key in row:
                wanted = None if expected is None else pytest.approx(expected, rel=1e-9)
                assert row[key] == wanted, (row["name"], key)
    summary = {m.metric: m.value for m in nsysmoe.summarize(export).metrics}
    nccl = [sum(d) for name, d in oracle.items() if name.startswith("nccl")]
    assert summary["nccl_total_ns"] == sum(nccl)
    if moe := oracle.get("fused_moe_kernel"):
        expected = statistics_of(moe) | {"total_time_ns": sum(moe)}
        for key in summary.keys() & expected.keys():
            assert summary[key] == pytest.approx(expected[key], rel=1e-9), key


@pytest.mark.skipif(NSYS is None, reason="no nsys on PATH and none named by NSYSMOE_NSYS")
def test_kernels_equal_nsys_stats(export: Path) -> None:
    if not _has_kernels(export):
        pytest.skip("no kernels")
    done = subprocess.run(
        [str(NSYS), "stats", "-r", "cuda_gpu_kern_sum", "--format", "csv", str(export)],
        capture_output=True,
        text=True,
        check=False,
    )
    table = done.stdout[done.stdout.find("Time (%)") :]
    if "Time (%)" not in table:
        pytest.skip(f"this nsys cannot read it: {done.stderr.strip().splitlines()[-1:]}")
    asked = {row["Name"]: row for row in csv.DictReader(io.StringIO(table))}
    rows = {row["name"]: row for row in nsysmoe.kernel_table(export).rows}
    assert rows.keys() == asked.keys()
    for name, row in rows.items():
        theirs = asked[name]
        assert row["launches"] == int(theirs["Instances"])
        assert row["total_ns"] == int(theirs["Total Time (ns)"])
        assert row["min_ns"] == int(theirs["Min (ns)"])
        assert row["max_ns"] == int(theirs["Max (ns)"])
        assert row["mean_ns"] == pytest.approx(float(theirs["Avg (ns)"]), abs=0.051)
        assert row["median_ns"] == pytest.approx(float(theirs["Med (ns)"]), abs=0.051)
        assert (row["stddev_ns"] or 0) == pytest.approx(float(theirs["StdDev (ns)"]), abs=0.051)
