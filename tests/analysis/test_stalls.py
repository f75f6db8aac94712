"""Stalls: each kind visible in a trace made by hand, and no moment counted twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.one_trace.stalls import Stalls, stalls
from nsysmoe.analysis.reading.run import read_run
from nsysmoe.metrics.kernel_time.spans import Spans
from tests.cli.test_cli import run

Write = Callable[[TraceBuilder], Path]
MS = 1_000_000
STEP = 10 * MS
DECODE = "execute_context_0(0)_generation_4(4)"


class Serving:
    """A rank that decodes in steps of 10 ms: 8 ms of MoE, launched at the start of the step."""

    def __init__(self, build: TraceBuilder, pid: int = 1000, device: int = 0) -> None:
        self.build, self.pid, self.device, self.now = build, pid, device, 0

    def step(self, *, before: int = 0, work: int = 8 * MS) -> int:
        """Add a step whose launch comes ``before`` later; return when its launch starts."""
        start, self.now = self.now, self.now + before + STEP
        launched = start + before + 10_000
        self.build.range(DECODE, start, self.now - start, pid=self.pid)
        number = len(self.build.kernels) + 1
        self.call(launched, 10_000, correlation=number)
        self.build.kernel(
            "fused_moe_kernel", launched + 10_000, work, device=self.device, pid=self.pid
        )
        return launched

    def call(self, start: int, dur: int, name: str = "cudaLaunchKernel_v7000", **more: Any) -> None:
        more.setdefault("correlation", 900_000 + len(self.build.calls))
        self.build.call(start, dur, pid=self.pid, name=name, **more)


def usual(count: int = 6) -> Serving:
    serving = Serving(TraceBuilder())
    for _ in range(count):
        serving.step()
    return serving


def kinds(found: Stalls) -> list[str]:
    return [row["kind"] for row in found.rows]


def test_a_steady_run_has_no_stall(written: Write) -> None:
    found = stalls(written(usual().build))
    assert not found
    assert (found.lost_ns, found.steps) == (0, 6)
    assert found.has_calls is True


def test_a_compiled_kernel_costs_the_time_in_which_the_gpu_was_idle(written: Write) -> None:
    """The load ends 100 ms after the launch before it, of which the GPU worked 8 ms."""
    serving = usual()
    loaded = serving.now - STEP + 20_000 + 100 * MS
    serving.call(loaded - MS, MS, "cuModuleLoadData")
    serving.now += 100 * MS - STEP
    serving.step(before=STEP)
    serving.step()
    found = stalls(written(serving.build))
    slow, load = found.rows
    assert (slow["kind"], slow["cause"], slow["call"]) == (
        "slow_step", "code_load", "cuModuleLoadData",
    )  # fmt: skip
    assert (load["kind"], load["call"], load["dur_ns"]) == (
        "code_load",
        "cuModuleLoadData",
        100 * MS,
    )
    assert load["lost_ns"] == 100 * MS - 8 * MS
    # The step's own excess holds what the load took of it: once in the sum.
    assert found.kinds["code_load"]["lost_ns"] == load["lost_ns"]
    assert found.lost_ns == slow["lost_ns"]


def test_a_load_behind_gpu_work_costs_nothing(written: Write) -> None:
    serving = usual()
    launched = serving.step()
    serving.call(launched + 3 * MS, MS, "cuLibraryLoadData")
    serving.step()
    (load,) = stalls(written(serving.build)).rows
    assert (load["kind"], load["lost_ns"], load["dur_ns"]) == ("code_load", 0, 4 * MS - 10_000)


def test_first_uses_after_a_load_belong_to_it(written: Write) -> None:
    serving = usual()
    launched = serving.step()
    at = launched + 3 * MS
    serving.call(at, 1000, "cuLibraryLoadData")
    serving.call(at + 2000, 1000, "cuLibraryGetKernel")
    serving.call(at + 4000, MS, "cuKernelSetAttribute")
    serving.step()
    (load,) = stalls(written(serving.build)).rows
    assert load["end_ns"] == at + 4000 + MS
    with nsysmoe.open(written(serving.build)) as trace:
        (gap,) = trace.frame("host_gaps").filter(kind="code_load").to_dicts()
    assert (gap["loads"], gap["call_ns"]) == (1, 2000 + MS)


@pytest.mark.parametrize(("dur", "expected"), [(MS - 1, []), (MS, ["code_load"])])
def test_a_first_use_alone_counts_where_it_is_slow(
    written: Write, dur: int, expected: list[str]
) -> None:
    serving = usual()
    launched = serving.step()
    serving.call(launched + 3 * MS, dur, "cuKernelSetAttribute")
    serving.step()
    found = stalls(written(serving.build))
    assert kinds(found) == expected
    assert [row["dur_ns"] for row in found.rows] == [dur] * len(expected)


def test_a_load_inside_a_launch_is_seen_and_the_time_before_it_is_not(written: Write) -> None:
    serving = usual()
    launched = serving.step()
    serving.call(launched + 3 * MS, 2 * MS, "cudaLaunchKernel_v7000")
    serving.call(launched + 4 * MS, MS // 2, "cuLibraryLoadData")
    serving.step()
    (load,) = stalls(written(serving.build)).rows
    assert (load["start_ns"], load["dur_ns"]) == (launched + 4 * MS, MS // 2)


def test_a_silence_is_idle_time_beyond_the_usual_pause(written: Write) -> None:
    serving = usual()
    serving.step(before=12 * MS)
    serving.step()
    (silence,) = stalls(written(serving.build)).rows
    assert (silence["kind"], silence["call"]) == ("silence", "cudaLaunchKernel")
    # From the end of the GPU's work to the launch that ends the silence.
    assert silence["usual_ns"] == 2 * MS - 10_000
    assert silence["lost_ns"] == 14 * MS - 10_000
    assert silence["in_step"] is False


def test_a_pause_is_no_silence_while_the_gpu_works_or_as_long_as_usual(written: Write) -> None:
    busy = usual()
    busy.step(work=38 * MS)
    busy.now += 30 * MS
    busy.step()
    assert "silence" not in kinds(stalls(written(busy.build)))
    idle = Serving(TraceBuilder())
    for _ in range(6):
        idle.step(before=20 * MS)
    assert kinds(stalls(written(idle.build))) == []


def test_another_threads_pauses_are_not_the_launching_threads(written: Write) -> None:
    serving = usual()
    for at in (5, 45):
        serving.call(at * MS, 1000, "cudaEventSynchronize_v3020", tid=77)
    assert not stalls(written(serving.build))


def test_a_slow_step_without_a_cause_says_so(written: Write) -> None:
    serving = usual()
    serving.step(work=70 * MS)
    serving.now += 62 * MS
    serving.step()
    (slow,) = stalls(written(serving.build)).rows
    assert (slow["kind"], slow["cause"]) == ("slow_step", None)
    assert slow["lost_ns"] == slow["dur_ns"] - slow["usual_ns"]


def test_one_step_of_two_ranks_is_one_stall_and_its_moments_count_once(written: Write) -> None:
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        serving = Serving(build, pid, device)
        for _ in range(6):
            serving.step()
        serving.call(serving.now - STEP + 90 * MS + device * 5 * MS, MS, "cuModuleLoadData")
        serving.now += 90 * MS
        serving.step()
        serving.step()
    found = stalls(written(build))
    assert sorted(kinds(found)) == ["code_load", "code_load", "slow_step"]
    slow = next(row for row in found.rows if row["kind"] == "slow_step")
    assert slow["devices"] == 2
    longest = max(row["lost_ns"] for row in found.rows if row["kind"] == "code_load")
    assert found.kinds["code_load"]["lost_ns"] == longest


def test_a_rearrangement_is_the_cause_of_its_step(written: Write) -> None:
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        serving = Serving(build, pid, device)
        for number in range(7):
            build.kernel("_eplb_map_and_record_i32_kernel", serving.now + 9 * MS, 1000,
                         device=device, pid=pid)  # fmt: skip
            serving.step()
            if number == 4:
                build.kernel("ncclDevKernel_SendRecv(x)", serving.now - MS // 2, 50 * MS,
                             device=device, pid=pid)  # fmt: skip
                serving.now += 50 * MS
    found = stalls(written(build))
    assert sorted(kinds(found)) == ["rearrangement", "slow_step"]
    slow = next(row for row in found.rows if row["kind"] == "slow_step")
    assert slow["cause"] == "rearrangement"
    assert found.kinds["rearrangement"]["lost_ns"] == 50 * MS


def test_without_calls_loads_and_silences_are_unknown(small: Path) -> None:
    found = stalls(small)
    assert not found.has_calls
    result = run("stalls", small)
    assert "cannot be seen" in result.output


def test_the_command_leads_with_the_answer_and_has_every_format(written: Write) -> None:
    serving = usual()
    serving.step(before=40 * MS)
    serving.step()
    path = written(serving.build)
    shown = run("stalls", path)
    assert shown.exit_code == 0
    assert shown.output.startswith("Stalls took ")
    data = json.loads(run("stalls", path, "--format", "json").output)
    assert data["lost_ns"] == sum(kind["lost_ns"] for kind in data["kinds"].values())
    table = run("stalls", path, "--by", "kind", "--format", "csv").output
    assert table.splitlines()[0].startswith("kind,stalls,hidden,lost_ns")


INTERVALS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))),
    max_size=12,
)


@given(INTERVALS, INTERVALS, st.integers(-5, 65), st.integers(0, 70))
def test_spans_are_sets_of_moments(
    first: list[tuple[int, int]], second: list[tuple[int, int]], start: int, length: int
) -> None:
    def moments(pairs: list[tuple[int, int]]) -> set[int]:
        return {moment for begun, ended in pairs for moment in range(begun, ended)}

    spans = [Spans.of(*zip(*pairs, strict=True)) if pairs else Spans.of([], [])
             for pairs in (first, second)]  # fmt: skip
    both = Spans.union(spans)
    assert both.length == len(moments([*first, *second]))
    inside = both.clipped(start, start + length)
    assert inside.length == len(moments([*first, *second]) & set(range(start, start + length)))
    assert (np.diff(both.starts) > 0).all()
    assert (both.starts[1:] > both.ends[:-1]).all()


def test_compare_knows_silences_that_stretch_a_step_less_than_threefold(written: Write) -> None:
    serving = usual(10)
    serving.step(before=12 * MS)
    serving.step()
    distorted = read_run(written(serving.build), with_schedule=True).distorted_steps
    assert distorted is not None
    (step,) = distorted.to_dicts()
    assert (step["cause"], step["step"], step["wall_ns"]) == ("silence", 9, 22 * MS)


def test_compare_knows_slow_first_uses(written: Write) -> None:
    serving = usual(10)
    launched = serving.step()
    serving.call(launched + 9 * MS, 8 * MS, "cuKernelSetAttribute")
    serving.now += 8 * MS
    serving.step()
    distorted = read_run(written(serving.build), with_schedule=True).distorted_steps
    assert distorted is not None
    assert distorted.select("cause", "step").rows() == [("code_load", 10)]
