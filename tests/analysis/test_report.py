"""What a report reads: each of two traces once, and nothing is left open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nsysmoe.analysis.comparing.report import report
from nsysmoe.resources import using
from nsysmoe.trace import Trace, open_trace, store, trace
from nsysmoe.trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).parents[2] / "fixtures"
OFF, ON = (FIXTURES / "dp2" / f"eplb_{arm}.sqlite" for arm in ("off", "on"))


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Store]]:
    """Every store that is filled from a file, in the order of being opened."""
    made: list[Store] = []

    class Seen(Store):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(trace, "Store", Seen)
    with using(has_cache=False):
        yield made


def test_each_trace_is_read_once_and_closed(stores: list[Store]) -> None:
    found = report(OFF, ON)
    assert sorted(one.path for one in stores) == [OFF, ON]
    assert all(portrait.timeline and portrait.removals for portrait in found.portraits)
    for one in stores:
        with pytest.raises(Exception, match="Connection"):
            one.fetch("select 1")


def test_a_report_that_is_refused_leaves_nothing_open(stores: list[Store]) -> None:
    with pytest.raises(Exception, match="has no step 99999"):
        report(OFF, ON, step=99_999)
    for one in stores:
        with pytest.raises(Exception, match="Connection"):
            one.fetch("select 1")


def test_of_several_runs_one_is_opened_again(stores: list[Store], tmp_path: Path) -> None:
    arms = [tmp_path / arm for arm in ("off", "on")]
    for arm in arms:
        arm.mkdir()
        for run in ("run-1", "run-2"):
            (arm / run).symlink_to(FIXTURES / "pairs" / arm.name / run)
    found = report(*arms)
    shown = [Path(portrait.source) for portrait in found.portraits]
    assert [one.path for one in stores[-2:]] == shown


def test_the_step_is_that_of_the_trace_opened_anew(stores: list[Store]) -> None:
    from nsysmoe.analysis.comparing.portrait import add_timeline, portray
    from nsysmoe.analysis.reading.run import read_run

    found = report(OFF, ON, step="slowest").portraits[0]
    run = read_run(OFF, with_schedule=True)
    with open_trace(OFF) as again:
        alone = add_timeline(portray("again", run), run, again, "slowest")
    assert alone.timeline == found.timeline
    assert len(stores) == 4


def test_a_large_trace_that_rests_holds_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose tables are on disk: what has been read and made is there again."""
    monkeypatch.setattr(store, "_SMALL_BYTES", 0)
    with using(has_cache=False), open_trace(ON) as rested, open_trace(ON) as other:
        first = rested.frame("device_time")
        before = rested._store.connection
        rested.free_memory()
        assert rested._store.connection is not before
        held = "select sum(memory_usage_bytes) from duckdb_memory()"
        assert rested._store.fetch(held)[0][0] < other_bytes(other, held)
        assert sorted(rested.frame("device_time").rows()) == sorted(first.rows())
        for view in ("timeline", "wait_causes", "host_steps"):
            assert sorted(map(str, rested.frame(view).rows())) == sorted(
                map(str, other.frame(view).rows())
            )


def other_bytes(other: Trace, held: str) -> int:
    other.frame("device_time")
    return int(other._store.fetch(held)[0][0])
