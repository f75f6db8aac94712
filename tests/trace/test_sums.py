"""Views that sum others: the same numbers as from the rows themselves."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import nsysmoe
from tests.conftest import DP2, GRAPHS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEVICE = ["global_pid", "process_id", "device_id"]
TIMES = ["dur_ns", "wait_ns", "transfer_ns"]


@pytest.fixture(scope="module", params=[DP2 / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite"])
def trace(request: pytest.FixtureRequest) -> Iterator[nsysmoe.Trace]:
    with ExitStack() as traces:
        path: Path = request.param
        yield traces.enter_context(nsysmoe.open(path))


def summed(events: pl.DataFrame, keys: list[str], times: list[str]) -> set[tuple[object, ...]]:
    """Add rows up in plain Python; what is never known stays None."""
    found: dict[tuple[object, ...], list[int | None]] = {}
    for row in events.iter_rows(named=True):
        sums = found.setdefault(tuple(row[key] for key in keys), [0, *[None] * len(times)])
        sums[0] = (sums[0] or 0) + 1
        for place, name in enumerate(times, 1):
            if row[name] is not None:
                sums[place] = (sums[place] or 0) + row[name]
    return {(*key, *sums) for key, sums in found.items()}


def rows_of(frame: pl.DataFrame, columns: list[str]) -> set[tuple[object, ...]]:
    rows = frame.select(columns).rows()
    assert len(set(rows)) == len(rows)
    return set(rows)


def test_communication_by_name(trace: nsysmoe.Trace) -> None:
    keys = [
        *DEVICE, "name_id", "function", "collective", "data_type", "communicator",
        "communicator_source", "is_matched",
    ]  # fmt: skip
    events = trace.frame("matched_collectives")
    expected = summed(events, keys, TIMES)
    found = trace.frame("collective_totals")
    assert rows_of(found, [*keys, "launches", *TIMES]) == expected
    last = summed(events.filter("is_last"), keys, [])
    assert rows_of(found.filter(pl.col("arrived_last") > 0), [*keys, "arrived_last"]) == last


def test_communication_by_phase(trace: nsysmoe.Trace) -> None:
    keys = [
        *DEVICE, "name_id", "collective", "data_type", "communicator", "is_matched", "phase",
    ]  # fmt: skip
    steps = dict(trace.frame("collective_steps").select("kernel_id", "phase").iter_rows())
    events = trace.frame("matched_collectives")
    events = events.with_columns(
        phase=pl.Series([steps[number] for number in events["kernel_id"]], dtype=pl.String)
    )
    assert events["phase"].n_unique() > 1
    found = trace.frame("collective_phases")
    assert rows_of(found, [*keys, "launches", *TIMES]) == summed(events, keys, TIMES)


def test_how_many_kernels_took_how_long(trace: nsysmoe.Trace) -> None:
    events, launches = trace.frame("kernels"), trace.frame("moe_launches")
    for view, rows, keys in (
        ("kernel_durations", events, ["name_id", "dur_ns"]),
        ("device_durations", events, [*DEVICE, "dur_ns"]),
        ("moe_durations", launches, ["rank", "dur_ns"]),
        ("moe_phase_durations", launches, ["phase", "dur_ns"]),
        ("moe_grids", launches, ["phase", "blocks"]),
    ):
        assert rows_of(trace.frame(view), [*keys, "launches"]) == summed(rows, keys, []), view


def test_moe_kernels_by_name_and_their_ranks(trace: nsysmoe.Trace) -> None:
    launches, keys = trace.frame("moe_launches"), ["name_id", *DEVICE]
    found = trace.frame("moe_totals")
    assert rows_of(found, [*keys, "launches", "dur_ns"]) == summed(launches, keys, ["dur_ns"])
    ranks = ["rank", *DEVICE]
    assert rows_of(trace.frame("moe_ranks"), ranks) == set(launches.select(ranks).rows())


def test_moe_kernels_by_phase_and_layer(trace: nsysmoe.Trace) -> None:
    launches = trace.frame("moe_launches")
    keys = [
        "rank", "global_pid", "device_id", "phase", "phase_source", "layer", "layer_source",
    ]  # fmt: skip
    expected = summed(launches, keys, ["dur_ns"])
    assert rows_of(trace.frame("moe_phases"), [*keys, "launches", "dur_ns"]) == expected
    told: dict[tuple[int, str | None], tuple[set[int], set[int]]] = {}
    for row in launches.iter_rows(named=True):
        steps, passes = told.setdefault((row["rank"], row["phase"]), (set(), set()))
        steps |= {row["step"]} - {None}
        passes |= {row["pass"]} - {None}
    found = trace.frame("moe_phase_steps").select("rank", "phase", "steps", "passes")
    assert set(found.rows()) == {(*key, len(a), len(b)) for key, (a, b) in told.items()}


def test_moe_kernels_by_slice(trace: nsysmoe.Trace) -> None:
    starts = trace.frame("slices").sort("slice")["start_ns"].to_list()
    by_slice: dict[int, list[int]] = {}
    for start, duration in trace.frame("moe_launches").select("start_ns", "dur_ns").iter_rows():
        by_slice.setdefault(max(sum(at <= start for at in starts) - 1, 0), []).append(duration)
    assert len(by_slice) > 3
    found = trace.frame("moe_slices").select("slice", "launches", "dur_ns", "squares")
    assert set(found.rows()) == {
        (place, len(took), sum(took), float(sum(duration**2 for duration in took)))
        for place, took in by_slice.items()
    }


def test_moe_kernels_by_the_phase_of_all_ranks(trace: nsysmoe.Trace) -> None:
    work = trace.frame("slice_work").sort("start_ns").rows(named=True)
    joint = []
    for row in trace.frame("moe_launches").iter_rows(named=True):
        own = row["phase"] or "unattributed"
        middle = row["start_ns"] + row["dur_ns"] // 2
        begun = [cut["phase"] or "unattributed" for cut in work if cut["start_ns"] <= middle]
        is_met = own in {"prefill", "decode", "mixed", "dummy"}
        joint.append(begun[-1] if begun and is_met else own)
    launches = trace.frame("moe_launches").with_columns(phase=pl.Series(joint))
    found = trace.frame("moe_joint_durations")
    assert rows_of(found, ["phase", "dur_ns", "launches"]) == summed(
        launches, ["phase", "dur_ns"], []
    )
    keys = ["rank", "global_pid", "device_id", "phase"]
    found = trace.frame("moe_joint_phases")
    assert rows_of(found, [*keys, "launches", "dur_ns"]) == summed(launches, keys, ["dur_ns"])


def test_phases_told_by_duration(trace: nsysmoe.Trace) -> None:
    launches = trace.frame("moe_launches").to_dicts()
    slowest: dict[tuple[str, int], int] = {}
    for row in launches:
        cell = (row["gemm"], row["ordinal"])
        slowest[cell] = max(slowest.get(cell, 0), row["dur_ns"])
    cells = Counter((gemm, took) for (gemm, _), took in slowest.items())
    found = trace.frame("moe_cell_durations").select("gemm", "slowest_ns", "cells")
    assert set(found.rows()) == {(*key, count) for key, count in cells.items()}
    parting = {"w13": 400_000, "w2": 300_000}
    with nsysmoe.open(trace.path) as other:
        as_they_were = other.frame("moe_phases")
        other.tell("nsysmoe.phase_partings", list(parting.items()))
        told = other.frame("phased_launches")
        places = dict(other.frame("moe_cell_places").select("cell", "phase").iter_rows())
    assert rows_of(as_they_were, as_they_were.columns) == rows_of(
        trace.frame("moe_phases"), as_they_were.columns
    )
    phases = {
        cell: "prefill" if took > parting[cell[0]] else "decode" for cell, took in slowest.items()
    }
    assert len(set(phases.values())) == 2
    assert told.height == len(launches)
    assert set(told["phase_source"]) == {"duration"}
    assert {(row[0], row[1]): row[2] for row in told.select("gemm", "ordinal", "phase").rows()} == (
        phases
    )
    assert places == {ordinal: phase for (_, ordinal), phase in phases.items()}


def test_slices_are_the_steps_of_the_gpu_with_the_longest_window(trace: nsysmoe.Trace) -> None:
    by_device: dict[tuple[object, object], list[tuple[object, ...]]] = {}
    columns = ("step", "phase", "start_ns", "window_ns")
    for row in trace.frame("device_time").sort("start_ns").iter_rows(named=True):
        steps = by_device.setdefault((row["device_id"], row["global_pid"]), [])
        steps.append(tuple(row[name] for name in columns))
    windows = {key: sum(row[3] for row in rows) for key, rows in by_device.items()}  # type: ignore[misc]
    longest = min(by_device, key=lambda key: (-windows[key], key))
    slices = trace.frame("slices").sort("slice")
    assert slices["slice"].to_list() == list(range(slices.height))
    assert slices.drop("slice").rows() == by_device[longest]


def test_what_all_ranks_had_to_do_in_a_slice(trace: nsysmoe.Trace) -> None:
    slices = trace.frame("slices").sort("slice").to_dicts()
    passes: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in trace.frame("moe_launches").iter_rows(named=True):
        key = tuple(row[name] for name in ("global_pid", "device_id", "step", "pass", "phase"))
        passes.setdefault(key, []).append(row)
    done: dict[int, tuple[set[str | None], list[int]]] = {}
    for (*_, phase), rows in passes.items():
        starts = [row["start_ns"] for row in rows]
        middle = (min(starts) + max(starts)) // 2
        place = max(sum(cut["start_ns"] <= middle for cut in slices) - 1, 0)
        phases, blocks = done.setdefault(place, (set(), []))
        phases.add(phase)  # type: ignore[arg-type]
        blocks.extend(row["blocks"] for row in rows)
    expected = []
    for cut in slices:
        phases, blocks = done.get(cut["slice"], ({cut["phase"]}, []))
        real = phases - {"dummy", None}
        known = real or phases - {None}
        phase = "mixed" if len(real) > 1 else min(known, default=cut["phase"])
        expected.append((cut["slice"], cut["start_ns"], phase, max(blocks, default=None)))
    assert len({row[2] for row in expected}) > 1
    assert trace.frame("slice_work").sort("slice").rows() == expected


def test_communication_by_slice(trace: nsysmoe.Trace) -> None:
    starts = trace.frame("slices").sort("slice")["start_ns"].to_list()
    events = trace.frame("matched_collectives")
    # In the last slice that had begun; what starts before all of them is in the first.
    places = [max(sum(at <= start for at in starts) - 1, 0) for start in events["start_ns"]]
    assert len(set(places)) > 3
    keys = ["slice", "name_id", "collective"]
    expected = summed(events.with_columns(slice=pl.Series(places)), keys, TIMES)
    assert rows_of(trace.frame("collective_slices"), [*keys, "launches", *TIMES]) == expected


def test_ranks_that_came_last(trace: nsysmoe.Trace) -> None:
    columns = list(trace.frame("last_arrivals").columns)
    last = trace.frame("matched_collectives").filter("is_last")
    assert last.height > 0
    assert rows_of(trace.frame("last_arrivals"), columns) == rows_of(last, columns)


def test_who_took_over_as_the_last(trace: nsysmoe.Trace) -> None:
    last = trace.frame("last_arrivals").sort("communicator", "start_ns").to_dicts()
    margins = sorted(row["margin_ns"] for row in last)
    # Margins that the clocks cannot tell are left out; an answer is kept with what it stands on.
    for residual in (0, margins[len(margins) // 2], margins[len(margins) // 4]):
        found: dict[tuple[object, ...], list[int]] = {}
        before: dict[object, tuple[object, ...]] = {}
        for row in last:
            if row["margin_ns"] > residual:
                key = tuple(row[name] for name in ("communicator", *DEVICE))
                sums = found.setdefault(key, [0, 0])
                sums[0] += 1
                sums[1] += before.get(row["communicator"], key) != key
                before[row["communicator"]] = key
        with nsysmoe.open(trace.path) as other:
            if residual:
                other.tell("nsysmoe.clock_residual", [(residual,)])
            turns = other.frame("arrival_turns")
        columns = ["communicator", *DEVICE, "meetings", "switches"]
        assert rows_of(turns, columns) == {(*key, *sums) for key, sums in found.items()}
        assert turns["switches"].sum() > 0
    meetings = {(row["communicator"], row["name_id"], row["ordinal"]) for row in last}
    expected = Counter(communicator for communicator, _, _ in meetings)
    assert dict(trace.frame("communicator_meetings").iter_rows()) == expected


def test_why_ranks_waited_by_phase(trace: nsysmoe.Trace) -> None:
    steps = dict(trace.frame("collective_steps").select("kernel_id", "phase").iter_rows())
    ledger = trace.frame("wait_ledger")
    phases = [steps[number] for number in ledger["kernel_id"]]
    ledger = ledger.with_columns(phase=pl.Series(phases, dtype=pl.String))
    causes = ("wait", "moe", "other_kernels", "host", "other_gap", "previous_end", "residual")
    times = [f"{cause}_ns" for cause in causes]
    keys = [*DEVICE, "phase"]
    found = trace.frame("wait_causes")
    assert rows_of(found, [*keys, "collectives", *times]) == summed(ledger, keys, times)
