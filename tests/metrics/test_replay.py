"""Replays: of traces by hand where cause and answer are known, against a simulator, and at random.

The simulator (`simulator.py`) is the truth: what a machine would have done under other costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import nsysmoe
from nsysmoe.metrics.replay import Host, Model, Scenario, Work, host_of, replay, walk, work_of
from nsysmoe.metrics.replay.model import NONE, STALL_NS
from tests.metrics.simulator import CALL, Costs, Launch, Simulation, Sync, Think, Thread, Until

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

US, MS = 1_000, 1_000_000
REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
Event = tuple[int, int]


def ints(values: Any) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(-1)


def trace(
    work: list[Event],
    calls: list[Event | None] | None = None,
    blocks: list[Event] | None = None,
    *,
    stream: list[int] | None = None,
    device: list[int] | None = None,
    meeting: list[int] | None = None,
    call_thread: list[int] | None = None,
    block_thread: list[int] | None = None,
) -> Model:
    """Build a model of (start, end) by start, of the call of each, and of synchronising calls.

    Threads and processes are numbered as devices unless told otherwise.
    """
    count = len(work)
    called = [call for call in calls or [] if call is not None]
    distinct = sorted(set(called))
    number = [NONE if call is None else distinct.index(call) for call in calls or [None] * count]
    streams, devices = stream or [0] * count, device or [0] * count
    is_late: list[bool] = []
    ends: dict[int, int] = {}
    for place, (start, end) in enumerate(work):
        before = ends.get(streams[place])
        call = None if number[place] == NONE else distinct[number[place]]
        late = call is not None and (before is None or min(call[1], start) > before)
        is_late.append(late)
        ends[streams[place]] = max(end, before if before is not None else end)
    owner = [
        next((devices[place] for place in range(count) if number[place] == one), 0)
        for one in range(len(distinct))
    ]
    waits = blocks or []
    return Model(
        Work(
            start=ints([start for start, _ in work]),
            end=ints([end for _, end in work]),
            stream=ints(streams),
            device=ints(devices),
            process=ints(devices),
            call=ints(number),
            is_late=np.array(is_late, dtype=bool),
            meeting=ints(meeting or [NONE] * count),
        ),
        Host(
            call_start=ints([start for start, _ in distinct]),
            call_end=ints([end for _, end in distinct]),
            call_thread=ints(call_thread or owner),
            call_process=ints(owner),
            block_start=ints([start for start, _ in waits]),
            block_end=ints([end for _, end in waits]),
            block_thread=ints(block_thread or [0] * len(waits)),
            block_process=ints([0] * len(waits)),
        ),
    )


def scaled(model: Model, factors: dict[int, float] | float) -> Floats:
    found: Floats = model.duration.copy()
    if isinstance(factors, float):
        found *= factors
        return found
    for number, factor in factors.items():
        found[number] *= factor
    return found


def rows(times: tuple[Floats, Floats]) -> list[tuple[float, float]]:
    return [(float(start), float(end)) for start, end in zip(*times, strict=True)]


def as_traced(model: Model) -> list[tuple[float, float]]:
    return rows((model.work.start.astype(float), model.work.end.astype(float)))


# --- by hand --------------------------------------------------------------------------------------


def test_back_to_back_work_moves_up_by_what_is_saved() -> None:
    model = trace(
        [(10_000, 20_000), (21_000, 41_000), (42_000, 52_000)],
        [(5_000, 7_000), (7_000, 9_000), (9_000, 11_000)],
    )
    assert rows(replay(model)) == as_traced(model)
    found = replay(model, Scenario(scaled(model, {1: 0.5})))
    assert rows(found) == [(10_000, 20_000), (21_000, 31_000), (32_000, 42_000)]
    # Without the host nothing changes: it was never late.
    assert rows(replay(model, Scenario(model.duration, has_host=False))) == as_traced(model)


def test_a_host_that_was_ahead_bounds_what_is_saved() -> None:
    """The last is launched 30 us in: work cannot start before its launch, however short."""
    model = trace(
        [(10_000, 40_000), (41_000, 42_000), (43_000, 44_000)],
        [(6_500, 9_000), (9_000, 11_500), (30_000, 32_500)],
    )
    found = rows(replay(model, Scenario(scaled(model, {0: 0.1}))))
    assert found[1] == (14_000, 15_000)
    assert found[2] == (33_500, 34_500)


def test_without_host_delay_late_launches_close_up() -> None:
    """Each gap of 1 us is the GPU's own; those of 98 and 50 us are the host's."""
    model = trace(
        [(10_000, 20_000), (21_000, 31_000), (129_000, 139_000), (189_000, 199_000)],
        [(5_000, 8_000), (8_000, 11_000), (125_000, 128_000), (185_000, 188_000)],
    )
    assert rows(replay(model)) == as_traced(model)
    found = rows(replay(model, Scenario(model.duration, has_host=False)))
    assert found == [(10_000, 20_000), (21_000, 31_000), (32_000, 42_000), (43_000, 53_000)]


def meeting_of_two(late: int) -> Model:
    """Two ranks, MoE of 20 and 40 us and an all-reduce; rank 1 is launched late."""
    return trace(
        [
            (10_000, 20_000),
            (10_000, 20_000),
            (21_000, 41_000),
            (21_000 + late, 61_000 + late),
            (42_000, 72_000 + late),
            (62_000 + late, 72_000 + late),
        ],
        [
            (5_000, 8_000),
            (5_000, 8_001),
            (8_000, 11_000),
            (17_000 + late, 20_000 + late) if late else (8_000, 11_001),
            (11_000, 14_000),
            (20_000 + late, 23_000 + late) if late else (11_000, 14_001),
        ],
        device=[0, 1] * 3,
        stream=[0, 1] * 3,
        meeting=[NONE] * 4 + [0, 0],
    )


def test_two_ranks_meet_and_the_late_ones_host_delay_goes() -> None:
    model = meeting_of_two(500_000)
    assert rows(replay(model)) == as_traced(model)
    assert model.duration[4:].tolist() == [10_000, 10_000]
    found = rows(replay(model, Scenario(model.duration, has_host=False)))
    assert found == as_traced(meeting_of_two(0))
    # Work of the waiting rank alone saves nothing: it waits for longer.
    found = rows(replay(model, Scenario(scaled(model, {2: 0.1}))))
    assert found[4] == (24_000, 572_000)
    assert found[5] == as_traced(model)[5]


def test_balance_and_free_transfer_on_two_ranks() -> None:
    model = meeting_of_two(0)
    balanced = model.duration.copy()
    balanced[2:4] = 30_000
    found = rows(replay(model, Scenario(balanced)))
    assert found[2:] == [(21_000, 51_000)] * 2 + [(52_000, 62_000)] * 2
    free = model.duration.copy()
    free[4:] = 0
    assert rows(replay(model, Scenario(free)))[4:] == [(42_000, 62_000), (62_000, 62_000)]


def test_launches_after_a_wait_for_the_gpu_move_up_with_it() -> None:
    """step 1: 10-110 us; the host waits 20-112, thinks 8, launches; step 2 starts at 123.5.

    Halved, the wait ends 50 us sooner, and so does all that follows; shortened to nothing, the
    host's own pace is what is left: it returns at once, 2 us after 20.
    """
    model = trace(
        [(10_000, 110_000), (123_500, 143_500)],
        [(6_500, 9_000), (120_000, 122_500)],
        [(20_000, 112_000)],
    )
    assert rows(replay(model)) == as_traced(model)
    found = rows(replay(model, Scenario(scaled(model, {0: 0.5}))))
    assert found == [(10_000, 60_000), (73_500, 93_500)]
    found = rows(replay(model, Scenario(scaled(model, {0: 0.0}))))
    assert found == [(10_000, 10_000), (33_500, 53_500)]


def test_a_wait_that_did_not_have_to_wait_moves_nothing() -> None:
    model = trace(
        [(10_000, 12_000), (123_500, 143_500)],
        [(6_500, 9_000), (120_000, 122_500)],
        [(20_000, 112_000)],
    )
    found = rows(replay(model, Scenario(scaled(model, {0: 0.0}))))
    assert found == [(10_000, 10_000), (123_500, 143_500)]


def test_a_wait_ends_with_work_launched_before_it_alone() -> None:
    """Another thread's kernel ends last during the wait, launched after the wait began."""
    model = trace(
        [(10_000, 50_000), (60_000, 90_000), (123_500, 124_500)],
        [(6_500, 9_000), (40_000, 42_500), (120_000, 122_500)],
        [(20_000, 92_000)],
        stream=[0, 1, 0],
        call_thread=[0, 1, 0],
    )
    assert model.awaited.tolist() == [0]


