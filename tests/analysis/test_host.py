"""Host anatomy: every moment of a launching thread in one part, overheads counted once."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.one_trace.host import host
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.metrics.kernel_time.host import latency_change
from tests.cli.test_cli import run

Write = Callable[[TraceBuilder], Path]
PARTS = ("launching_ns", "calling_ns", "blocked_ns", "outside_ns")


def decoding(
    build: TraceBuilder, starts: list[int], *, pid: int = 1000, device: int = 0, launch: int = 10
) -> TraceBuilder:
    """Add a decode step at each start: a range of 900, one launch 10 later, its kernel of 50."""
    for start in starts:
        number = len(build.kernels) + 1
        build.range("execute_context_0(0)_generation_4(4)", start, 900, pid=pid)
        build.call(start + 10, launch, pid=pid, correlation=number)
        build.kernel("fused_moe_kernel", start + 10 + launch, 50, device=device, pid=pid)
    return build


def host_steps(path: Path) -> list[dict[str, Any]]:
    with nsysmoe.open(path) as trace:
        return trace.frame("host_steps").sort("device_id", "start_ns").to_dicts()


def test_a_threads_time_is_cut_at_launches_and_split_by_what_it_calls(written: Write) -> None:
    """Step 0 lasts from its launch at 10 to that of step 1 at 1010:

    launch 10-20 | memcpy async 100-130 | synchronize 200-500 | outside the rest
    """
    build = decoding(TraceBuilder(), [0, 1000, 2000])
    build.call(100, 30, correlation=901, name="cudaMemcpyAsync_v3020")
    build.call(200, 300, correlation=902, name="cudaStreamSynchronize_v3020")
    # The driver's call inside the runtime's, and another thread: neither counts again.
    build.call(110, 10, correlation=903, name="cuMemcpyHtoDAsync_v2")
    build.call(600, 300, correlation=904, name="cudaEventSynchronize_v3020", tid=77)
    first, second, last = host_steps(written(build))
    assert (first["step"], first["phase"], first["start_ns"], first["end_ns"]) == (
        0, "decode", 10, 1010,
    )  # fmt: skip
    assert [first[part] for part in PARTS] == [10, 30, 300, 660]
    assert (first["calls"], first["launches"], first["graph_launches"]) == (3, 1, 0)
    assert [second[part] for part in PARTS] == [10, 0, 0, 990]
    # Nothing is launched after the last step's launch: there its thread's time ends.
    assert (last["start_ns"], last["end_ns"]) == (2010, 2020)


def test_a_copy_to_pageable_memory_is_time_of_waiting(written: Write) -> None:
    """EPLB's loads come to the host so: a call named Async, which returns after the copy."""
    build = decoding(TraceBuilder(), [0, 1000])
    build.call(100, 30, correlation=901, name="cudaMemcpyAsync_v3020")
    build.copy(140, 20, correlation=901, kinds=(2, 2, 1))
    build.call(200, 300, correlation=902, name="cudaMemcpyAsync_v3020")
    build.copy(470, 20, correlation=902, kinds=(2, 2, 0))
    first, _ = host_steps(written(build))
    assert [first[part] for part in PARTS] == [10, 30, 300, 660]


def test_a_graph_launch_is_no_kernel_launch(written: Write) -> None:
    build = decoding(TraceBuilder(), [0, 1000])
    build.call(300, 200, correlation=500, name="cudaGraphLaunch_v10000")
    build.kernel("fused_moe_kernel", 600, 5, correlation=500, graph_node=1)
    build.kernel("fused_moe_kernel", 610, 5, correlation=500, graph_node=2)
    first, _ = host_steps(written(build))
    assert (first["launches"], first["graph_launches"], first["launching_ns"]) == (1, 1, 210)


