"""Idle time of GPUs, what the launching thread did in it, and what gpu_work and calls say.

Traces of a few rows that can be checked by eye, and random ones against ns by ns plain Python.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder, global_pid
from tests.conftest import DP2, GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Open = Callable[[TraceBuilder], nsysmoe.Trace]

MOE, NORM = "fused_moe_kernel", "rms_norm_kernel"
SYNC, WAIT = "cudaStreamSynchronize_v3020", "cuStreamSynchronize"
DECODE = "execute_context_0(0)_generation_2(2)"
PARTS = ("blocked_ns", "calling_ns", "outside_ns", "launched_ns", "unknown_ns")


@pytest.fixture
def opened(written: Callable[[TraceBuilder], Path]) -> Iterator[Open]:
    """Write a builder's trace, open it, and close it after the test."""
    with ExitStack() as traces:
        yield lambda build: traces.enter_context(nsysmoe.open(written(build)))


def gaps(trace: nsysmoe.Trace) -> list[dict[str, Any]]:
    rows = trace.frame("idle_gaps").sort("global_pid", "device_id", "start_ns").to_dicts()
    for row in rows:
        assert sum(row[part] for part in PARTS) == row["dur_ns"] == row["end_ns"] - row["start_ns"]
        assert min(row[part] for part in PARTS) >= 0
    return rows


def parts(trace: nsysmoe.Trace) -> list[tuple[int, ...]]:
    """Return start, duration and the five parts of each gap."""
    return [(row["start_ns"], row["dur_ns"], *(row[part] for part in PARTS)) for row in gaps(trace)]


def launched(
    *calls: tuple[int, int, str],
    at: tuple[int, int] = (150, 20),
    build: TraceBuilder | None = None,
    pid: int = 1000,
) -> TraceBuilder:
    """Add two kernels, 0-100 and 200-300; the second's launch (start, dur), and other calls."""
    build = build or TraceBuilder()
    for number, start in enumerate((0, 200)):
        build.kernel(MOE, start, 100, pid=pid, correlation=number)
    build.call(-20, 5, pid=pid, correlation=0).call(*at, pid=pid, correlation=1)
    for number, (start, dur, name) in enumerate(calls):
        build.call(start, dur, pid=pid, correlation=100 + number, name=name)
    return build


# --- one gap, every part of it -------------------------------------------------------------------

CASES: dict[str, tuple[tuple[tuple[int, int, str], ...], tuple[int, int], tuple[int, ...]]] = {
    # Other calls; the launch; blocked, calling, outside, launched, unknown.
    "nothing_but_the_launch": ((), (150, 20), (0, 20, 50, 30, 0)),
    "every_part": (
        ((90, 40, SYNC), (135, 5, "cudaEventRecord_v3020")),
        (150, 20),
        (30, 25, 15, 30, 0),
    ),
    "launched_before_the_gap": ((), (10, 20), (0, 0, 0, 100, 0)),
    "the_launch_ends_as_the_gap_begins": ((), (80, 20), (0, 0, 0, 100, 0)),
    "the_launch_runs_across_the_beginning": ((), (80, 50), (0, 30, 0, 70, 0)),
    "the_launch_ends_after_the_start": ((), (190, 60), (0, 10, 90, 0, 0)),
    "a_clock_that_is_off_starts_work_before_its_launch": ((), (210, 10), (0, 0, 100, 0, 0)),
    "and_a_call_before_that": (((120, 30, SYNC),), (210, 10), (30, 0, 70, 0, 0)),
    "a_call_that_lasts_the_gap": (((50, 130, SYNC),), (185, 10), (80, 10, 5, 5, 0)),
    "a_driver_call_inside_counts_once": (
        ((100, 40, SYNC), (105, 30, WAIT)),
        (150, 20),
        (40, 20, 10, 30, 0),
    ),
    "a_blocking_call_inside_another_belongs_to_it": (
        ((100, 40, "cudaFree_v3020"), (105, 30, WAIT)),
        (150, 20),
        (0, 60, 10, 30, 0),
    ),
    "two_deep_and_again_after": (
        ((100, 40, SYNC), (101, 35, "cuA"), (102, 10, "cuB"), (140, 5, "cuC")),
        (150, 20),
        (40, 25, 5, 30, 0),
    ),
    "a_blocking_call_between_launch_and_start_does_not_count": (
        ((172, 20, SYNC),),
        (150, 20),
        (0, 20, 50, 30, 0),
    ),
    "calls_long_before_do_not_count": (
        ((-500, 300, SYNC), (10, 60, SYNC)),
        (150, 20),
        (0, 20, 50, 30, 0),
    ),
}