def closed_loop(steps: int, cost: int) -> list[Thread]:
    """A main thread that launches a step and sits still until an output thread has its result."""
    main: list[Any] = [Launch("first", 20 * US), Launch("second", 20 * US)]
    output: list[Any] = []
    for step in range(steps):
        main += [Think(30 * US), Launch("k", cost), Launch("k", cost, label=f"launched{step}")]
        output += [Until(f"launched{step}"), Think(5 * US), Sync(f"launched{step}", f"out{step}")]
        main += [Until(f"out{step}"), Think(20 * US)]
    return [Thread(0, main), Thread(0, output)]


def test_an_output_thread_hands_the_token_on_and_the_main_thread_goes_on() -> None:
    """A closed loop: what the GPU saves is saved in every step, and thinking stays."""
    threads = closed_loop(5, 400 * US)
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    assert (model.wake != NONE).sum() >= 4
    assert (model.hand_over != NONE).sum() == 5
    assert_predicts(traced, model, Scenario(scaled_by_name(traced, model, {"k": 0.5})),
                    Simulation(threads, Costs(scale={"k": 0.5})))  # fmt: skip


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0])
def test_steps_launched_ahead_are_waited_for_one_after_the_other(factor: float) -> None:
    """Asynchronous scheduling: the output thread has the next step at hand while it waits."""
    main: list[Any] = [Launch("first", 20 * US)]
    output: list[Any] = []
    for step in range(6):
        cost = 4_000 * US if step == 2 else 400 * US
        main += [Think(30 * US), Launch("k", cost), Launch("k", cost, label=f"launched{step}")]
        output += [Until(f"launched{step}"), Think(5 * US), Sync(f"launched{step}", f"out{step}")]
        if step:
            main += [Until(f"out{step - 1}"), Think(20 * US)]
    threads = [Thread(0, main), Thread(0, output)]
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    assert_predicts(traced, model, Scenario(scaled_by_name(traced, model, {"k": factor})),
                    Simulation(threads, Costs(scale={"k": factor})))  # fmt: skip


