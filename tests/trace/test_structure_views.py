"""The views of structure: products, layers, steps, phases, meetings, and time of GPUs.

Traces of a few rows that can be checked by eye, and random ones against ns by ns plain Python.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder, global_pid
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Open = Callable[[TraceBuilder], nsysmoe.Trace]
    Rows = list[dict[str, Any]]

MOE, REDUCE = "fused_moe_kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
EMBED, ROUTE, SORT, ACT = (
    "vectorized_gather_kernel",
    "topkGating",
    "moe_align_block_size_kernel",
    "act_and_mul_kernel",
)
LAYER = ((ROUTE, None), (SORT, None), (MOE, "w13"), (ACT, None), (MOE, "w2"))
DECODE, PREFILL = "execute_context_0(0)_generation_2(2)", "execute_context_2(64)_generation_0(0)"
MS = 1_000_000


@pytest.fixture
def opened(written: Callable[[TraceBuilder], Path]) -> Iterator[Open]:
    """Write a builder's trace, open it, and close it after the test."""
    with ExitStack() as traces:
        yield lambda build: traces.enter_context(nsysmoe.open(written(build)))


def rows(trace: nsysmoe.Trace, view: str, *order: str) -> Rows:
    return trace.frame(view).sort(order).to_dicts()


def column(trace: nsysmoe.Trace, view: str, name: str, *order: str) -> list[Any]:
    return [row[name] for row in rows(trace, view, *order)]


# --- products, layers and steps -----------------------------------------------------------------


def forward_passes(
    build: TraceBuilder, layers: int, *, steps: int = 5, skip: int = 0, device: int = 0
) -> list[tuple[str, int, int]]:
    """Add an embedding and layers, step by step, from the kernel ``skip`` on.

    Returns:
        Product, step and layer of each MoE kernel that the capture still holds.
    """
    kernels: list[tuple[str, str | None, int, int]] = []
    for step in range(steps):
        kernels.append((EMBED, None, step, 0))
        kernels += [(name, gemm, step, layer) for layer in range(layers) for name, gemm in LAYER]
    for number, (name, _, _, _) in enumerate(kernels[skip:]):
        build.kernel(name, 10 * number, 5, device=device, pid=1000 + device)
    return [(gemm, step, layer) for _, gemm, step, layer in kernels[skip:] if gemm]


def places(trace: nsysmoe.Trace, device: int = 0) -> list[tuple[Any, ...]]:
    return [
        (row["gemm"], row["step"], row["layer"])
        for row in rows(trace, "moe_launches", "ordinal")
        if row["device_id"] == device
    ]


# A step is an embedding and 4 layers of 5 kernels; 6 is where its second layer begins.
BEGINNINGS = {
    "whole": 0,
    "after_the_embedding": 1,
    "at_the_second_layer": 6,
    "between_routing_and_the_first_product": 8,
    "in_the_last_layer": 16,
}