def test_a_launch_inside_another_call_is_cut_outside_it(written: Write) -> None:
    build = decoding(TraceBuilder(), [0, 1000])
    build.call(990, 40, correlation=700, name="cudaLaunchKernelExC_v11060")
    first, second = host_steps(written(build))
    assert (first["end_ns"], second["start_ns"]) == (990, 990)
    assert second["launching_ns"] == 30
    assert sum(second[part] for part in PARTS) == second["wall_ns"] == 30


NAMES = st.sampled_from(
    ["cudaLaunchKernel_v7000", "cudaGraphLaunch_v10000", "cudaEventQuery_v3020",
     "cudaStreamSynchronize_v3020", "cudaMemcpyAsync_v3020", "cuMemcpyDtoH_v2"]
)  # fmt: skip
BLOCKING = {"cudaStreamSynchronize_v3020", "cuMemcpyDtoH_v2"}
LAUNCHING = {"cudaLaunchKernel_v7000", "cudaGraphLaunch_v10000"}
CALLS = st.lists(st.tuples(st.integers(21, 2900), st.integers(0, 400), NAMES), max_size=12)


@settings(max_examples=8)
@given(st.lists(CALLS, min_size=1, max_size=6))
def test_parts_agree_with_every_moment_looked_at(
    tmp_path_factory: pytest.TempPathFactory, ranks: list[list[tuple[int, int, str]]]
) -> None:
    """Of several calls that hold a moment, the one that began first has it; on every rank."""
    build = TraceBuilder()
    for rank, calls in enumerate(ranks):
        decoding(build, [0, 1000, 2000, 3000], pid=1000 + rank, device=rank)
        for number, (start, dur, name) in enumerate(calls):
            build.call(start, dur, pid=1000 + rank, correlation=800 + number, name=name)
    path = build.write(tmp_path_factory.mktemp("host") / "trace.sqlite")
    steps = host_steps(path)
    for rank, calls in enumerate(ranks):
        _check_parts([step for step in steps if step["device_id"] == rank], calls)


def _check_parts(steps: list[dict[str, Any]], calls: list[tuple[int, int, str]]) -> None:
    clear = [(start + 10, 10, "cudaLaunchKernel_v7000") for start in (0, 1000, 2000, 3000)]
    every = sorted([*clear, *calls], key=lambda call: (call[0], -call[1]))
    outer: list[tuple[int, int, str]] = []
    reach = 0
    for start, dur, name in every:
        if start >= reach:
            outer.append((start, start + dur, name))
        reach = max(reach, start + dur)
    assert len(steps) == 4
    assert [step["end_ns"] for step in steps[:-1]] == [step["start_ns"] for step in steps[1:]]
    for step in steps:
        assert sum(step[part] for part in PARTS) == step["wall_ns"]
        here = [call for call in outer if step["start_ns"] <= call[0] < step["end_ns"]]
        until = step["end_ns"]
        launching = sum(min(end, until) - start for start, end, name in here if name in LAUNCHING)
        blocked = sum(min(end, until) - start for start, end, name in here if name in BLOCKING)
        assert step["outside_ns"] >= 0
        assert (step["launching_ns"], step["blocked_ns"]) == (launching, blocked)
        assert step["calls"] == len(here)


def test_launches_by_function_add_up_to_all_of_them(written: Write) -> None:
    build = decoding(TraceBuilder(), [0, 1000, 2000, 3000])
    for number, dur in enumerate((20, 30, 70)):
        build.call(100 + number * 100, dur, correlation=600 + number, name="cuLaunchKernelEx")
    build.call(700, 5, correlation=699, name="cudaLaunchHostFunc_v10000")
    rows = {row["call"]: row for row in host(written(build)).calls}
    assert set(rows) == {"cudaLaunchKernel", "cuLaunchKernelEx", None}
    assert (rows["cuLaunchKernelEx"]["calls"], rows["cuLaunchKernelEx"]["median_ns"]) == (3, 30)
    assert rows["cuLaunchKernelEx"]["mean_ns"] == 40
    assert rows["cuLaunchKernelEx"]["per_step"] == 0.75
    known = [rows[name] for name in ("cudaLaunchKernel", "cuLaunchKernelEx")]
    # The last step ends with its launch, which is in it.
    assert rows[None]["calls"] == sum(row["calls"] for row in known) == 7
    assert rows[None]["total_ns"] == sum(row["total_ns"] for row in known)
    assert rows[None]["median_ns"] == statistics.median([10, 10, 10, 10, 20, 30, 70])