def test_a_gap_is_split_by_what_the_launching_thread_did(opened: Open) -> None:
    """Each case is a process of its own."""
    build = TraceBuilder()
    for number, (calls, at, _) in enumerate(CASES.values()):
        launched(*calls, at=at, build=build, pid=1000 + number)
    found = parts(opened(build))
    expected = {name: (100, 100, *told) for name, (_, _, told) in CASES.items()}
    assert dict(zip(CASES, found, strict=True)) == expected


@pytest.mark.parametrize("shift", [1_790_000_000_000_000_000, -7_000_000_000])
def test_wherever_the_zero_of_time_lies(opened: Open, shift: int) -> None:
    build = TraceBuilder().kernel(MOE, shift, 100, correlation=1)
    build.kernel(NORM, shift + 200, 100, correlation=2)
    build.call(shift + 90, 40, correlation=3, name=SYNC).call(shift + 150, 20, correlation=2)
    assert parts(opened(build)) == [(shift + 100, 100, 30, 20, 20, 30, 0)]


def test_work_that_a_clock_starts_before_its_threads_first_call(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 100, correlation=1).kernel(NORM, 200, 100, correlation=2)
    build.call(210, 10, correlation=2)
    assert parts(opened(build)) == [(100, 100, 0, 0, 100, 0, 0)]


def test_other_threads_and_processes_do_not_count(opened: Open) -> None:
    build = launched()
    build.call(100, 45, correlation=50, tid=4, name=SYNC)
    build.call(100, 45, correlation=51, pid=2000, name=SYNC)
    assert parts(opened(build)) == [(100, 100, 0, 20, 50, 30, 0)]


def test_a_correlation_of_another_process_is_another_launch(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 100, correlation=1).kernel(NORM, 200, 10, correlation=2)
    build.call(150, 20, correlation=2, pid=2000)
    assert parts(opened(build)) == [(100, 100, 0, 0, 0, 0, 100)]


def test_a_driver_call_that_shares_the_launchs_correlation(opened: Open) -> None:
    """The outer one is the launch, whichever thread number nsys wrote first."""
    build = launched(at=(140, 40))
    build.call(150, 10, correlation=1, name="cuLaunchKernel")
    assert parts(opened(build)) == [(100, 100, 0, 40, 40, 20, 0)]


def test_without_api_calls_nothing_is_known(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 100).kernel(NORM, 200, 100).copy(350, 10)
    build.kernel(NORM, 400, 5)
    assert parts(opened(build)) == [
        (100, 100, 0, 0, 0, 0, 100),
        (300, 50, 0, 0, 0, 0, 50),
        (360, 40, 0, 0, 0, 0, 40),
    ]


# --- what is idle ---------------------------------------------------------------------------------


def test_a_gap_is_where_all_streams_and_copies_are_idle(opened: Open) -> None:
    """stream 7 |0---100|          |200-220|              |400|
    stream 8      |90----150|           |215---300|
    copies                     (170-180)        |290-310|
    """
    build = TraceBuilder().kernel(MOE, 0, 100).kernel(NORM, 90, 60, stream=8)
    build.copy(170, 10, stream=9).kernel(MOE, 200, 20).kernel(NORM, 215, 85, stream=8)
    build.copy(290, 20, stream=9).kernel(MOE, 400, 10)
    found = gaps(opened(build))
    assert [(row["start_ns"], row["end_ns"]) for row in found] == [
        (150, 170),
        (180, 200),
        (310, 400),
    ]
    assert [(row["class"], row["kernel_id"] is None) for row in found] == [
        ("copy", True),
        ("moe_gemm", False),
        ("moe_gemm", False),
    ]


def test_a_long_kernel_hides_later_ends_of_others(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 100).kernel(NORM, 10, 5, stream=8)
    build.kernel(NORM, 50, 5, stream=8).kernel(NORM, 130, 5, stream=8)
    assert [row[:2] for row in parts(opened(build))] == [(100, 30)]


def test_no_gap_before_the_first_or_after_the_last_kernel(opened: Open) -> None:
    build = TraceBuilder().copy(-50, 10).kernel(MOE, 0, 10).kernel(MOE, 20, 10).copy(90, 10)
    trace = opened(build)
    assert [row[:2] for row in parts(trace)] == [(10, 10)]
    assert trace.frame("device_time")["idle_ns"].sum() == 10