def test_a_copy_that_waits_for_a_kernel_of_another_stream() -> None:
    """Launched in time, it starts 2 us after the kernel; on its own stream it has been 95 us."""
    model = trace(
        [(10_000, 20_000), (21_000, 121_000), (123_000, 133_000), (134_000, 140_000)],
        [(5_000, 8_000), (8_000, 11_000), (11_000, 14_000), (14_000, 17_000)],
        stream=[0, 0, 1, 1],
    )
    assert model.dependency.tolist()[2] == 1
    assert rows(replay(model)) == as_traced(model)
    found = rows(replay(model, Scenario(scaled(model, {1: 0.5}))))
    assert found[2:] == [(73_000, 83_000), (84_000, 90_000)]
    assert rows(replay(model, Scenario(model.duration, has_host=False))) == as_traced(model)


def test_a_stall_goes_and_what_is_left_is_the_usual_pause() -> None:
    work, calls = [], []
    for number in range(6):
        at = 10_000 + 20_000 * number + (30 * MS if number > 3 else 0)
        work.append((at, at + 5_000))
        calls.append((at - 3_500, at - 1_000))
    model = trace(work, list(calls))
    assert rows(replay(model)) == as_traced(model)
    found = replay(model, Scenario(model.duration, has_stalls=False))[0]
    assert np.diff(found).tolist() == [20_000] * 5
    assert STALL_NS <= 30 * MS


def test_a_pause_just_shorter_than_a_stall_stays() -> None:
    model = trace(
        [(10_000, 20_000), (STALL_NS, STALL_NS + 5_000)],
        [(6_500, 9_000), (STALL_NS - 3_500, STALL_NS - 1_000)],
    )
    assert rows(replay(model, Scenario(model.duration, has_stalls=False))) == as_traced(model)