def test_a_step_in_which_code_was_compiled_is_left_out(written: Write) -> None:
    build = decoding(TraceBuilder(), [0, 1000, 2000, 3000, 9000, 10000])
    (rank,) = host(written(build)).ranks
    assert (rank["steps"], rank["slow_steps"]) == (6, 1)
    assert rank["wall_ns"] == 1000
    assert sum(rank[part] for part in ("launching", "calling", "blocked", "outside")) == (
        pytest.approx(1)
    )


def test_the_slower_rank_is_named_with_how_much(written: Write) -> None:
    build = decoding(TraceBuilder(), [0, 1000, 2000, 3000])
    decoding(build, [0, 2000, 4000, 6000], pid=2000, device=1, launch=40)
    outside, launching = host(written(build)).asymmetry
    assert (outside["part"], outside["device_id"], outside["ranks"]) == ("outside", 1, 2)
    # Three steps of 2000 and one of 40; three of 1000 and one of 10: medians hold the long ones.
    assert (outside["slower_ns"], outside["faster_ns"]) == (1960, 990)
    assert outside["by_ns"] == 970
    assert outside["ratio"] == pytest.approx(1960 / 990)
    assert (launching["part"], launching["device_id"], launching["ratio"]) == ("launching", 1, 4)


@pytest.mark.parametrize("version", ["3.20.3", "3.24.14"])
def test_overheads_nest_and_are_clipped_to_the_window(written: Write, version: str) -> None:
    """Kernels from 20 to 2070; an outer overhead 1000-1400 holds 1100-1200; one ends after."""
    build = decoding(TraceBuilder(version), [0, 1000, 2000])
    build.overhead("CUDA profiling memory allocation", 1000, 400)
    build.overhead("TLS allocation", 1100, 100)
    build.overhead("CUPTI Buffer flush", 2000, 1000, pid=3000)
    rows = {row["kind"]: row for row in host(written(build)).overheads}
    told = {
        kind: (row["total_ns"], row["added_ns"], row["in_window_ns"], row["on_launching_ns"])
        for kind, row in rows.items()
    }
    assert told == {
        "CUDA profiling memory allocation": (400, 400, 400, 400),
        "TLS allocation": (100, 0, 0, 0),
        "CUPTI Buffer flush": (1000, 1000, 70, 0),
    }
    assert {row["origin"] for row in rows.values()} == {"profiler"}


def test_what_cuda_itself_does_is_not_the_profilers(written: Write) -> None:
    build = decoding(TraceBuilder("3.24.0"), [0, 1000])
    build.overhead("Lazy Function Loading", 100, 50, kind=7, of_cupti=True)
    build.overhead("Buffer flush", 120, 50, kind=3)
    path = written(build)
    told = {row["origin"]: row["added_ns"] for row in host(path).overheads}
    assert told == {"cuda": 50, "profiler": 50}
    assert "CUDA's own overhead on launching threads" in run("host", path).output


SPANS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 40)), min_size=1, max_size=10)