def test_a_copy_across_the_edges_of_the_window(opened: Open) -> None:
    build = TraceBuilder().copy(-50, 70).kernel(MOE, 0, 10).kernel(MOE, 30, 10).copy(38, 20)
    trace = opened(build)
    assert [row[:2] for row in parts(trace)] == [(20, 10)]
    assert trace.frame("device_time")["idle_ns"].sum() == 10


def test_work_without_length_parts_a_gap(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 10).kernel(NORM, 20, 0).kernel(MOE, 50, 10)
    assert [row[:2] for row in parts(opened(build))] == [(10, 10), (20, 30)]


def test_a_graphs_kernels_share_its_launch(opened: Open) -> None:
    """The launch takes 100-160; the GPU begins at 140, with gaps of its own after that."""
    build = TraceBuilder().kernel(MOE, 0, 100, correlation=1).call(-9, 5, correlation=1)
    for node, (at, dur) in enumerate(((140, 10), (155, 5), (170, 5), (175, 5))):
        build.kernel(NORM, at, dur, correlation=2, graph_node=node + 1)
    build.call(110, 55, correlation=2, name="cudaGraphLaunch_v10000")
    assert parts(opened(build)) == [
        (100, 40, 0, 30, 10, 0, 0),
        (150, 5, 0, 5, 0, 0, 0),
        (160, 10, 0, 5, 0, 5, 0),
    ]


def test_two_processes_that_both_call_their_gpu_0(opened: Open) -> None:
    build = TraceBuilder()
    for pid, late in ((1000, 0), (2000, 7)):
        build.kernel(MOE, 0, 100, pid=pid, correlation=1)
        build.kernel(MOE, 150 + late, 10, pid=pid, correlation=2)
        build.call(120 + late, 5, pid=pid, correlation=2)
    found = gaps(opened(build))
    assert [(row["process_id"], row["dur_ns"], row["outside_ns"]) for row in found] == [
        (1000, 50, 20),
        (2000, 57, 27),
    ]


def test_a_gap_belongs_to_the_step_before_it_and_its_phase(opened: Open) -> None:
    build = TraceBuilder().range(DECODE, 0, 50).range(DECODE, 50, 50)
    for number, (called, at) in enumerate(((5, 100), (10, 130), (60, 200), (70, 220))):
        build.call(called, 2, correlation=number + 1).kernel(MOE, at, 10, correlation=number + 1)
    trace = opened(build)
    found = [(row["step"], row["phase"], row["dur_ns"]) for row in gaps(trace)]
    assert found == [(0, "decode", 20), (0, "decode", 60), (1, "decode", 10)]
    time = trace.frame("device_time").sort("start_ns")
    assert time["idle_ns"].to_list() == [80, 10]


# --- gpu_work -------------------------------------------------------------------------------------


def test_gpu_work_orders_each_stream_and_says_what_was_late(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 100, 50, correlation=1).call(90, 5, correlation=1)
    # Launched long before; 10 late of a gap of 15; overlapping its predecessor; a copy, late.
    build.kernel(NORM, 160, 40, correlation=2).call(96, 5, correlation=2)
    build.kernel(MOE, 215, 35, correlation=3).call(190, 20, correlation=3)
    build.kernel(NORM, 240, 30, correlation=4).call(212, 5, correlation=4)
    build.copy(300, 10, correlation=5).call(280, 90, correlation=5, name="cudaMemcpyAsync_v3020")
    build.kernel(NORM, 100, 500, stream=8, correlation=99)
    rows = opened(build).frame("gpu_work").sort("stream_id", "place").to_dicts()
    keys = ("place", "start_ns", "previous_end_ns", "gap_ns", "busy_ns", "late_ns", "class")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (1, 100, None, 0, 50, 0, "moe_gemm"),
        (2, 160, 150, 10, 40, 0, rows[1]["class"]),
        (3, 215, 200, 15, 35, 10, "moe_gemm"),
        (4, 240, 250, 0, 20, 0, rows[1]["class"]),
        (5, 300, 270, 30, 10, 30, "copy"),
        (1, 100, None, 0, 500, 0, rows[1]["class"]),
    ]
    on_seven = [row for row in rows if row["stream_id"] == 7]
    spent = sum(row["gap_ns"] + row["busy_ns"] for row in on_seven)
    assert spent == 310 - 100
    assert rows[5]["global_tid"] is None
    assert rows[5]["call_end_ns"] is None
    assert rows[0]["global_tid"] == global_pid(1000) + 1000
    assert rows[4]["kernel_id"] is None