def test_work_that_begins_before_the_work_before_has_ended_keeps_its_lead() -> None:
    """Programmatic dependent launch: 4 us before the end of the kernel before."""
    model = trace(
        [(10_000, 50_000), (46_000, 80_000), (81_000, 90_000)],
        [(5_000, 8_000), (8_000, 11_000), (11_000, 14_000)],
    )
    assert rows(replay(model)) == as_traced(model)
    found = rows(replay(model, Scenario(scaled(model, {0: 0.5}))))
    assert found == [(10_000, 30_000), (26_000, 60_000), (61_000, 70_000)]


def test_work_never_starts_before_the_work_before_on_its_stream() -> None:
    """Shortened to 1 us, a kernel cannot be led by 4: a stream starts its work in order."""
    model = trace(
        [(10_000, 50_000), (46_000, 80_000), (81_000, 90_000)],
        [(5_000, 8_000), (8_000, 11_000), (11_000, 14_000)],
    )
    for scenario in (
        Scenario(scaled(model, {0: 0.025})),
        Scenario(scaled(model, {0: 0.025}), has_host=False),
    ):
        start, _ = replay(model, scenario)
        assert (np.diff(start) >= 0).all()


def test_work_that_begins_while_a_collective_still_waits() -> None:
    """Rank 0's kernel begins in the collective's waiting, 20 us before the last rank arrives."""
    model = trace(
        [(10_000, 100_000), (50_000, 120_000), (90_000, 100_000)],
        device=[0, 0, 1],
        stream=[0, 0, 1],
        meeting=[0, NONE, 0],
    )
    assert rows(replay(model)) == as_traced(model)


def test_two_pieces_of_work_that_begin_while_a_collective_still_waits() -> None:
    model = trace(
        [(10_000, 100_000), (50_000, 60_000), (70_000, 75_000), (90_000, 100_000),
         (101_000, 110_000)],
        device=[0, 0, 0, 1, 0],
        stream=[0, 0, 0, 1, 0],
        meeting=[0, NONE, NONE, 0, NONE],
    )  # fmt: skip
    assert rows(replay(model)) == as_traced(model)


def test_without_api_calls_work_keeps_its_gaps() -> None:
    model = trace([(10_000, 20_000), (21_000, 31_000), (90_000, 95_000)])
    assert rows(replay(model)) == as_traced(model)
    assert rows(replay(model, Scenario(model.duration, has_host=False))) == as_traced(model)
    found = rows(replay(model, Scenario(scaled(model, {0: 0.5}))))
    assert found == [(10_000, 15_000), (16_000, 26_000), (85_000, 90_000)]


def test_the_first_of_a_stream_may_start_long_after_its_launch() -> None:
    """A capture that begins under load: the first kernel was launched 40 us before it started."""
    model = trace([(50_000, 60_000), (61_000, 70_000)], [(10_000, 12_500), (12_500, 15_000)])
    assert rows(replay(model)) == as_traced(model)


def test_work_whose_call_a_clock_puts_after_it() -> None:
    model = trace([(10_000, 20_000), (30_000, 40_000)], [(11_000, 13_000), (30_500, 32_000)])
    assert rows(replay(model)) == as_traced(model)
    found = rows(replay(model, Scenario(scaled(model, {0: 0.5}))))
    assert found == [(10_000, 15_000), (30_000, 40_000)]


def test_work_without_length_at_one_instant() -> None:
    model = trace([(10_000, 10_000)] * 3, stream=[0, 0, 1])
    for has_host in (True, False):
        scenario = Scenario(model.duration, has_host=has_host)
        assert rows(replay(model, scenario)) == as_traced(model)


def test_nothing_ran() -> None:
    model = trace([])
    assert [times.tolist() for times in replay(model)] == [[], []]


# --- against the simulator ------------------------------------------------------------------------


def scaled_by_name(traced: Simulation, model: Model, factors: dict[str, float]) -> Floats:
    names = [ran.launch.name for ran in traced.ordered()]
    found: Floats = model.duration * np.array([factors.get(name, 1.0) for name in names])
    return found


def predicted(
    traced: Simulation, times: tuple[Floats, Floats]
) -> dict[tuple[int, int], tuple[float, float]]:
    keys = [(ran.rank, ran.number) for ran in traced.ordered()]
    return dict(zip(keys, rows(times), strict=True))


