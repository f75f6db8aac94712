"""Kernel summaries from the Nsight window and from nsys stats."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsysmoe.errors import InputError
from nsysmoe.export.files import identify
from nsysmoe.export.kernel_csv import KernelRow, read_kernel_csv
from tests.conftest import TABLE1


@pytest.fixture
def csv(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str) -> Path:
        path = tmp_path / "a.csv"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


def test_the_windows_layout() -> None:
    row = read_kernel_csv(TABLE1 / "eplb_off.csv")[-1]
    assert row == KernelRow(
        name="fused_moe_kernel",
        launches=267576,
        total_ns=102_664_000_000,
        mean_ns=383_682.0,
        median_ns=None,
        min_ns=2592,
        max_ns=239_809_000,
        stddev_ns=2_472_000.0,
        is_rounded=True,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("102.664 s", 102_664_000_000),
        ("1,234.5 ms", 1_234_500_000),
        ("383.682 μs", 383_682),
        ("383.682 µs", 383_682),
        ("383.682 us", 383_682),
        ("241 ns", 241),
        ("241", 241),
        ("1e3 ns", 1000),
    ],
)
def test_units(csv, text: str, expected: int) -> None:  # type: ignore[no-untyped-def]
    path = csv(f'Total Time,Instances,Name\n"{text}",2,k\n')
    assert read_kernel_csv(path)[0].total_ns == expected


def test_what_nsys_stats_prints(csv) -> None:  # type: ignore[no-untyped-def]
    path = csv(
        "Processing [a.sqlite] with [cuda_gpu_kern_sum.py]...\n\n"
        "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"
        '60.0,300,2,150.0,150.0,100,200,70.7,"void f<a, b>(int)"\n'
        "40.0,200,1,200.0,200.0,200,200,0.0,g\n"
    )
    first, second = read_kernel_csv(path)
    assert (first.name, first.total_ns, first.stddev_ns) == ("void f<a, b>(int)", 300, 70.7)
    assert second.stddev_ns is None
    assert not first.is_rounded


def test_nsys_of_2020_and_other_units(csv) -> None:  # type: ignore[no-untyped-def]
    path = csv(
        "Time(%),Total Time (us),Instances,Average,Minimum,Maximum,Name\n50.0,1.5,3,0.5,0.1,0.9,k\n"
    )
    row = read_kernel_csv(path)[0]
    assert row.total_ns == 1500
    assert row.median_ns is None


def test_long_names_and_names_with_line_ends_of_unicode(csv) -> None:  # type: ignore[no-untyped-def]
    long = "f" * 200_000
    rows = read_kernel_csv(csv(f"Total Time,Instances,Name\n1,1,{long}\n2,1,a\x0cb\u2028c\n"))
    assert [row.name for row in rows] == [long, "a\x0cb\u2028c"]


def test_utf_16_as_some_editors_save(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Total Time,Instances,Name\n383.682 μs,2,k\n", encoding="utf-16")
    assert identify(path) == "csv"
    assert read_kernel_csv(path)[0].total_ns == 383_682


def test_tabs_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("\ufeffTotal Time\tInstances\tName\n1 ms\t1\ta, b\n".encode())
    assert read_kernel_csv(path)[0].name == "a, b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "not a kernel summary"),
        ("Total Time,Instances,Name\n", "no kernels"),
        ("Total Time,Instances,Name\n1 ms,1\n", "2 values where the header has 3"),
        ("Total Time,Instances,Name\n1 parsec,1,k\n", "not a time"),
        ('Total Time,Instances,Name\n"102,664 s",1,k\n', None),
        ('Total Time,Instances,Name\n"1,02 s",1,k\n', "not a time"),
        ("Total Time,Instances,Name\n-5 ms,1,k\n", "not a time"),
        ("Total Time,Instances,Name\n1 ms,0,k\n", "needs its launches"),
        ("Total Time,Instances,Name\n1 ms,x,k\n", "needs its launches"),
        ('Total Time,Instances,Name\n1 ms,1,"k\n', "cut off"),
        ("Total Time,Instances,Name\n1e99999999,1,k\n", "not a time"),
        ("Total Time,Instances,Name\n9e30,1,k\n", "over 292 years"),
        ("Total Time,Instances,Name\n9e18,1,k\n9e18,1,k\n", "over 292 years"),
        (f"Total Time,Instances,Name\n1 ms,{'9' * 5000},k\n", "needs its launches"),
        ("Total Time,Instances,Min,Max,Name\n9,1,5,4,k\n", "minimum is above the maximum"),
        ("x" * 200_000 + "\n", "not a kernel summary"),
        ("Total Time,Instances,Name\r1 ms,1,k\r", "not a kernel summary"),
    ],
)
def test_bad_tables(csv, text: str, message: str | None) -> None:  # type: ignore[no-untyped-def]
    path = csv(text)
    if message is None:
        assert read_kernel_csv(path)[0].total_ns == 102_664_000_000_000
        return
    with pytest.raises(InputError, match=message):
        read_kernel_csv(path)