# --- blocking calls -------------------------------------------------------------------------------

BLOCKING = (
    "cudaStreamSynchronize",
    "cudaStreamSynchronize_v3020",
    "cudaStreamSynchronize_ptsz_v7000",
    "cudaDeviceSynchronize",
    "cudaDeviceSynchronize_v3020",
    "cudaEventSynchronize",
    "cudaEventSynchronize_v3020",
    "cuStreamSynchronize",
    "cuStreamSynchronize_ptsz",
    "cuCtxSynchronize",
    "cuEventSynchronize",
    "cudaThreadSynchronize_v3020",
    "cudaMemcpy",
    "cudaMemcpy_v3020",
    "cudaMemcpy_ptds_v7000",
    "cudaMemcpy2D_v3020",
    "cudaMemcpy3D_v3020",
    "cudaMemcpyToSymbol",
    "cudaMemcpyToSymbol_v3020",
    "cudaMemcpyFromSymbol_v3020",
    "cudaMemcpyToArray_v3020",
    "cudaMemcpy2DFromArray_v3020",
    "cuMemcpy",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpy2D_v2",
    "cuMemcpyAtoH_v2",
    "cuMemcpyDtoH_v2_ptds",
)
FREE_RUNNING = (
    "cudaMemcpyAsync",
    "cudaMemcpyAsync_v3020",
    "cudaMemcpyAsync_ptsz_v7000",
    "cudaMemcpy2DAsync_v3020",
    "cudaMemcpyToSymbolAsync_v3020",
    "cudaMemcpyPeerAsync_v4000",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyAsync",
    "cuMemcpy2DAsync_v2",
    "cudaMemset_v3020",
    "cudaMemsetAsync_v3020",
    "cudaLaunchKernel",
    "cudaLaunchKernel_v7000",
    "cuLaunchKernelEx",
    "cudaGraphLaunch_v10000",
    "cudaStreamWaitEvent",
    "cudaStreamWaitEvent_v3020",
    "cuStreamWaitEvent",
    "cudaEventQuery",
    "cudaEventQuery_v3020",
    "cudaStreamQuery_v3020",
    "cudaEventRecord_v3020",
    "my_cudaStreamSynchronize",
)