def assert_predicts(
    traced: Simulation, model: Model, scenario: Scenario, truth: Simulation
) -> None:
    found, expected = predicted(traced, replay(model, scenario)), truth.times()
    assert found.keys() == expected.keys()
    for key, times in expected.items():
        assert found[key] == pytest.approx(times, abs=1e-3), key


# The first two lie back to back and were launched late: what gaps and launches take is in there.
PROLOGUE = (Launch("first", 20 * US), Launch("second", 20 * US))
COST = st.integers(1, 80).map(lambda cost: cost * US)
PAUSE = st.integers(0, 60).map(lambda pause: pause * US)
KERNEL = st.builds(Launch, st.sampled_from(["moe", "other"]), COST)
FACTOR = st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0])
ANY_FACTOR = FACTOR | st.sampled_from([1.25, 2.0, 5.0])


@st.composite
def one_rank(draw: st.DrawFn) -> list[Thread]:
    """Return a rank that launches, thinks, and waits for all that it launched."""
    operation = KERNEL | st.builds(Think, PAUSE) | st.builds(Sync)
    return [Thread(0, [*PROLOGUE, *draw(st.lists(operation, max_size=14))])]


@st.composite
def ranks_that_meet(draw: st.DrawFn, count: int = 2, *, waits: bool = False) -> list[Thread]:
    """Return ranks whose kernels, pauses and costs differ between the meetings they share."""
    programs: list[list[Any]] = [[*PROLOGUE] for _ in range(count)]
    for meeting in range(draw(st.integers(1, 4))):
        transfer = draw(COST)
        for program in programs:
            program.extend(draw(st.lists(KERNEL | st.builds(Think, PAUSE), max_size=4)))
            program.append(Launch(REDUCE, transfer, meeting=meeting))
            if waits and draw(st.booleans()):
                program.extend([Launch("other", draw(COST)), Think(draw(PAUSE)), Sync()])
    return [Thread(rank, program) for rank, program in enumerate(programs)]


WAKE = 100 * US


def longest_pause(threads: list[Thread]) -> float:
    """Return the longest time in which a thread thinks without a call between."""
    longest = 0.0
    for thread in threads:
        now = 0.0
        for operation in thread.program:
            now = now + operation.ns if isinstance(operation, Think) else 0.0
            longest = max(longest, now)
    return longest


SIMULATED = settings(
    max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@SIMULATED
@given(one_rank(), ANY_FACTOR, ANY_FACTOR)
def test_one_rank_that_waits_with_other_kernels(
    threads: list[Thread], moe: float, other: float
) -> None:
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    factors = {"moe": moe, "other": other}
    scenario = Scenario(scaled_by_name(traced, model, factors))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale=factors)))


@SIMULATED
@given(
    ranks_that_meet(waits=True).filter(lambda threads: longest_pause(threads) < WAKE), ANY_FACTOR
)
def test_ranks_that_meet_and_wait_with_other_kernels(threads: list[Thread], moe: float) -> None:
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    scenario = Scenario(scaled_by_name(traced, model, {"moe": moe}))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale={"moe": moe})))


def test_a_pause_in_which_another_ranks_wait_ends_is_nobodys_call() -> None:
    """The ranks do not know of one another: rank 0 thinks for 150 us at its own pace."""
    thinking: list[Any] = [*PROLOGUE, Think(150 * US), Launch("last", 10 * US)]
    waiting: list[Any] = [*PROLOGUE, Launch("moe", 60 * US), Sync()]
    threads = [Thread(0, thinking), Thread(1, waiting)]
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    scenario = Scenario(scaled_by_name(traced, model, {"moe": 0.1}))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale={"moe": 0.1})))


@SIMULATED
@given(ranks_that_meet(), FACTOR, FACTOR)
def test_ranks_that_meet_with_shorter_kernels_and_transfer(
    threads: list[Thread], moe: float, transfer: float
) -> None:
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    scenario = Scenario(scaled_by_name(traced, model, {"moe": moe, REDUCE: transfer}))
    truth = Simulation(threads, Costs(scale={"moe": moe}, transfer=transfer))
    assert_predicts(traced, model, scenario, truth)


@SIMULATED
@given(ranks_that_meet(), st.sampled_from([1.25, 2.0, 5.0]))
def test_ranks_that_meet_with_longer_kernels(threads: list[Thread], moe: float) -> None:
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    scenario = Scenario(scaled_by_name(traced, model, {"moe": moe}))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale={"moe": moe})))


