"""Comparisons of runs of several files: kept by all that they came from, worked out in limits."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

from fixtures.split import split
from nsysmoe.analysis.comparing.compare import compare
from nsysmoe.analysis.reading.gathering import Gathering, gathered, only_run
from nsysmoe.cache import Cache, identity
from nsysmoe.resources import Limits, using
from nsysmoe.trace import store
from nsysmoe.trace.merged import MergedStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def settled(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Files that a test wrote just now are kept too."""
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every reading of a run of several files from now on."""
    found: list[str] = []
    plain = MergedStore.read_for

    def read_for(self: MergedStore, *queries: tuple[str, ...]) -> None:
        found.append("read")
        plain(self, *queries)

    monkeypatch.setattr(MergedStore, "read_for", read_for)
    return found


@pytest.fixture
def arms(off: Path, on: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The real pair, a file a process."""
    folders = (tmp_path / "off", tmp_path / "on")
    for source, folder in zip((off, on), folders, strict=True):
        folder.mkdir()
        split(source, [folder / "a.sqlite", folder / "b.sqlite"])
    return folders


def test_the_same_files_are_read_once(arms: tuple[Path, Path], reads: list[str]) -> None:
    first = compare(*arms).to_dict()
    assert reads
    reads.clear()
    assert compare(*arms).to_dict() == first
    assert not reads


@pytest.mark.parametrize(
    "change",
    [
        lambda arm: (arm / "a.sqlite").touch(),
        lambda arm: shutil.copy(arm / "a.sqlite", arm / "c.sqlite"),
        lambda arm: (arm / "b.sqlite").unlink(),
    ],
    ids=["changed", "one more", "one less"],
)
def test_other_files_are_another_answer(
    change: Callable[[Path], object],
    arms: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compare(*arms, quick=True)
    change(arms[1])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("worked out anew")

    monkeypatch.setattr("nsysmoe.analysis.reading.arm.read_arms", refuse)
    with pytest.raises(AssertionError, match="anew"):
        compare(*arms, quick=True)


def test_files_read_otherwise_are_another_answer(arms: tuple[Path, Path]) -> None:
    together = compare(*arms, quick=True, gathering=Gathering("one-run"))
    apart = compare(*arms, quick=True, gathering=Gathering("runs"))
    assert len(together.baseline.sources) == 1
    assert len(apart.baseline.sources) == 2
    named = compare([arms[0]], arms[1], quick=True)
    assert named.baseline.sources != compare(*arms, quick=True).baseline.sources


def test_a_file_that_comes_meanwhile_is_not_kept_by_the_others(
    arms: tuple[Path, Path], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*values: object, **options: object) -> object:
        if not (arms[0] / "c.sqlite").exists():
            shutil.copy(arms[0] / "a.sqlite", arms[0] / "c.sqlite")
        return gathered(*values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("nsysmoe.analysis.reading.arm.gathered", late)
    assert len(compare(*arms, quick=True).baseline.sources) == 3
    assert "comparison" not in {one.what for one in Cache(cache_folder).entries()}


def test_workers_keep_nothing_where_nothing_is_kept(
    arms: tuple[Path, Path], cache_folder: Path
) -> None:
    with using(has_cache=False):
        compare(*arms, quick=True, gathering=Gathering(engine="processes", workers=1))
    assert Cache(cache_folder).entries() == []


def test_a_run_of_several_files_keeps_to_its_limits(
    arms: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Limits] = []
    plain = store.connected

    def connected(limits: Limits, *more: object) -> object:
        opened.append(limits)
        return plain(limits, *more)  # type: ignore[arg-type]

    for module in ("store", "merged"):
        monkeypatch.setattr(f"nsysmoe.trace.{module}.connected", connected)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with using(has_cache=False):
        expected = compare(*arms, quick=True).to_dict()
        monkeypatch.setattr(store, "_SMALL_BYTES", 0)
        opened.clear()
        with using(memory_bytes=800_000_000, threads=2):
            assert compare(*arms, quick=True).to_dict() == expected
    # An arm may use half; half of that is for what is put together, half for what makes it.
    assert {one.threads for one in opened} <= {1, 2}
    assert {one.memory_bytes for one in opened} == {800_000_000, 200_000_000}
    assert not list(tmp_path.glob("nsysmoe-*"))


def test_tables_of_a_large_run_lie_on_disk(
    arms: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SMALL_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with only_run(arms[0]).opened(memory_bytes=300_000_000, threads=1) as trace:
        trace.frame("moe_cells")
        settings = dict(
            trace._store.fetch(
                "select name, value from duckdb_settings() where name in "
                "('threads', 'memory_limit')"
            )
        )
        assert settings["threads"] == "1"
        assert settings["memory_limit"] == "143.0 MiB"
        assert len(list(tmp_path.glob("nsysmoe-trace-*/tables.duckdb"))) == 1
    assert not list(tmp_path.glob("nsysmoe-*"))