@pytest.mark.parametrize("skip", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_products_steps_and_layers_without_ranges_wherever_the_capture_begins(
    opened: Open, skip: int
) -> None:
    build = TraceBuilder()
    truth = forward_passes(build, 4, skip=skip)
    trace = opened(build)
    assert places(trace) == truth
    launches = rows(trace, "moe_launches", "ordinal")
    assert [row["pass"] for row in launches] == [row["step"] for row in launches]
    assert {row["layer_source"] for row in launches} == {"order"}


def test_a_capture_that_begins_between_two_products_counts_steps_and_layers_right(
    opened: Open,
) -> None:
    build = TraceBuilder()
    truth = forward_passes(build, 4, skip=9)
    found = places(opened(build))
    assert [place[1:] for place in found] == [place[1:] for place in truth]
    assert found[1:] == truth[1:]


def test_a_capture_that_begins_between_two_products_begins_with_w2(opened: Open) -> None:
    build = TraceBuilder()
    truth = forward_passes(build, 4, skip=9)
    assert truth[0][0] == "w2"
    assert places(opened(build)) == truth


def test_products_by_order_where_nothing_routes(opened: Open) -> None:
    build = TraceBuilder()
    for number in range(4):
        build.kernel(MOE, 10 * number, 5).kernel(ACT, 10 * number + 6, 2)
    trace = opened(build)
    assert column(trace, "moe_launches", "gemm", "ordinal") == ["w13", "w2", "w13", "w2"]
    for name in ("step", "pass", "phase", "layer", "layer_source"):
        assert set(column(trace, "moe_launches", name, "ordinal")) == {None}


def test_ranks_that_agree_count_alike_wherever_each_begins(opened: Open) -> None:
    build = TraceBuilder()
    truth = [forward_passes(build, 4, skip=6 * device, device=device) for device in (0, 1)]
    trace = opened(build)
    assert [places(trace, device) for device in (0, 1)] == truth


def test_ranks_that_disagree_give_no_period(opened: Open) -> None:
    build = TraceBuilder()
    for device, layers in ((0, 4), (1, 2)):
        forward_passes(build, layers, device=device)
    trace = opened(build)
    launches = rows(trace, "moe_launches", "rank", "ordinal")
    assert {row["gemm"] for row in launches} == {"w13", "w2"}
    for name in ("step", "pass", "layer", "layer_source"):
        assert {row[name] for row in launches} == {None}


def test_a_kernel_that_recurs_irregularly_gives_no_period(opened: Open) -> None:
    build = TraceBuilder()
    at = 0
    for layers in (2, 4, 2, 4, 2):
        for name in (EMBED, *[name for name, _ in LAYER] * layers):
            build.kernel(name, at := at + 10, 5)
    assert set(column(opened(build), "moe_launches", "step", "ordinal")) == {None}


def test_a_kernel_that_recurs_within_one_layer_gives_no_period(opened: Open) -> None:
    build = TraceBuilder()
    for number, name in enumerate((*[EMBED] * 3, *[name for name, _ in LAYER] * 6)):
        build.kernel(name, 10 * number, 5)
    assert set(column(opened(build), "moe_launches", "step", "ordinal")) == {None}


def test_a_step_that_launched_a_w2_alone_tells_no_layers(opened: Open) -> None:
    build = TraceBuilder().range(DECODE, 0, 10).range(DECODE, 10, 10)
    for number, called in enumerate((1, 2, 3, 11)):
        build.call(called, 1, correlation=number).kernel(MOE, 100 * number, 5, correlation=number)
    trace = opened(build)
    assert column(trace, "moe_launches", "layer", "ordinal") == [None] * 4
    assert column(trace, "moe_launches", "step", "ordinal") == [0, 0, 0, 1]


def test_layers_from_nvtx_ranges_of_modules_inside_one_another(opened: Open) -> None:
    build = TraceBuilder()
    build.range("model.layers.3", 0, 100).range("model.layers.3.mlp", 20, 40)
    build.range("layer_12", 100, 100).range("model.layernorm", 130, 40)
    build.range("Layers.7", 300, 10)
    # Inside the module, after it, in the next layer, in its other range, outside, in the last.
    for number, at in enumerate((30, 80, 110, 150, 250, 305)):
        build.call(at, 1, correlation=number).kernel(MOE, 1000 + 10 * number, 5, correlation=number)
    trace = opened(build)
    assert column(trace, "moe_launches", "layer", "ordinal") == [3, 3, 12, 12, None, 7]
    assert column(trace, "moe_launches", "layer_source", "ordinal") == [
        "nvtx", "nvtx", "nvtx", "nvtx", None, "nvtx"
    ]  # fmt: skip


def test_a_range_inside_a_layers_that_names_another_number_is_not_the_layer(opened: Open) -> None:
    build = TraceBuilder().range("layer_3", 0, 100).range("mlp.layers.0", 20, 40)
    for number, at in enumerate((10, 30, 80)):
        build.call(at, 1, correlation=number).kernel(MOE, 1000 + 10 * number, 5, correlation=number)
    assert column(opened(build), "moe_launches", "layer", "ordinal") == [3, 3, 3]


# --- phases --------------------------------------------------------------------------------------


def sized(build: TraceBuilder, *blocks: int) -> TraceBuilder:
    """Add a layer of two products for each size of grid."""
    for number, size in enumerate(blocks):
        for product in range(2):
            build.kernel(MOE, 100 * number + 10 * product, 5, grid=(size, 1, 1))
    return build


def test_phases_by_grid_size_where_two_sizes_lie_far_apart(opened: Open) -> None:
    trace = opened(sized(TraceBuilder(), 1000, 8, 8, 10, 1200, 8))
    told = ["prefill", "decode", "decode", "decode", "prefill", "decode"]
    assert column(trace, "moe_launches", "phase", "ordinal") == [p for p in told for _ in "12"]
    assert set(column(trace, "moe_launches", "phase_source", "ordinal")) == {"grid"}


def test_both_products_of_a_layer_are_of_the_phase_of_the_first(opened: Open) -> None:
    build = TraceBuilder()
    for number, (first, second) in enumerate(((1000, 4), (8, 900), (8, 4))):
        build.kernel(MOE, 100 * number, 5, grid=(first, 1, 1))
        build.kernel(MOE, 100 * number + 10, 5, grid=(1, second, 1))
    told = ["prefill", "prefill", "decode", "decode", "decode", "decode"]
    assert column(opened(build), "moe_launches", "phase", "ordinal") == told


@pytest.mark.parametrize("blocks", [(8, 8, 8), (100, 150, 100, 190)])
def test_one_size_of_grid_is_no_phase(opened: Open, blocks: tuple[int, ...]) -> None:
    trace = opened(sized(TraceBuilder(), *blocks))
    for name in ("phase", "phase_source"):
        assert set(column(trace, "moe_launches", name, "ordinal")) == {None}


def test_grid_sizes_tell_nothing_beside_ranges(opened: Open) -> None:
    build = sized(TraceBuilder(), 1000, 8)
    build.range(DECODE, 0, 50).call(10, 1, correlation=1)
    trace = opened(build)
    found = [(row["phase"], row["phase_source"]) for row in rows(trace, "moe_launches", "ordinal")]
    assert found == [("decode", "nvtx"), *[(None, None)] * 3]


def four_passes(has_requests: Callable[[int, int], bool], from_elsewhere: int = 4) -> TraceBuilder:
    """Two ranks make four passes of two layers; those with requests lie in a range.

    Those from ``from_elsewhere`` on are launched by another thread of the process.
    """
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        for number in range(4):
            if has_requests(device, number):
                build.range(DECODE, 100 * number, 90, pid=pid)
            for place, name in enumerate((EMBED, MOE, MOE, MOE, MOE)):
                at = 100 * number + 10 * place
                correlation = 10 * number + place
                build.kernel(name, at, 5, device=device, pid=pid, correlation=correlation)
                tid = pid + 7 if number >= from_elsewhere else pid
                build.call(at + 1, 1, pid=pid, tid=tid, correlation=correlation)
    return build


def test_a_pass_outside_any_range_is_counted_and_cut_off(opened: Open) -> None:
    """Rank 1 has no request in the third of four passes, and keeps step with rank 0."""
    trace = opened(four_passes(lambda device, number: (device, number) != (1, 2)))
    launches = [row for row in rows(trace, "moe_launches", "ordinal") if row["rank"] == 1]
    by_pass = {(row["pass"], row["step"], row["phase"]) for row in launches}
    assert by_pass == {(0, 0, "decode"), (1, 1, "decode"), (2, None, "dummy"), (3, 2, "decode")}
    assert [row["layer"] for row in launches] == [0, 0, 1, 1] * 4
    cuts = {
        device: [
            (row["step"], row["phase"], row["start_ns"], row["end_ns"])
            for row in rows(trace, "device_steps", "start_ns")
            if row["device_id"] == device
        ]
        for device in (0, 1)
    }
    assert cuts[0] == [
        (0, "decode", 0, 100), (1, "decode", 100, 200), (2, "decode", 200, 300),
        (3, "decode", 300, 345),
    ]  # fmt: skip
    # The first MoE kernel opens a pass that no range does: the embedding before it counts before.
    assert cuts[1] == [
        (0, "decode", 0, 100), (1, "decode", 100, 210), (None, "dummy", 210, 300),
        (2, "decode", 300, 345),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ranged", "phases"),
    [
        # A capture that began in a step's middle, or ended there, says the same of one pass.
        ((1, 2), [None, "decode", "decode", None]),
        ((0, 1), ["decode", "decode", "dummy", "dummy"]),
        ((0, 3), ["decode", "dummy", "dummy", "decode"]),
        ((2, 3), [None, "dummy", "decode", "decode"]),
    ],
)
def test_passes_outside_ranges_are_dummies_unless_the_capture_may_have_cut_a_range(
    opened: Open, ranged: tuple[int, ...], phases: list[str | None]
) -> None:
    """Two ranks after or between their last requests make passes of the model all the same."""
    trace = opened(four_passes(lambda _, number: number in ranged))
    launches = [row for row in rows(trace, "moe_launches", "ordinal") if row["rank"] == 0]
    assert [row["phase"] for row in launches] == [phase for phase in phases for _ in range(4)]
    sources = {None: None, "decode": "nvtx", "dummy": "pass"}
    assert all(row["phase_source"] == sources[row["phase"]] for row in launches)
    cells = rows(trace, "moe_cell_places", "cell")
    assert [row["phase"] for row in cells] == [phase for phase in phases for _ in range(4)]


def test_passes_that_another_thread_launches_are_not_taken_for_dummies(opened: Open) -> None:
    """The third step has its range, and its launches are among those outside."""
    trace = opened(four_passes(lambda _, number: number < 3, from_elsewhere=2))
    launches = rows(trace, "moe_launches", "ordinal")
    assert {(row["pass"], row["phase"]) for row in launches} == {
        (0, "decode"), (1, "decode"), (2, None), (3, None),
    }  # fmt: skip


def test_a_cell_of_a_dummy_and_an_unknown_rank_is_unknown(opened: Open) -> None:
    """Rank 0 makes two passes after its last range; rank 1 one, which may be a cut step."""
    build = four_passes(lambda device, number: number < (2 if device == 0 else 3))
    cells = rows(opened(build), "moe_cell_places", "cell")
    phases = [row["phase"] for row in cells]
    assert phases == ["decode"] * 12 + [None] * 4


def test_collectives_of_dummy_passes_are_theirs(opened: Open) -> None:
    """Each pass ends with a collective; of the last two no range holds the call."""
    build = four_passes(lambda _, number: number < 2)
    for device, pid in ((0, 1000), (1, 2000)):
        for number in range(4):
            at, correlation = 100 * number + 50, 10 * number + 9
            build.kernel(REDUCE, at, 5, device=device, pid=pid, correlation=correlation)
            build.call(at, 1, pid=pid, correlation=correlation)
    trace = opened(build)
    found = [(row["step"], row["phase"]) for row in rows(trace, "collective_steps", "kernel_id")]
    assert found == [(0, "decode"), (1, "decode"), (None, "dummy"), (None, "dummy")] * 2


def test_a_cell_is_of_the_phase_of_the_ranks_that_have_requests(opened: Open) -> None:
    """Of the third pass rank 0 knows a decode step and rank 1 no request."""
    build = four_passes(lambda device, number: (device, number) != (1, 2))
    cells = rows(opened(build), "moe_cell_places", "cell")
    assert {row["phase"] for row in cells} == {"decode"}


# --- collectives ---------------------------------------------------------------------------------


def meet(
    build: TraceBuilder,
    arrivals: dict[int, int],
    end: int,
    *,
    name: str = REDUCE,
    clock: Callable[[int, int], int] = lambda _, at: at,
) -> None:
    """Add one collective: when each device arrives, and when it ends for all."""
    for device, at in arrivals.items():
        start, stop = clock(device, at), clock(device, end)
        build.kernel(name, start, stop - start, device=device, pid=1000 + device)


def met(trace: nsysmoe.Trace) -> list[tuple[Any, ...]]:
    """Return what a meeting was, without the times that a shifted clock changes."""
    names = ("device_id", "ordinal", "communicator", "ranks", "is_matched", "wait_ns",
             "transfer_ns", "is_last", "margin_ns")  # fmt: skip
    found = rows(trace, "matched_collectives", "device_id", "name_id", "ordinal")
    return [tuple(row[name] for name in names) for row in found]


def test_margins_waits_and_transfer_of_three_ranks(opened: Open) -> None:
    build = TraceBuilder()
    meet(build, {0: 0, 1: 100, 2: 30}, 150)
    assert met(opened(build)) == [
        (0, 0, 0, 3, True, 100, 50, False, 70),
        (1, 0, 0, 3, True, 0, 50, True, 70),
        (2, 0, 0, 3, True, 70, 50, False, 70),
    ]


def test_two_that_arrive_at_once_are_both_last_by_no_margin(opened: Open) -> None:
    build = TraceBuilder()
    meet(build, {0: 0, 1: 0}, 10)
    assert [row[-2:] for row in met(opened(build))] == [(True, 0), (True, 0)]


def test_two_groups_of_two_ranks_meet_within_themselves(opened: Open) -> None:
    build = TraceBuilder()
    for number in range(5):
        meet(build, {0: 1000 * number, 1: 1000 * number + 40}, 1000 * number + 100)
        meet(build, {2: 1000 * number + 520, 3: 1000 * number + 500}, 1000 * number + 600)
    found = met(opened(build))
    assert {row[:1] + row[2:] for row in found} == {
        (0, 0, 2, True, 40, 60, False, 40),
        (1, 0, 2, True, 0, 60, True, 40),
        (2, 1, 2, True, 0, 80, True, 20),
        (3, 1, 2, True, 20, 80, False, 20),
    }
    assert len(found) == 20


def test_names_that_ranks_launch_unequally_often_are_refused_and_others_are_not(
    opened: Open,
) -> None:
    build = TraceBuilder()
    meet(build, {0: 0, 1: 10}, 20)
    for at in (100, 200):
        meet(build, {0: at, 1: at + 5}, at + 10, name="ncclDevKernel_AllGather_RING_LL(x)")
    meet(build, {0: 300}, 310)
    found = rows(opened(build), "matched_collectives", "start_ns")
    refused = [row for row in found if row["collective"] == "all_reduce"]
    assert len(refused) == 3
    for name in ("wait_ns", "transfer_ns", "communicator", "ranks", "is_last", "margin_ns"):
        assert {row[name] for row in refused} == {None}
    assert not any(row["is_matched"] for row in refused)
    assert [row["wait_ns"] for row in found if row["is_matched"]] == [5, 0, 5, 0]


def by_clock(
    clock: Callable[[int, int], int], *, meetings: int = 24, pause: int = MS
) -> TraceBuilder:
    """Two ranks that meet often; rank 1 comes 0 to 8 us after rank 0, both leave at 50 us."""
    build = TraceBuilder()
    for number in range(meetings):
        at = number * pause
        meet(build, {0: at, 1: at + number % 5 * 2000}, at + 50_000, clock=clock)
    return build


def test_a_clock_that_is_off_is_fitted_and_waits_come_out_as_without(opened: Open) -> None:
    straight = by_clock(lambda _, at: at)
    trace = opened(by_clock(lambda device, at: at + device * 5 * MS))
    assert met(trace) == met(opened(straight))
    here, there = rows(trace, "clocks", "rank")
    assert (here["offset_ns"], here["is_applied"]) == (0, False)
    assert there["meetings"] == 24
    assert there["offset_ns"] == pytest.approx(5 * MS)
    assert there["drift_ppm"] == pytest.approx(0, abs=1e-3)
    assert there["residual_ns"] == pytest.approx(0, abs=1)
    assert there["is_applied"]


def drifting(offset: int) -> Callable[[int, int], int]:
    """Return a clock that is off by so much at 0 and 100 ns more each ms."""
    return lambda device, at: at + device * (offset + at // 10_000)


def test_a_clock_that_drifts_is_followed(opened: Open) -> None:
    trace = opened(by_clock(drifting(5 * MS), pause=100 * MS))
    (_, there) = rows(trace, "clocks", "rank")
    assert there["drift_ppm"] == pytest.approx(100, abs=0.1)
    assert there["is_applied"]
    straight = met(opened(by_clock(lambda _, at: at, pause=100 * MS)))
    for row, wanted in zip(met(trace), straight, strict=True):
        assert row[:5] == wanted[:5]
        assert row[5:7] == pytest.approx(wanted[5:7], abs=600)


def test_drift_does_not_count_the_offset_itself(opened: Open) -> None:
    trace = opened(by_clock(drifting(1000 * MS), pause=100 * MS))
    found = rows(trace, "matched_collectives", "start_ns")
    assert all(row["is_matched"] for row in found)
    assert all(row["wait_ns"] <= 8_000 + 10 for row in found)


def test_drift_counts_from_the_meeting_that_the_fit_counts_from(opened: Open) -> None:
    build = by_clock(drifting(5 * MS), pause=10 * MS)
    meet(build, {0: -20_000 * MS}, -20_000 * MS + 5, name="ncclDevKernel_Broadcast_RING_LL(x)")
    trace = opened(build)
    found = rows(trace, "matched_collectives", "start_ns")
    reduced = [row for row in found if row["collective"] == "all_reduce"]
    assert all(row["is_matched"] for row in reduced)
    assert all(row["wait_ns"] <= 8_000 + 10 for row in reduced)


def test_ten_us_are_no_clock(opened: Open) -> None:
    trace = opened(by_clock(lambda device, at: at + device * 10_000))
    (_, there) = rows(trace, "clocks", "rank")
    assert there["offset_ns"] == pytest.approx(10_000)
    assert not there["is_applied"]
    assert [row[5] for row in met(trace)[:5]] == [10_000, 12_000, 14_000, 16_000, 18_000]


def test_few_meetings_are_no_clock(opened: Open) -> None:
    trace = opened(by_clock(lambda device, at: at + device * 5 * MS, meetings=19))
    assert column(trace, "clocks", "is_applied", "rank") == [False, False]
    assert {row[4] for row in met(trace)} == {False}


@pytest.mark.parametrize("apart", [20_000, 30_000])
def test_ends_that_scatter_as_widely_as_they_are_apart_are_no_clock(
    opened: Open, apart: int
) -> None:
    build = TraceBuilder()
    for number in range(24):
        meet(build, {0: number * MS}, number * MS + 50_000)
        # The other rank ends up to eight times as much later.
        meet(build, {1: number * MS}, number * MS + 50_000 + number % 9 * apart)
    (_, *others) = rows(opened(build), "clocks", "rank")
    assert len(others) == (apart <= 25_000), "from meeting to meeting it may move by 25 us"
    for there in others:
        assert there["offset_ns"] > 25_000
        assert not there["is_applied"]


def test_a_group_that_runs_behind_another_is_no_clock(opened: Open) -> None:
    build = TraceBuilder()
    for number in range(24):
        at, behind = 10 * MS * number, MS + number % 5 * 100_000
        meet(build, {0: at, 1: at + 2000}, at + 50_000)
        meet(build, {2: at + behind, 3: at + behind + 2000}, at + behind + 50_000)
    trace = opened(build)
    assert not any(column(trace, "clocks", "is_applied", "rank"))
    assert {(row[0], row[2], row[3]) for row in met(trace)} == {
        (0, 0, 2), (1, 0, 2), (2, 1, 2), (3, 1, 2)
    }  # fmt: skip


# --- time of GPUs --------------------------------------------------------------------------------

SPENT = ("window_ns", "busy_ns", "idle_ns", "compute_ns", "moe_ns", "transfer_ns", "wait_ns",
         "overlap_ns", "exposed_transfer_ns", "exposed_wait_ns", "exposed_unmatched_ns",
         "exposed_copy_ns")  # fmt: skip
EXPOSED = tuple(name for name in SPENT if name.startswith("exposed"))


def spent(row: dict[str, Any]) -> dict[str, int]:
    """Return what is not 0, having checked that the parts add up."""
    assert row["busy_ns"] + row["idle_ns"] == row["window_ns"]
    assert row["compute_ns"] + sum(row[name] for name in EXPOSED) == row["busy_ns"]
    return {name: row[name] for name in SPENT if row[name]}


def test_what_a_gpu_did_with_its_time(opened: Open) -> None:
    build = TraceBuilder()
    build.kernel("k", 0, 10)
    build.kernel(MOE, 20, 20)
    # Rank 0 waits from 30, the first 10 ns beside the experts, and transfers from 60 to 80 ...
    meet(build, {0: 30, 1: 60}, 80)
    # ... the last 10 of them beside another kernel.
    build.kernel("k", 70, 20, stream=8)
    build.copy(85, 15)
    build.kernel("ncclDevKernel_Broadcast_RING_LL(x)", 110, 10)
    build.kernel("k", 120, 10).kernel("k", 125, 10, stream=8)
    mine, theirs = rows(opened(build), "device_time", "device_id")
    assert spent(mine) == {
        "window_ns": 135, "busy_ns": 115, "idle_ns": 20, "compute_ns": 65, "moe_ns": 20,
        "transfer_ns": 20, "wait_ns": 30, "overlap_ns": 20, "exposed_transfer_ns": 10,
        "exposed_wait_ns": 20, "exposed_unmatched_ns": 10, "exposed_copy_ns": 10,
    }  # fmt: skip
    assert spent(theirs) == {
        "window_ns": 20, "busy_ns": 20, "transfer_ns": 20, "exposed_transfer_ns": 20
    }  # fmt: skip


@pytest.mark.parametrize("copies", [1022, 1023, 1100, 2048])
def test_more_at_once_than_can_be_counted_is_refused(opened: Open, copies: int) -> None:
    builder = TraceBuilder().kernel("fused_moe_kernel", 0, 10_000)
    for number in range(copies):
        builder.copy(100 + number, 5_000, stream=number)
    trace = opened(builder)
    if copies > 1022:
        with pytest.raises(InputError, match="overlap on one GPU; export again"):
            trace.frame("device_time")
        return
    (row,) = trace.rows("device_time")
    assert row["moe_ns"] == 10_000


def test_a_wait_that_compute_hides_costs_nothing(opened: Open) -> None:
    build = TraceBuilder().kernel("k", 0, 60, stream=8)
    meet(build, {0: 10, 1: 50}, 70)
    mine = rows(opened(build), "device_time", "device_id")[0]
    assert spent(mine) == {
        "window_ns": 70, "busy_ns": 70, "compute_ns": 60, "transfer_ns": 20, "wait_ns": 40,
        "overlap_ns": 50, "exposed_transfer_ns": 10,
    }  # fmt: skip


def test_the_tail_of_a_rank_that_ends_later_is_transfer(opened: Open) -> None:
    build = TraceBuilder()
    meet(build, {0: 0}, 90)
    meet(build, {1: 40}, 50)
    trace = opened(build)
    mine, theirs = (spent(row) for row in rows(trace, "device_time", "device_id"))
    assert (mine["wait_ns"], mine["transfer_ns"]) == (40, 50)
    assert theirs["transfer_ns"] == 10
    assert [row[6] for row in met(trace)] == [10, 10]


def test_copies_count_within_the_window_of_kernels_alone(opened: Open) -> None:
    build = TraceBuilder().kernel("k", 0, 10).kernel("k", 50, 10)
    build.copy(-20, 25).copy(30, 5).copy(40, 5).copy(55, 100).copy(0, 9, device=5)
    (only,) = rows(opened(build), "device_time", "device_id")
    assert spent(only) == {
        "window_ns": 60, "busy_ns": 30, "idle_ns": 30, "compute_ns": 20, "exposed_copy_ns": 10
    }  # fmt: skip


def test_a_kernel_across_a_steps_edge_counts_on_both_sides(opened: Open) -> None:
    build = TraceBuilder().range(PREFILL, 0, 10).range(DECODE, 10, 10)
    build.kernel("k", -10, 5)
    kernels = ((0, 20, 7, 1), (40, 30, 8, 2), (50, 10, 7, 11), (90, 10, 7, 12))
    for number, (at, dur, stream, called) in enumerate(kernels):
        build.kernel("k", at, dur, stream=stream, correlation=100 + number)
        build.call(called, 1, correlation=100 + number)
    found = rows(opened(build), "device_time", "start_ns")
    assert [(row["step"], row["phase"], row["start_ns"]) for row in found] == [
        (None, None, -10), (0, "prefill", 0), (1, "decode", 50)
    ]  # fmt: skip
    assert [spent(row) for row in found] == [
        {"window_ns": 10, "busy_ns": 5, "idle_ns": 5, "compute_ns": 5},
        {"window_ns": 50, "busy_ns": 30, "idle_ns": 20, "compute_ns": 30},
        {"window_ns": 50, "busy_ns": 30, "idle_ns": 20, "compute_ns": 30},
    ]


def test_a_last_kernel_without_length_still_ends_the_window(opened: Open) -> None:
    trace = opened(TraceBuilder().kernel("k", 0, 10).kernel("k", 20, 0))
    assert column(trace, "device_steps", "wall_ns", "start_ns") == [20]
    (only,) = rows(trace, "device_time", "start_ns")
    assert spent(only) == {"window_ns": 20, "busy_ns": 10, "idle_ns": 10, "compute_ns": 10}


def test_the_timeline_parts_a_matched_collective_into_wait_and_transfer(opened: Open) -> None:
    build = TraceBuilder().kernel(MOE, 0, 5).kernel("k", 5, 5).copy(7, 3)
    meet(build, {0: 30, 1: 60}, 80)
    build.kernel("ncclDevKernel_Broadcast_RING_LL(x)", 110, 10)
    trace = opened(build)
    found = [
        (row["kind"], row["device_id"], row["start_ns"], row["end_ns"], row["dur_ns"])
        for row in rows(trace, "timeline", "start_ns", "device_id")
    ]
    assert found == [
        ("moe", 0, 0, 5, 5), ("compute", 0, 5, 10, 5), ("copy", 0, 7, 10, 3),
        ("wait", 0, 30, 60, 30), ("transfer", 0, 60, 80, 20), ("transfer", 1, 60, 80, 20),
        ("unmatched", 0, 110, 120, 10),
    ]  # fmt: skip


# --- what EPLB does, and what compiles -----------------------------------------------------------


def bursts(*starts: int, layers: int = 3, eplb: bool = True) -> TraceBuilder:
    """Layers that move, 3 ms apart; each takes 1 ms, and rank 1 comes 0.2 ms late."""
    build = TraceBuilder()
    if eplb:
        build.kernel("_eplb_map_and_record_i32_kernel", 0, 5)
    for start in starts:
        for layer in range(layers):
            at = start + 3 * MS * layer
            arrivals = {0: at, 1: at + MS // 5}
            meet(build, arrivals, at + MS, name="ncclDevKernel_SendRecv(x)")
    return build


def test_two_bursts_a_second_apart_are_two_rearrangements(opened: Open) -> None:
    first, second = rows(opened(bursts(MS, 1001 * MS)), "rearrangements", "rearrangement")
    assert first == {
        "rearrangement": 0, "ranks": 2, "transfers": 3, "total_ns": 3 * MS + 3 * MS * 4 // 5,
        "moving_ns": 3 * MS * 4 // 5, "start_ns": MS, "end_ns": 8 * MS,
    }  # fmt: skip
    shifted = {"rearrangement": 1, "start_ns": 1001 * MS, "end_ns": 1008 * MS}
    assert second == {**first, **shifted}


def test_two_bursts_of_one_layer_a_second_apart_are_two_rearrangements(opened: Open) -> None:
    trace = opened(bursts(MS, 1001 * MS, layers=1))
    assert column(trace, "rearrangements", "transfers", "rearrangement") == [1, 1]


def test_one_transfer_is_one_rearrangement(opened: Open) -> None:
    trace = opened(bursts(MS, layers=1))
    assert column(trace, "rearrangements", "transfers", "rearrangement") == [1]


def test_sends_without_eplbs_kernels_move_no_experts(opened: Open) -> None:
    assert rows(opened(bursts(MS, eplb=False)), "rearrangements") == []


def test_eplbs_kernels_without_sends_moved_no_experts(opened: Open) -> None:
    assert rows(opened(bursts()), "rearrangements") == []


def test_calls_that_load_code_are_found_and_no_others(opened: Open) -> None:
    build = TraceBuilder().kernel("k", 0, 5)
    for number, name in enumerate(("cuModuleLoadData", "cudaLaunchKernel_v7000",
                                   "cuLibraryLoadData", "cuModuleGetFunction",
                                   "cudaLibraryLoadData", "cuLinkComplete")):  # fmt: skip
        build.call(10 * number, 7, pid=2000, correlation=number, name=name)
    found = rows(opened(build), "code_loads", "start_ns")
    assert [(row["call"], row["start_ns"], row["dur_ns"]) for row in found] == [
        ("cuModuleLoadData", 0, 7), ("cuLibraryLoadData", 20, 7), ("cudaLibraryLoadData", 40, 7),
        ("cuLinkComplete", 50, 7),
    ]  # fmt: skip
    assert {row["global_pid"] for row in found} == {global_pid(2000)}


# --- random traces against plain Python, ns by ns ------------------------------------------------

SLOT = 20
STRETCH = st.tuples(st.integers(0, 59), st.integers(1, 25))


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    """One to three devices, one to three slots of time; a meeting lies within its slot."""
    devices, is_ranged = draw(st.integers(1, 3)), draw(st.booleans())
    arrivals = st.lists(st.tuples(st.integers(0, 9), st.integers(10, 19)),
                        min_size=devices, max_size=devices)  # fmt: skip
    return {
        "devices": [
            {
                "moe": draw(st.lists(STRETCH, max_size=4)),
                "compute": draw(st.lists(STRETCH, max_size=4)),
                "copy": draw(st.lists(st.tuples(st.integers(-9, 80), st.integers(1, 25)),
                                      max_size=2)),
                "unmatched": draw(st.lists(STRETCH, max_size=1)),
            }
            for _ in range(devices)
        ],
        "meetings": draw(st.lists(st.none() | arrivals, max_size=3)),
        "is_ranged": is_ranged,
        "has_pids": draw(st.booleans()),
        "shift": draw(st.sampled_from([0, -(10**9), 1_795_302_237_418_429_892])),
        "order": draw(st.permutations(range(devices))),
    }  # fmt: skip


def stretches_of(machine: dict[str, Any], device: int) -> list[tuple[str, int, int]]:
    """Return kind, start and end of all that a device does, by what the machine was told to do."""
    own = machine["devices"][device]
    found = [(kind, at, at + dur) for kind, events in own.items() for at, dur in events]
    for slot, meeting in enumerate(machine["meetings"]):
        if meeting is None:
            continue
        start, end = (SLOT * slot + edge for edge in meeting[device])
        if len(meeting) == 1:
            found.append(("unmatched", start, end))
            continue
        last = SLOT * slot + max(arrival for arrival, _ in meeting)
        found += [("wait", start, last), ("transfer", last, end)]
    return found


def kernels_of(machine: dict[str, Any], device: int) -> list[tuple[str, int, int]]:
    """Return name, start and end of the kernels that a device runs."""
    names = {"moe": MOE, "compute": "k", "unmatched": f"ncclDevKernel_Broadcast_{device}(x)"}
    own = machine["devices"][device]
    found = [(name, at, at + dur) for kind, name in names.items() for at, dur in own[kind]]
    for slot, meeting in enumerate(machine["meetings"]):
        if meeting is not None:
            start, end = meeting[device]
            found.append((REDUCE, SLOT * slot + start, SLOT * slot + end))
    return found


def expected_rows(machine: dict[str, Any], device: int) -> Rows:
    """Return a device's rows of device_time, ns by ns."""
    kernels = kernels_of(machine, device)
    if not kernels:
        return []
    first, last = min(at for _, at, _ in kernels), max(end for _, _, end in kernels)
    cuts: dict[int, int | None] = {first: None}
    if machine["is_ranged"] and machine["has_pids"]:
        for _, at, _ in sorted(kernels, key=lambda kernel: -kernel[1]):
            if (slot := at // SLOT) > 0:
                cuts = {edge: step for edge, step in cuts.items() if step != slot - 1}
                cuts[at] = slot - 1
    edges = [*sorted(cuts), last]
    running: dict[int, set[str]] = {}
    for kind, start, end in stretches_of(machine, device):
        for now in range(start, end):
            running.setdefault(now, set()).add(kind)
    rules: dict[str, Callable[[set[str]], bool]] = {
        "window_ns": lambda _: True,
        "busy_ns": bool,
        "idle_ns": lambda on: not on,
        "compute_ns": lambda on: bool(on & {"moe", "compute"}),
        "moe_ns": lambda on: "moe" in on,
        "transfer_ns": lambda on: "transfer" in on,
        "wait_ns": lambda on: "wait" in on,
        "overlap_ns": lambda on: bool(
            on & {"moe", "compute"} and on & {"wait", "transfer", "unmatched"}
        ),
        "exposed_transfer_ns": lambda on: "transfer" in on and not on & {"moe", "compute"},
        "exposed_wait_ns": lambda on: "wait" in on and not on & {"moe", "compute", "transfer"},
        "exposed_unmatched_ns": lambda on: "unmatched" in on and on <= {"unmatched", "copy"},
        "exposed_copy_ns": lambda on: on == {"copy"},
    }
    return [
        {
            "step": cuts[start],
            "phase": None if cuts[start] is None else "decode",
            "start_ns": start + machine["shift"],
            **{
                name: sum(rule(running.get(now, set())) for now in range(start, end))
                for name, rule in rules.items()
            },
        }
        for start, end in pairwise(edges)
    ]


def trace_of(machine: dict[str, Any]) -> TraceBuilder:
    build, shift = TraceBuilder(), machine["shift"]
    for device in range(len(machine["devices"])):
        ordinal = machine["order"][device]
        pid = 1000 + ordinal if machine["has_pids"] else None
        if machine["is_ranged"] and pid:
            for slot in (1, 2, 3, 4):
                build.range(DECODE, shift + SLOT * slot, SLOT, pid=pid)
        for name, start, end in kernels_of(machine, device):
            number = len(build.kernels) + 1
            build.kernel(
                name, shift + start, end - start, device=ordinal, pid=pid, correlation=number
            )
            if machine["is_ranged"] and pid and start >= SLOT:
                build.call(shift + start, 1, pid=pid, correlation=number)
        for at, dur in machine["devices"][device]["copy"]:
            build.copy(shift + at, dur, device=ordinal, pid=pid)
    return build


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(machines())
def test_time_of_gpus_equals_plain_python_ns_by_ns(
    tmp_path_factory: pytest.TempPathFactory, machine: dict[str, Any]
) -> None:
    """Whatever the zero of time, the numbers of ranks, and with or without process ids."""
    build = trace_of(machine)
    if not build.kernels:
        return
    path = build.write(tmp_path_factory.mktemp("t") / "t.sqlite")
    with nsysmoe.open(path) as trace:
        time, steps = trace.frame("device_time"), trace.frame("device_steps")
        lines = trace.frame("timeline")
    names = ("step", "phase", "start_ns", *SPENT)
    for device in range(len(machine["devices"])):
        ordinal = machine["order"][device]
        expected = expected_rows(machine, device)
        found = time.filter(time["device_id"] == ordinal).sort("start_ns").to_dicts()
        assert [{name: row[name] for name in names} for row in found] == expected
        pid = 1000 + ordinal if machine["has_pids"] else None
        assert {row["process_id"] for row in found} <= {pid}
        assert {row["global_pid"] for row in found} <= {pid and global_pid(pid)}
        cut = steps.filter(steps["device_id"] == ordinal).sort("start_ns")
        assert cut["start_ns"].to_list() == [row["start_ns"] for row in expected]
        assert cut["wall_ns"].to_list() == [row["window_ns"] for row in expected]
        assert cut["start_ns"].to_list()[1:] == cut["end_ns"].to_list()[:-1]
        drawn = sorted(
            end - start for _, start, end in stretches_of(machine, device) if end > start
        )
        assert sorted(lines.filter(lines["device_id"] == ordinal)["dur_ns"].to_list()) == drawn


@pytest.mark.parametrize("is_swapped", [False, True])
def test_steps_that_begin_at_one_instant_have_an_order(opened: Open, is_swapped: bool) -> None:
    """Whatever order rows are stored in, the earlier step is the one that holds no time."""
    builder = TraceBuilder()
    for step in (1, 0) if is_swapped else (0, 1):
        builder.range(f"execute_context_0(0)_generation_{step + 1}({step + 1})", 100 * step, 90)
        builder.call(100 * step + 10, 5, correlation=step + 1)
        builder.kernel("k", 500, 10 + step, stream=7 + step, correlation=step + 1)
    trace = opened(builder)
    found = trace.frame("device_steps").sort("step")
    assert found.select("step", "start_ns", "wall_ns").rows() == [(0, 500, 0), (1, 500, 11)]
    assert trace.frame("device_time")["step"].to_list() == [1]