@SIMULATED
@given(one_rank() | ranks_that_meet() | ranks_that_meet(3), FACTOR)
def test_without_a_host(threads: list[Thread], moe: float) -> None:
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    scenario = Scenario(scaled_by_name(traced, model, {"moe": moe}), has_host=False)
    truth = Simulation(threads, Costs(scale={"moe": moe}, first=traced.firsts()))
    assert_predicts(traced, model, scenario, truth)


@SIMULATED
@given(ranks_that_meet(), st.lists(st.tuples(COST, COST), min_size=1, max_size=5))
def test_balance(threads: list[Thread], cells: list[tuple[int, int]]) -> None:
    """The same number of cells on each rank, unequal; each takes the mean."""
    for cost in cells:
        for rank, thread in enumerate(threads):
            program = list(thread.program)
            threads[rank] = Thread(rank, [*program, Launch("cell", cost[rank])])
    threads = [
        Thread(thread.rank, [*thread.program, Launch(REDUCE, 5 * US, meeting=99)])
        for thread in threads
    ]
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    numbers = [
        [ran.number for ran in traced.ran if ran.rank == rank and ran.launch.name == "cell"]
        for rank in (0, 1)
    ]
    means = {
        (rank, number): sum(cost) / 2
        for rank in (0, 1)
        for number, cost in zip(numbers[rank], cells, strict=True)
    }
    duration = model.duration.copy()
    for place, ran in enumerate(traced.ordered()):
        duration[place] = means.get((ran.rank, ran.number), duration[place])
    truth = Simulation(threads, Costs(mean_of=means))
    assert_predicts(traced, model, Scenario(duration), truth)


@SIMULATED
@given(ranks_that_meet(), st.integers(0, 1), st.integers(0, 20), st.integers(10, 40))
def test_stalls(threads: list[Thread], rank: int, place: int, length: int) -> None:
    program = list(threads[rank].program)
    program.insert(min(place + len(PROLOGUE), len(program)), Think(length * MS))
    threads[rank] = Thread(rank, [*program, Launch("last", 3 * US)])
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    (stalls,) = np.flatnonzero(model.stall > 0).reshape(1, -1)
    assert len(stalls) == 1
    kept = [start for thread, start, _ in traced.calls if thread == rank]
    still = np.diff(kept) - CALL
    usual = float(np.median([0.0, *still]))
    # The pause is made of the stall, and of thinking before and after it.
    assert model.stall[stalls[0]] == still.max() - usual
    times = predicted(traced, replay(model, Scenario(model.duration, has_stalls=False)))
    shorter = [
        Think(operation.ns - (still.max() - usual)) if isinstance(operation, Think)
        and operation.ns >= STALL_NS else operation
        for operation in threads[rank].program
    ]  # fmt: skip
    without = [replace(thread, program=shorter) if thread.rank == rank else thread
               for thread in threads]  # fmt: skip
    for key, expected in Simulation(without).times().items():
        assert times[key] == pytest.approx(expected, abs=1e-3)


@SIMULATED
@given(st.integers(1, 4), st.integers(150, 400), FACTOR)
def test_a_closed_loop_of_two_threads(steps: int, cost: int, factor: float) -> None:
    threads = closed_loop(steps, cost * US)
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    scenario = Scenario(scaled_by_name(traced, model, {"k": factor}))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale={"k": factor})))


def two_streams(cost: int) -> list[Thread]:
    """A copy on a second stream after each of three kernels, and the last kernel after a copy."""
    program: list[Any] = [*PROLOGUE]
    for number in range(3):
        program += [
            Launch("k", cost, label=f"k{number}"),
            Launch("copy", 10 * US, stream=1, label=f"c{number}", after=f"k{number}"),
        ]
    return [Thread(0, [*program, Launch("k", cost, after="c2")])]


@pytest.mark.parametrize("factor", [0.5, 0.75, 2.0])
def test_a_second_stream_that_waits_for_the_first(factor: float) -> None:
    threads = two_streams(100 * US)
    traced = Simulation(threads)
    model = Model(*traced.arrays())
    assert rows(replay(model)) == as_traced(model)
    scenario = Scenario(scaled_by_name(traced, model, {"k": factor}))
    assert_predicts(traced, model, scenario, Simulation(threads, Costs(scale={"k": factor})))