def test_which_calls_block(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 10)
    names = (*BLOCKING, *FREE_RUNNING)
    for number, name in enumerate(names):
        build.call(100 * number, 50 + number, correlation=1000 + number, name=name)
    found = opened(build).frame("blocking_calls").sort("start_ns").to_dicts()
    assert [names[row["start_ns"] // 100] for row in found] == list(BLOCKING)
    assert [row["dur_ns"] for row in found] == [50 + number for number in range(len(BLOCKING))]
    assert {row["global_pid"] for row in found} == {global_pid(1000)}
    assert {row["global_tid"] for row in found} == {global_pid(1000) + 1000}


def test_a_blocking_call_of_the_driver_inside_one_of_the_runtime_is_one(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 10).call(20, 50, correlation=5, name=SYNC)
    build.call(25, 40, correlation=6, name=WAIT).call(80, 20, correlation=7, name=WAIT)
    found = opened(build).frame("blocking_calls").sort("start_ns")
    assert found.select("start_ns", "dur_ns").rows() == [(20, 50), (80, 20)]


PAGEABLE, PINNED, DEVICE = 0, 1, 2
TO_DEVICE, TO_HOST, WITHIN = 1, 2, 8


@pytest.mark.parametrize(
    ("kinds", "ends", "is_blocking"),
    [
        ((TO_HOST, DEVICE, PAGEABLE), 90, True),
        ((TO_HOST, DEVICE, PAGEABLE), 80, True),
        # Where the driver staged it and let go, the thread waited for nothing.
        ((TO_HOST, DEVICE, PAGEABLE), 79, False),
        ((TO_HOST, DEVICE, PINNED), 90, False),
        ((TO_DEVICE, PAGEABLE, DEVICE), 90, False),
        ((WITHIN, DEVICE, DEVICE), 90, False),
        # An export that does not tell the kinds of memory.
        ((TO_HOST, None, None), 90, False),
    ],
)
def test_a_copy_to_pageable_memory_blocks_whatever_its_call_is_named(
    opened: Open, kinds: tuple[int, int | None, int | None], ends: int, is_blocking: bool
) -> None:
    name = "cudaMemcpyAsync_v3020"
    build = TraceBuilder().kernel(MOE, 0, 40).copy(50, 30, correlation=5, kinds=kinds)
    build.call(20, ends - 20, correlation=5, name=name)
    # The number is the process's own: another one asked for another copy.
    build.call(20, 90, correlation=5, name=name, pid=2000)
    found = opened(build).frame("blocking_calls")
    assert found.select("global_pid", "start_ns", "dur_ns").rows() == (
        [(global_pid(1000), 20, ends - 20)] if is_blocking else []
    )


def test_several_copies_of_one_call_are_waited_for_until_the_last(opened: Open) -> None:
    for ends in (95, 105):
        build = TraceBuilder().kernel(MOE, 0, 40)
        for start in (50, 90):
            build.copy(start, 10, correlation=5, kinds=(TO_HOST, DEVICE, PAGEABLE))
        build.call(20, ends - 20, correlation=5, name="cudaMemcpyAsync_v3020")
        assert opened(build).frame("blocking_calls").height == (ends == 105)


def test_no_calls_no_blocking_calls(opened: Open) -> None:
    assert opened(TraceBuilder().kernel(MOE, 0, 10)).frame("blocking_calls").is_empty()


# --- random traces, ns by ns ----------------------------------------------------------------------

NAMES = ("cudaLaunchKernel_v7000", SYNC, WAIT, "cudaEventRecord_v3020", "cudaMemcpyAsync_v3020")
CALL = st.tuples(
    st.integers(0, 12),
    st.integers(0, 20),
    st.sampled_from(NAMES),
    st.none() | st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from(NAMES)),
)
# Start, duration, stream, the call that launched it (None: not recorded), and whether it copies.
EVENT = st.tuples(
    st.integers(0, 120),
    st.integers(0, 15),
    st.integers(7, 8),
    st.none() | st.integers(0, 11),
    st.booleans(),
)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    processes = draw(st.integers(1, 2))
    return {
        "shift": draw(st.sampled_from([0, -(10**9), 1_790_000_000_000_000_000])),
        "ranges": draw(st.booleans()),
        "processes": [
            {
                "threads": [draw(st.lists(CALL, max_size=6)) for _ in range(2)],
                "events": draw(st.lists(EVENT, max_size=7)),
                "start": draw(st.integers(-10, 40)),
            }
            for _ in range(processes)
        ],
    }


Call = tuple[int, int, str, int]


def calls_of(process: dict[str, Any]) -> list[list[Call]]:
    """Return start, end, name and correlation of each thread's outermost calls and inner ones."""
    number = 0
    found: list[list[Call]] = []
    for thread in process["threads"]:
        at: int = process["start"]
        mine: list[Call] = []
        for rest, dur, name, inner in thread:
            at += rest
            mine.append((at, at + dur, name, number))
            if inner is not None and inner[0] < dur:
                end = min(at + inner[0] + inner[1], at + dur)
                mine.append((at + inner[0], end, inner[2], 100 + number))
            at += dur
            number += 1
        found.append(mine)
    return found


def expected(process: dict[str, Any]) -> dict[int, list[int]]:
    """Return by start of gap the five parts, ns by ns."""
    threads = calls_of(process)
    kernels = [event for event in process["events"] if not event[4]]
    first = min(event[0] for event in kernels)
    last = max(event[0] + event[1] for event in kernels)
    busy = {now for at, dur, *_ in process["events"] for now in range(at, at + dur)}
    edges = {at for at, *_ in process["events"]}
    found: dict[int, list[int]] = {}
    start = None
    for now in range(first, last):
        if now in busy:
            start = None
            continue
        if start is None or now in edges:
            start = now
            found[start] = [0] * 5
        ending = [event for event in process["events"] if event[0] > now]
        nxt = min(ending, key=lambda event: event[0])
        found[start][state(threads, nxt[3], now)] += 1
    return found


def state(threads: list[list[Call]], launch: int | None, now: int) -> int:
    for mine in threads:
        for _, end, _, number in mine:
            if launch is not None and number == launch:
                if now >= end:
                    return 3
                covering = [call for call in mine if call[0] <= now < call[1]]
                if not covering:
                    return 2
                outer = min(covering, key=lambda call: (call[0], -call[1]))
                return 0 if "Synchronize" in outer[2] else 1
    return 4


def trace_of(machine: dict[str, Any]) -> TraceBuilder:
    build, shift = TraceBuilder(), machine["shift"]
    for number, process in enumerate(machine["processes"]):
        pid = 1000 + number
        for thread, mine in enumerate(calls_of(process)):
            for start, end, name, correlation in mine:
                build.call(shift + start, end - start, pid=pid, tid=pid + thread,
                           correlation=correlation, name=name)  # fmt: skip
        if machine["ranges"]:
            build.range(DECODE, shift - 20, 50, pid=pid).range(DECODE, shift + 30, 60, pid=pid)
        for at, dur, stream, launch, is_copy in process["events"]:
            correlation = 999 if launch is None else launch
            if is_copy:
                build.copy(shift + at, dur, pid=pid, stream=stream, correlation=correlation)
            else:
                build.kernel(MOE, shift + at, dur, pid=pid, stream=stream, correlation=correlation)
    return build


@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(machines())
def test_gaps_equal_plain_python_ns_by_ns(
    tmp_path_factory: pytest.TempPathFactory, machine: dict[str, Any]
) -> None:
    for process in machine["processes"]:
        # One start each: which of two that start at once ends the gap says nothing.
        process["events"] = list({event[0]: event for event in process["events"]}.values())
    build, shift = trace_of(machine), machine["shift"]
    if not build.kernels:
        return
    path = build.write(tmp_path_factory.mktemp("g") / "t.sqlite")
    with nsysmoe.open(path) as trace:
        rows = gaps(trace)
        time = trace.frame("device_time")
        work = trace.frame("gpu_work")
    for number, process in enumerate(machine["processes"]):
        if all(event[4] for event in process["events"]):
            continue
        mine = [row for row in rows if row["process_id"] == 1000 + number]
        found = {row["start_ns"] - shift: [row[part] for part in PARTS] for row in mine}
        assert found == expected(process)
        theirs = time.filter(time["process_id"] == 1000 + number)
        for step, idle in theirs.select("step", "idle_ns").rows():
            assert sum(row["dur_ns"] for row in mine if row["step"] == step) == idle
    assert len(work) == len(build.kernels) + len(build.copies)
    assert (work["late_ns"] <= work["gap_ns"]).all()
    spent = work.group_by("global_pid", "device_id", "stream_id").agg(
        (pl.col("end_ns").max() - pl.col("start_ns").min()).alias("span"),
        (pl.col("gap_ns") + pl.col("busy_ns")).sum().alias("spent"),
    )
    assert spent["span"].to_list() == spent["spent"].to_list()


@pytest.mark.parametrize("export", [DP2 / "eplb_on.sqlite", GRAPHS / "eplb_on.sqlite"])
def test_what_is_summed_and_what_is_silent_are_of_the_idle_gaps(export: Path) -> None:
    with nsysmoe.open(export) as trace:
        gaps, host = trace.frame("idle_gaps"), trace.frame("host_gaps")
        sums, silent = trace.frame("idle_causes"), trace.frame("silent_gaps")
    names = ["dur_ns", "blocked_ns", "calling_ns", "outside_ns", "launched_ns", "unknown_ns"]
    key = ["global_pid", "process_id", "device_id", "phase"]
    told = gaps.group_by(key).agg(pl.len().cast(pl.Int64).alias("gaps"), pl.col(names).sum())
    assert sums.sort(key).equals(told.select(sums.columns).sort(key))
    met = gaps.filter(
        pl.struct("global_pid", "device_id", "start_ns", "end_ns").map_elements(
            lambda gap: (
                host.filter(
                    (pl.col("global_pid") == gap["global_pid"])
                    & (pl.col("device_id") == gap["device_id"])
                    & (pl.col("start_ns") < gap["end_ns"])
                    & (pl.col("end_ns") > gap["start_ns"])
                ).height
                > 0
            ),
            return_dtype=pl.Boolean,
        )
    )
    place = ["device_id", "start_ns", "end_ns"]
    assert set(met.select(place).iter_rows()) <= set(silent.select(place).iter_rows())
    assert set(silent.select(place).iter_rows()) <= set(gaps.select(place).iter_rows())
    assert silent.height < gaps.height