@settings(max_examples=8)
@given(st.lists(SPANS, min_size=1, max_size=8))
def test_overheads_add_up_to_the_moments_they_hold(
    tmp_path_factory: pytest.TempPathFactory, threads: list[list[tuple[int, int]]]
) -> None:
    """Of each thread for itself; several in a trace, since writing and reading one takes long."""
    build = decoding(TraceBuilder(), [0])
    for number, spans in enumerate(threads):
        for start, dur in spans:
            build.overhead(f"of {number}", start, dur, pid=1000 + number)
    path = build.write(tmp_path_factory.mktemp("overhead") / "trace.sqlite")
    rows = {row["kind"]: row for row in host(path).overheads}
    assert len(rows) == len(threads)
    for number, spans in enumerate(threads):
        moments = {moment for start, dur in spans for moment in range(start, start + dur)}
        row = rows[f"of {number}"]
        assert row["added_ns"] == len(moments)
        # The one kernel runs from 20 to 70.
        assert row["in_window_ns"] == len(moments & set(range(20, 70)))


def test_before_the_first_step_time_belongs_to_none(written: Write) -> None:
    build = TraceBuilder()
    build.call(5, 5, correlation=1).kernel("memset_kernel", 10, 5)
    decoding(build, [1000, 2000])
    steps = host_steps(written(build))
    assert [(step["step"], step["start_ns"]) for step in steps] == [(None, 5), (0, 1010), (1, 2010)]


def test_without_calls_there_is_no_anatomy(small: Path) -> None:
    with pytest.raises(MissingDataError, match="which thread launched"):
        host(small)


# --- latencies ------------------------------------------------------------------------------


def run_json(path: Path, *rounds: list[float | None]) -> Path:
    runs = [{"requests": [{"tpot_s": t, "ttft_s": 0.1} for t in seconds]} for seconds in rounds]
    path.write_text(json.dumps({"runs": runs}))
    return path


def test_a_run_json_of_several_rounds_is_its_own_control(written: Write, tmp_path: Path) -> None:
    path = written(decoding(TraceBuilder(), [0, 1000]))
    rounds = run_json(tmp_path / "run.json", [0.009], [0.004, 0.005, 0.006], [0.006, None, 0.007])
    latency = host(path, run_json=rounds).latency
    assert latency is not None
    assert latency["tpot"] == {
        "profiled_s": pytest.approx(0.0065),
        "control_s": 0.005,
        "profiled_requests": 2,
        "control_requests": 3,
        "change": pytest.approx(0.3),
        "control_rounds": 2,
        "control_spread": pytest.approx(0.8),
    }
    shown = run("host", path, "--run-json", rounds).output
    assert "so this is no evidence of a cost" in shown
    assert "TTFT was 100.00 ms against 100.00 (0.0%" in shown.replace("0.0%;", "0.0%")


def test_a_control_of_its_own_counts_by_its_last_round(written: Write, tmp_path: Path) -> None:
    path = written(decoding(TraceBuilder(), [0, 1000]))
    profiled = run_json(tmp_path / "profiled.json", [0.006])
    control = run_json(tmp_path / "control.json", [0.005])
    with pytest.raises(MissingDataError, match="one round"):
        host(path, run_json=profiled)
    latency = host(path, run_json=profiled, control=control).latency
    assert latency is not None
    assert latency["tpot"] is not None
    assert latency["tpot"]["change"] == pytest.approx(0.2)
    assert latency["tpot"]["control_spread"] is None
    assert run("host", path, "--control", control).exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "no list of runs"),
        ('{"runs": []}', "no list of runs"),
        ('{"runs": [{}]}', "without a list of requests"),
        ('{"runs": [{"requests": [{"tpot_s": "fast"}]}]}', "no time in seconds"),
        ('{"runs": [{"requests": [{"tpot_s": -1}]}]}', "no time in seconds"),
        (f'{{"runs": [{{"requests": [{{"tpot_s": {10**400}}}]}}]}}', "no time in seconds"),
        ('{"runs": [{"requests": [{"tpot_s": NaN}]}]}', "no time in seconds"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_run_json_is_said(small: Path, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        host(small, run_json=file)


def test_requests_of_one_token_tell_no_tpot() -> None:
    assert latency_change([], [[0.1]]) is None
    assert latency_change([0.1], [[0.1], []]) is None