def test_the_views_give_the_simulators_own_arrays(tmp_path: Path) -> None:
    """From an export to the arrays: streams, calls, threads and meetings, by the views alone."""
    programs: list[list[Any]] = [[*PROLOGUE], [*PROLOGUE]]
    for meeting in range(6):
        for rank, program in enumerate(programs):
            program += [Think(7 * US * (rank + meeting)), Launch("moe", (30 + rank) * US)]
            program += [Launch(REDUCE, 9 * US, meeting=meeting), Sync(), Think(3 * US)]
    traced = Simulation([Thread(rank, program) for rank, program in enumerate(programs)])
    with nsysmoe.open(traced.builder().write(tmp_path / "t.sqlite")) as opened:
        rows_of = opened.frame("replayed_work")
        times = rows_of.drop("is_late").fill_null(NONE).to_dict()
        columns = {name: values.to_numpy() for name, values in (times | {
            "is_late": rows_of["is_late"]
        }).items()}  # fmt: skip
        work, calls = work_of(columns, opened.frame("replayed_streams"))
        host = host_of(calls, opened.frame("blocking_calls"))
    theirs, hosts = traced.arrays()
    for name in ("start", "end", "device", "stream", "is_late", "meeting"):
        assert getattr(work, name).tolist() == getattr(theirs, name).tolist(), name
    assert host.call_start[work.call].tolist() == hosts.call_start[theirs.call].tolist()
    assert sorted(zip(host.block_start, host.block_end, strict=True)) == sorted(
        zip(hosts.block_start, hosts.block_end, strict=True)
    )
    found, expected = Model(work, host), Model(theirs, hosts)
    assert found.gap.tolist() == expected.gap.tolist()
    assert found.latency.tolist() == expected.latency.tolist()
    assert sorted(found.awaited) == sorted(expected.awaited)
    for scenario in (Scenario(found.duration / 2), Scenario(found.duration, has_host=False)):
        assert rows(replay(found, scenario)) == rows(replay(expected, scenario))


# --- at random, whatever the trace ----------------------------------------------------------------

PIECE = st.tuples(
    st.integers(0, 3),  # stream, two a device
    st.integers(-8_000, 40_000),  # from the latest start on the stream
    st.integers(0, 30_000),
    st.none() | st.integers(-2_000, 300_000),  # how long before its start it was called
    st.integers(1, 8_000),
)
BREAK = st.tuples(st.integers(0, 3), st.integers(0, 200_000), st.integers(1, 150_000))


