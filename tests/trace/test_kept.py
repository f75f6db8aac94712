"""Kept answers are those of the trace as it is now, or none."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.cache import Cache, identity
from nsysmoe.classes import default_class_map
from nsysmoe.errors import InputError
from nsysmoe.resources import using
from nsysmoe.trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[TraceBuilder], Path]


@pytest.fixture(autouse=True)
def settled(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Files that a test wrote just now are kept too."""
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes every reading of a trace an error from then on."""

    def forbid() -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a trace was read")

        monkeypatch.setattr(Store, "read_for", refuse)

    return forbid


def test_a_second_trace_reads_nothing(off: Path, no_reading: Callable[[], None]) -> None:
    with nsysmoe.open(off) as trace:
        frame = trace.frame("moe_kernels", ("kernel_id", "dur_ns"))
        during = trace.frame("kernels", None, (0, 10**12))
        rows, findings = trace.rows("devices"), trace.findings()
    no_reading()
    with nsysmoe.open(off) as trace:
        trace.read_ahead(("moe_kernels", ("kernel_id", "dur_ns")))
        assert trace.frame("moe_kernels", ("kernel_id", "dur_ns")).equals(frame)
        assert trace.frame("kernels", None, (0, 10**12)).equals(during)
        assert trace.rows("devices") == rows
        assert trace.findings() == findings
        with pytest.raises(AssertionError, match="was read"):
            trace.frame("moe_kernels", ("kernel_id",))


def test_every_view_comes_back_as_it_was(off: Path, no_reading: Callable[[], None]) -> None:
    views = nsysmoe.catalogue().public_views()
    with nsysmoe.open(off) as trace:
        first = {view: trace.frame(view) for view in views}
    no_reading()
    with nsysmoe.open(off) as trace:
        for view in views:
            again = trace.frame(view)
            assert again.equals(first[view]), view
            assert again.schema == first[view].schema, view


def test_a_changed_file_is_read_again(small: Path) -> None:
    with nsysmoe.open(small) as trace:
        assert trace.frame("moe_kernels")["dur_ns"].sum() == 10 + 11 + 30 + 30
    size = small.stat().st_size
    time.sleep(0.02)
    with closing(sqlite3.connect(small)) as database:
        database.execute(
            'update CUPTI_ACTIVITY_KIND_KERNEL set "end" = "end" + 1 where start = 200'
        )
        database.commit()
    assert small.stat().st_size == size
    with nsysmoe.open(small) as trace:
        assert trace.frame("moe_kernels")["dur_ns"].sum() == 10 + 11 + 31 + 31


def test_a_file_that_changes_while_it_is_read_is_not_kept(small: Path, cache_folder: Path) -> None:
    with nsysmoe.open(small) as trace:
        time.sleep(0.02)
        small.touch()
        trace.frame("moe_kernels")
    assert Cache(cache_folder).entries() == []


def test_another_class_map_is_another_answer(small: Path, tmp_path: Path) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text('[[rule]]\nclass = "moe_gemm"\nfunction = "rms_norm_kernel"\n')
    own = default_class_map().extended_by(rules)
    with nsysmoe.open(small) as trace:
        assert trace.frame("moe_kernels").height == 4
    with nsysmoe.open(small, class_map=own) as trace:
        assert trace.frame("moe_kernels").height == 6
    assert own.digest != default_class_map().digest


def test_a_damaged_file_is_never_kept(off: Path, tmp_path: Path, cache_folder: Path) -> None:
    """SQLite's check of the whole file comes before anything that is kept."""
    path = shutil.copyfile(off, tmp_path / "damaged.sqlite")
    pages = path.stat().st_size // 4096
    content = bytearray(path.read_bytes())
    page = content[(pages // 2) * 4096 : (pages // 2 + 1) * 4096]
    content[(pages // 2 + 1) * 4096 : (pages // 2 + 2) * 4096] = page
    path.write_bytes(content)
    with pytest.raises(InputError), nsysmoe.open(path) as trace:
        trace.frame("kernels")
    assert Cache(cache_folder).entries() == []


def test_oddities_are_kept_with_the_answer(written: Write, no_reading: Callable[[], None]) -> None:
    build = TraceBuilder().gpu(0).process(1000, "python3")
    build.kernel("fused_moe_kernel", 100, 25)
    path = written(build)
    with closing(sqlite3.connect(path)) as database:
        database.execute("insert into StringIds values (777, cast(x'ff00' as text))")
        database.execute("update CUPTI_ACTIVITY_KIND_KERNEL set demangledName = 777")
        database.execute(
            "insert into CUPTI_ACTIVITY_KIND_KERNEL select * from CUPTI_ACTIVITY_KIND_KERNEL"
        )
        database.execute(
            "update CUPTI_ACTIVITY_KIND_KERNEL set demangledName = 778 where rowid = 2"
        )
        database.commit()
    with nsysmoe.open(path) as trace:
        trace.frame("kernel_classes")
        findings = trace.findings()
    assert [finding.code for finding in findings] == ["repaired_text", "nameless_kernels"]
    no_reading()
    with nsysmoe.open(path) as trace:
        trace.frame("kernel_classes")
        assert trace.findings() == findings


def test_without_a_cache_nothing_is_kept(off: Path, cache_folder: Path) -> None:
    with using(has_cache=False), nsysmoe.open(off) as trace:
        trace.frame("moe_kernels")
    assert list(cache_folder.iterdir()) == []


def test_a_comparison_is_the_same_from_the_cache(
    off: Path, on: Path, no_reading: Callable[[], None]
) -> None:
    first = nsysmoe.compare(off, on)
    no_reading()
    assert nsysmoe.compare(off, on).to_dict() == first.to_dict()
    # Other labels are another answer, from the same kept frames.
    renamed = nsysmoe.compare(off, on, baseline_label="A")
    assert renamed.baseline.label == "A"
    assert renamed.metrics == first.metrics


def test_memory_beyond_the_limit_goes_to_disk(
    off: Path, on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables on disk, and few bytes of memory, change no number."""
    with using(has_cache=False):
        expected = nsysmoe.compare(off, on).to_dict()
        monkeypatch.setattr("nsysmoe.trace.store._SMALL_BYTES", 0)
        with using(memory_bytes=200 * 10**6, threads=1):
            assert nsysmoe.compare(off, on).to_dict() == expected


def test_a_report_is_exported_once(off: Path, tmp_path: Path) -> None:
    report = tmp_path / "off.nsys-rep"
    report.write_bytes(b"report")
    calls = tmp_path / "calls"
    nsys = tmp_path / "nsys"
    nsys.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--help*) exit 0;; esac\n'
        f"echo called >> {calls}\n"
        'while [ "$1" != -o ]; do shift; done\n'
        f'cp {off} "$2"\n'
    )
    nsys.chmod(0o755)
    for column in ("dur_ns", "start_ns", "dur_ns"):
        with nsysmoe.open(report, nsys=str(nsys)) as trace:
            frame = trace.frame("moe_kernels", (column,))
        with nsysmoe.open(off) as trace:
            assert frame[column].sum() == trace.frame("moe_kernels", (column,))[column].sum()
    assert calls.read_text() == "called\n"
    report.write_bytes(b"another")
    with nsysmoe.open(report, nsys=str(nsys)) as trace:
        trace.frame("moe_kernels", ("dur_ns",))
    assert calls.read_text() == "called\ncalled\n"