@st.composite
def any_trace(draw: st.DrawFn) -> Model:
    """Return pieces of work on up to four streams of two devices, meetings, calls and waits."""
    pieces = draw(st.lists(PIECE, min_size=1, max_size=14))
    at: dict[int, int] = {}
    work: list[tuple[int, int, int, int, tuple[int, int, int] | None]] = []
    for stream, lag, dur, called, call_dur in pieces:
        start = at.get(stream, 50_000) + max(lag, 0 if stream not in at else lag)
        start = max(start, at.get(stream, 0))
        at[stream] = start + max(dur + min(lag, 0), 0)
        call = None if called is None else (start - called, start - called + call_dur, stream // 2)
        work.append((start, start + dur, stream, NONE, call))
    for meeting in range(draw(st.integers(0, 3))):
        arrivals = [max(at.get(stream, 50_000), 0) + draw(st.integers(0, 20_000))
                    for stream in (0, 2)]  # fmt: skip
        ends = [max(arrivals) + draw(st.integers(1, 9_000)) for _ in (0, 2)]
        for stream, start, end in zip((0, 2), arrivals, ends, strict=True):
            work.append((start, end, stream, meeting, None))
            # What follows may begin before the collective has ended.
            at[stream] = max(start, end - draw(st.integers(0, 30_000)))
        if draw(st.booleans()):
            start = at[0] + draw(st.integers(0, 3_000))
            work.append((start, start + 4_000, 0, NONE, None))
            at[0] = start + 4_000
    work.sort(key=lambda one: (one[0], one[1], one[2]))
    breaks = draw(st.lists(BREAK, max_size=4))
    calls = sorted({one[4] for one in work if one[4] is not None})
    streams = sorted({one[2] for one in work})
    is_late, ended = [], dict.fromkeys(streams, -1)
    for start, end, stream, _, call in work:
        is_late.append(call is not None and (ended[stream] < 0 or min(call[1], start)
                                             > ended[stream]))  # fmt: skip
        ended[stream] = max(ended[stream], end)
    note(f"start, end, stream, meeting, call: {work}; waits: {breaks}")
    return Model(
        Work(
            start=ints([one[0] for one in work]),
            end=ints([one[1] for one in work]),
            stream=ints([streams.index(one[2]) for one in work]),
            device=ints([one[2] // 2 for one in work]),
            process=ints([one[2] // 2 for one in work]),
            call=ints([NONE if one[4] is None else calls.index(one[4]) for one in work]),
            is_late=np.array(is_late, dtype=bool),
            meeting=ints([one[3] for one in work]),
        ),
        Host(
            call_start=ints([call[0] for call in calls]),
            call_end=ints([call[1] for call in calls]),
            call_thread=ints([call[2] for call in calls]),
            call_process=ints([call[2] for call in calls]),
            block_start=ints([start for _, start, _ in breaks]),
            block_end=ints([start + dur for _, start, dur in breaks]),
            block_thread=ints([thread for thread, _, _ in breaks]),
            block_process=ints([thread % 2 for thread, _, _ in breaks]),
        ),
    )


RANDOM = settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
TINY = 1e-3


@RANDOM
@given(any_trace())
def test_an_unchanged_replay_repeats_the_trace(model: Model) -> None:
    assert rows(replay(model)) == as_traced(model)


@RANDOM
@given(any_trace(), st.sampled_from([(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (0.3, 4.0)]))
def test_longer_work_never_starts_anything_sooner(
    model: Model, factors: tuple[float, float]
) -> None:
    less, more = (replay(model, Scenario(scaled(model, factor))) for factor in factors)
    assert (less[0] <= more[0] + TINY).all()
    assert (less[1] <= more[1] + TINY).all()


@RANDOM
@given(any_trace(), st.booleans(), st.booleans(), st.booleans())
def test_nothing_comes_later_where_costs_are_taken_away(
    model: Model, has_host: bool, has_stalls: bool, is_free: bool
) -> None:
    duration = model.duration.copy()
    if is_free:
        duration[model.work.meeting != NONE] = 0
    base = replay(model, Scenario(duration))
    found = replay(model, Scenario(duration, has_host=has_host, has_stalls=has_stalls))
    assert (found[0] <= base[0] + TINY).all()
    assert (found[1] <= base[1] + TINY).all()
    assert (base[0] <= model.work.start + TINY).all()
    assert found[1].max() - found[0].min() <= np.ptp([model.work.start.min(),
                                                      model.work.end.max()]) + TINY  # fmt: skip


@RANDOM
@given(any_trace(), st.sampled_from([0.0, 0.4, 1.0, 2.0]), st.booleans())
def test_streams_start_their_work_in_order(model: Model, factor: float, has_host: bool) -> None:
    start, end = replay(model, Scenario(scaled(model, factor), has_host=has_host))
    for stream in np.unique(model.work.stream):
        assert (np.diff(start[model.work.stream == stream]) >= -TINY).all()
    for meeting in set(model.work.meeting.tolist()) - {NONE}:
        members = model.work.meeting == meeting
        assert (end[members] >= start[members].max() - TINY).all()


def test_machine_code_says_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="needs nsysmoe[fast]")

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(any_trace(), st.sampled_from([0.0, 1 / 3, 1.0, 2.7]), st.booleans(), st.booleans())
    def check(model: Model, factor: float, has_host: bool, has_stalls: bool) -> None:
        scenario = Scenario(scaled(model, factor), has_host=has_host, has_stalls=has_stalls)
        monkeypatch.setattr(walk, "_WORTH_COMPILING", 1 << 62)
        plain = replay(model, scenario)
        monkeypatch.setattr(walk, "_WORTH_COMPILING", 0)
        compiled = replay(model, scenario)
        for found, expected in zip(compiled, plain, strict=True):
            assert found.tobytes() == expected.tobytes()

    check()
