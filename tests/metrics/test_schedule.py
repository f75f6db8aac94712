"""Steps, distortion, rearrangements, waiting and who causes it, on frames to check by eye."""

from __future__ import annotations

import math
import random
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.metrics.kernel_time.collectives import last_arrivals
from nsysmoe.metrics.kernel_time.communication import purposes
from nsysmoe.metrics.kernel_time.conservation import conservation
from nsysmoe.metrics.kernel_time.host import launched_work, usual_steps
from nsysmoe.metrics.kernel_time.imbalance import slowest_ranks
from nsysmoe.metrics.kernel_time.mixture import split_durations
from nsysmoe.metrics.kernel_time.phases import engines, phase_times
from nsysmoe.metrics.kernel_time.rearrangement import rearrangement_effects
from nsysmoe.metrics.kernel_time.schedule import schedule_values
from nsysmoe.metrics.kernel_time.steps import (
    SUMS,
    distorted,
    step_table,
    undistorted,
    with_typical,
    with_work,
)
from nsysmoe.metrics.kernel_time.work import work_difference, work_done

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS = {"start_ns": pl.Int64, "end_ns": pl.Int64}
NONE = pl.DataFrame(schema=EVENTS)


def events(*spans: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(spans), schema=EVENTS, orient="row")


# --- steps ---------------------------------------------------------------------------------------


def device_time(*devices: list[tuple[int | None, str | None, int, int]]) -> pl.DataFrame:
    """Step, phase, start and window of each step of each device; the rest follows from these."""
    return pl.DataFrame(
        [
            (number, number, step, phase, start, window, window // 2, window // 5, window // 10)
            for number, device in enumerate(devices)
            for step, phase, start, window in device
        ],
        schema={
            "global_pid": pl.Int64, "device_id": pl.Int64, "step": pl.Int64, "phase": pl.String,
            "start_ns": pl.Int64, "window_ns": pl.Int64, "idle_ns": pl.Int64,
            "exposed_wait_ns": pl.Int64, "exposed_transfer_ns": pl.Int64,
        },
        orient="row",
    )  # fmt: skip


TIME = device_time(
    [(None, None, 0, 10), (0, "prefill", 10, 100), (1, "decode", 110, 20)],
    # Begins a little later, and ends earlier.
    [(0, "prefill", 15, 90), (1, "decode", 105, 20)],
)
LAUNCHES = pl.DataFrame(
    {
        "start_ns": [-5, 20, 40, 112, 114],
        "dur_ns": [3, 30, 10, 4, 5],
        "blocks": [1, 500, 500, 8, 9],
        "global_pid": [0, 0, 1, 0, 1],
        "device_id": [0, 0, 1, 0, 1],
    }
)
WORK = pl.DataFrame(
    {
        "slice": [0, 1, 2],
        "start_ns": [0, 10, 110],
        "phase": [None, "prefill", "decode"],
        "blocks": [1, 500, 9],
    }
)
CELLS = pl.DataFrame({"start_ns": [20, 112], "slowest_ns": [30, 5], "mean_ns": [20.0, 4.5]})
COLLECTIVES = pl.DataFrame(
    {
        "start_ns": [60, 70, 115, 116],
        "dur_ns": [25, 15, 4, 3],
        "wait_ns": [10, 0, 1, None],
        "transfer_ns": [15, 15, 3, None],
        "is_nccl": [True, True, True, False],
        "is_allreduce": [True, False, True, False],
        "is_matched": [True, True, True, False],
    }
)


# The first device's steps; where its collectives start: 60, 70, 115 and 116.
CUTS = pl.DataFrame(
    [(0, None, None, 0, 10), (1, 0, "prefill", 10, 100), (2, 1, "decode", 110, 20)],
    schema={
        "slice": pl.Int64, "step": pl.Int64, "phase": pl.String, "start_ns": pl.Int64,
        "wall_ns": pl.Int64,
    },
    orient="row",
)  # fmt: skip
SLICED = COLLECTIVES.with_columns(slice=pl.Series([1, 1, 2, 2]))


def by_slice(cuts: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Return view ``moe_slices``, in plain Python."""
    starts, found = cuts["start_ns"].to_list(), dict[int, list[int]]()
    for start, duration in launches.select("start_ns", "dur_ns").iter_rows():
        found.setdefault(max(sum(at <= start for at in starts) - 1, 0), []).append(duration)
    rows = [(n, len(d), sum(d), float(sum(x * x for x in d))) for n, d in found.items()]
    return pl.DataFrame(rows, schema=["slice", "launches", "dur_ns", "squares"], orient="row")


def table_of() -> pl.DataFrame:
    return step_table(with_work(CUTS, WORK), by_slice(CUTS, LAUNCHES), CELLS, SLICED, TIME)


def test_what_each_step_holds() -> None:
    rows = table_of().to_dicts()
    names = (
        "launches", "total_ns", "squares", "critical_ns", "mean_ns",
        "excess_ns", "wait_ns", "transfer_ns", "nccl_total_ns", "allreduce_total_ns",
    )  # fmt: skip
    assert [tuple(row[name] for name in names) for row in rows] == [
        # What starts before the first step is in it.
        (1, 3, 9.0, 0, 0.0, 0.0, 0, 0, 0, 0),
        (2, 40, 1000.0, 30, 20.0, 10.0, 10, 30, 40, 25),
        (2, 9, 41.0, 5, 4.5, 0.5, 1, 3, 4, 4),
    ]
    # A device's second step belongs to the slice that its middle is in: 105 + 10, not 105.
    assert [row["idle_ns"] for row in rows] == [5 / 2, (50 + 45) / 2, (10 + 10) / 2]
    assert [row["stratum"] for row in rows] == ["unattributed 0.0", "prefill 9.0", "decode 3.0"]


def test_steps_add_up_to_the_totals() -> None:
    sums = table_of().select(pl.col(SUMS).sum()).row(0, named=True)
    totals = schedule_values(LAUNCHES, CELLS, COLLECTIVES, TIME)
    assert sums["wall_ns"] == totals["wall_time_ns"] == 130
    assert sums["critical_ns"] == totals["critical_moe_ns"] == 35
    assert sums["excess_ns"] == totals["excess_moe_ns"] == 10.5
    for name in ("wait_ns", "transfer_ns", "exposed_wait_ns", "exposed_transfer_ns", "idle_ns"):
        assert sums[name] == totals[name], name
    assert (sums["launches"], sums["total_ns"]) == (5, 52)
    assert totals["busiest_rank_ns"] == 3 + 30 + 4


def test_a_distorted_step_is_replaced_by_a_usual_one_of_its_stratum() -> None:
    steps = pl.DataFrame(
        {"slice": range(5), "stratum": ["decode 5", "decode 5", "decode 5", "prefill 9", "idle "],
         "wall_ns": [10, 20, 900, 300, 7]}
    ).with_columns(*(pl.lit(1.0).alias(name) for name in SUMS if name != "wall_ns"))  # fmt: skip
    found, lost = undistorted(steps, steps.filter(pl.col("slice").is_in([2, 3])).select("slice"))
    assert found["wall_ns"].to_list() == [10, 20, 15, 7]
    assert found["slice"].to_list() == [0, 1, 2, 4]
    assert lost == {"prefill 9"}


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(-20, 400), st.integers(0, 90)), min_size=1, max_size=20),
)
def test_steps_add_up_wherever_launches_fall(
    windows: list[int], launches: list[tuple[int, int]]
) -> None:
    starts = [sum(windows[:number]) for number in range(len(windows))]
    time = device_time(
        [(n, "decode", at, wall) for n, (at, wall) in enumerate(zip(starts, windows, strict=True))]
    )
    frame = pl.DataFrame(
        [(at, dur, 8) for at, dur in launches],
        schema=["start_ns", "dur_ns", "blocks"],
        orient="row",
    )
    cuts = time.with_row_index("slice").select(
        pl.col("slice").cast(pl.Int64), "step", "phase", "start_ns", wall_ns="window_ns"
    )
    work = cuts.select("slice", "start_ns", "phase", blocks=pl.lit(8, pl.Int64))
    table = step_table(with_work(cuts, work), by_slice(cuts, frame), CELLS, SLICED, time)
    assert table.height == len(windows)
    assert table["wall_ns"].sum() == sum(windows)
    assert table["launches"].sum() == len(launches)
    assert table["total_ns"].sum() == sum(dur for _, dur in launches)
    assert table["squares"].sum() == sum(dur * dur for _, dur in launches)
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else math.inf
        inside = [d for at, d in launches if (start <= at or number == 0) and at < end]
        assert table["launches"][number] == len(inside)


def test_nothing_paired_is_null_and_not_0() -> None:
    values = schedule_values(LAUNCHES, CELLS.head(0), COLLECTIVES.tail(1), TIME)
    for name in ("critical_moe_ns", "excess_moe_ns", "wait_ns", "transfer_ns"):
        assert values[name] is None


# --- distorted steps -----------------------------------------------------------------------------


def walls(
    *steps: int, phase: str = "decode", idle: int = 0, blocks: int | None = 32
) -> pl.DataFrame:
    """Steps of one phase and one size of grid, one after the other."""
    return pl.DataFrame(
        {
            "slice": range(len(steps)),
            "step": range(len(steps)),
            "phase": [phase] * len(steps),
            "joint_phase": [phase] * len(steps),
            "blocks": pl.Series([blocks] * len(steps), dtype=pl.Int64),
            "stratum": [f"{phase} 5"] * len(steps),
            "start_ns": [sum(steps[:number]) for number in range(len(steps))],
            "wall_ns": steps,
            "idle_ns": [float(idle)] * len(steps),
        }
    )


def causes_of(table: pl.DataFrame, **causes: pl.DataFrame) -> list[tuple[int, str]]:
    found = distorted(table, list(causes.items()))
    return [(row["slice"], row["cause"]) for row in found.to_dicts()]


def test_a_step_three_times_as_long_is_a_stall() -> None:
    assert causes_of(walls(100, 100, 100, 100, 301)) == [(4, "stall")]
    assert causes_of(walls(100, 100, 100, 100, 300)) == []


def test_a_cause_at_hand_takes_half_as_long_again() -> None:
    load = events((420, 430))
    assert causes_of(walls(100, 100, 100, 100, 151), load=load) == [(4, "load")]
    assert causes_of(walls(100, 100, 100, 100, 150), load=load) == []
    # Beside the step, and touching its ends.
    for beside in (events((390, 400)), events((551, 560)), NONE):
        assert causes_of(walls(100, 100, 100, 100, 151), load=beside) == []


def test_the_first_cause_that_fits_counts() -> None:
    table, both = (
        walls(100, 100, 100, 100, 400),
        {"move": events((450, 460)), "load": events((0, 900))},
    )
    assert causes_of(table, **both) == [(4, "move")]
    assert causes_of(table, load=both["load"], move=both["move"]) == [(4, "load")]
    assert causes_of(table, move=NONE, load=both["load"]) == [(4, "load")]


def test_an_idle_step_is_never_distorted() -> None:
    assert causes_of(walls(100, 100, 100, 100, 9000, phase="idle"), load=events((0, 9999))) == []


def test_phases_have_medians_of_their_own() -> None:
    prefill = walls(1000, 1000, 1000, 1000, phase="prefill")
    decode = walls(100, 100, 100, 100, 400).with_columns(pl.col("slice") + 4)
    assert causes_of(pl.concat([prefill, decode])) == [(8, "stall")]


def joined(*parts: pl.DataFrame) -> pl.DataFrame:
    """Steps of several kinds, numbered through."""
    table = pl.concat(parts)
    return table.with_columns(slice=pl.int_range(table.height))


def test_a_step_with_more_to_do_is_not_distorted() -> None:
    chunks = walls(110, 110, 120, 110, phase="mixed", blocks=5_600)
    full = walls(440, phase="mixed", blocks=51_296)
    silent = events((0, 10_000))
    assert causes_of(joined(chunks, full), silence=silent) == []
    # One with as little to do as the others is.
    assert causes_of(joined(chunks, walls(440, phase="mixed", blocks=5_000))) == [(4, "stall")]


def test_a_step_that_takes_longer_than_larger_ones_is_distorted() -> None:
    full = walls(440, 440, 430, 450, phase="mixed", blocks=51_296)
    chunk = walls(1_400, phase="mixed", blocks=5_600)
    found = distorted(joined(full, chunk), [])
    assert found.select("slice", "typical_ns").rows() == [(4, 440.0)]


def test_a_rank_that_decodes_is_as_slow_as_the_prompt_that_another_reads() -> None:
    decode = walls(20, 20, 20, 20)
    beside = walls(93).with_columns(joint_phase=pl.lit("mixed"))
    assert causes_of(joined(decode, walls(93))) == [(4, "stall")]
    assert causes_of(joined(decode, beside)) == []


def test_steps_without_moe_kernels_have_others_of_their_phase() -> None:
    assert causes_of(walls(100, 100, 100, 100, 301, blocks=None)) == [(4, "stall")]
    # Alone, it is smaller than all of them, and still took longer.
    few = joined(walls(100, 100, 100, 100), walls(301, blocks=None))
    assert causes_of(few) == [(4, "stall")]


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 999), st.sampled_from(["decode", "mixed"]), st.integers(0, 70)),
        min_size=1,
        max_size=12,
    )
)
def test_the_usual_length_by_hand(steps: list[tuple[int, str, int]]) -> None:
    table = joined(
        *(walls(wall, phase=phase, blocks=size or None) for wall, phase, size in steps),
    )
    sizes = [round(math.log2(size)) if size else -1 for _, _, size in steps]
    for number, (_, phase, _) in enumerate(steps):
        alike = [n for n, one in enumerate(steps) if one[1] == phase]
        same = [n for n in alike if sizes[n] == sizes[number]]
        larger = [n for n in alike if sizes[n] >= sizes[number]]
        peers = same if len(same) >= 4 else larger
        others = [steps[n][0] for n in peers if n != number]
        expected = median(others) if len(peers) >= 4 else None
        assert with_typical(table)["typical_ns"][number] == expected


def test_fewer_than_four_steps_have_no_usual_length() -> None:
    assert causes_of(walls(100, 100, 900)) == []
    inside = events((250, 260))
    assert causes_of(walls(100, 100, 900, idle=451), load=inside) == [(2, "load")]
    assert causes_of(walls(100, 100, 900, idle=450), load=inside) == []
    (row,) = distorted(walls(100, 100, 900, idle=451), [("load", inside)]).to_dicts()
    assert (row["typical_ns"], row["wall_ns"], row["start_ns"]) == (None, 900, 200)


def test_the_usual_length_is_that_of_the_other_steps() -> None:
    table = walls(100, 100, 300, 301)
    (row,) = distorted(table, [("load", events((520, 530)))]).to_dicts()
    assert (row["slice"], row["typical_ns"]) == (3, 100)


# --- rearrangements ------------------------------------------------------------------------------


def moved(*spans: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"rearrangement": n, "start_ns": start, "end_ns": end, "ranks": 2, "transfers": 7,
             "total_ns": 100, "moving_ns": 40}
            for n, (start, end) in enumerate(spans)
        ]
    )  # fmt: skip


def halved(slowest: tuple[int, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Steps of 100 ns, the third of 260, one cell of mean 20 each that starts 10 ns in."""
    table = walls(100, 100, 260, 100, 100).with_columns(mean_ns=pl.lit(20.0))
    cells = pl.DataFrame(
        {
            "phase": "decode",
            "start_ns": table["start_ns"] + 10,
            "slowest_ns": slowest,
            "mean_ns": 20.0,
        }
    )
    return table, cells


def test_a_rearrangement_costs_its_stall_and_gains_balance() -> None:
    (row,) = rearrangement_effects(moved((300, 400)), *halved((30, 30, 30, 22, 22))).to_dicts()
    assert row["stall_ns"] == 260 - 100
    assert (row["phase"], row["before"], row["after"]) == ("decode", 1.5, 1.1)
    assert row["step_mean_ns"] == 20
    assert row["gain_ns"] == pytest.approx(0.4 * 20)
    assert row["payback_steps"] == pytest.approx(160 / 8)
    assert (row["transfers"], row["ranks"], row["moving_ns"]) == (7, 2, 40)


@pytest.mark.parametrize("after", [30, 36])
def test_what_gained_nothing_never_pays_back(after: int) -> None:
    cells = halved((30, 30, 30, after, after))
    (row,) = rearrangement_effects(moved((300, 400)), *cells).to_dicts()
    assert row["gain_ns"] == pytest.approx((1.5 - after / 20) * 20)
    assert row["payback_steps"] is None


def test_each_rearrangement_is_weighed_between_its_neighbours() -> None:
    # Steps begin at 0, 100, 200, 460 and 560.
    first, second = rearrangement_effects(
        moved((150, 160), (500, 510)), *halved((40, 40, 30, 30, 20))
    ).to_dicts()
    assert (first["before"], first["after"]) == (2.0, 1.5)
    assert (second["before"], second["after"]) == (1.5, 1.0)


def test_a_stall_is_what_steps_with_as_much_to_do_do_not_take() -> None:
    """The full batch of 500 that it hits is held against the other one, of 440."""
    small, full = walls(100, 100, 100), walls(440, 500, blocks=51_296)
    table = joined(small, full).with_columns(
        start_ns=pl.Series([0, 100, 200, 300, 740]),
        mean_ns=pl.lit(20.0),
        stratum=pl.when(pl.col("blocks") > 32).then(pl.lit("decode 16")).otherwise("stratum"),
    )
    cells = pl.DataFrame({"phase": "decode", "start_ns": [10], "slowest_ns": 30, "mean_ns": 20.0})
    (row,) = rearrangement_effects(moved((800, 810)), table, cells).to_dicts()
    assert row["stall_ns"] == 60
    # Where no other step is of its size, those of its phase have to do.
    alone = table.filter(pl.col("wall_ns") != 440)
    (row,) = rearrangement_effects(moved((800, 810)), alone, cells).to_dicts()
    assert row["stall_ns"] == 400


def test_a_step_is_in_the_slice_of_its_middle() -> None:
    """It begins on this GPU 5 before the slice that the longest GPU's step makes."""
    early = pl.DataFrame({"phase": ["decode", None], "start_ns": [105, 0], "wall_ns": [20, 4]})
    found = with_work(early, WORK)
    assert found["joint_phase"].to_list() == ["decode", "unattributed"]
    assert found["blocks"].to_list() == [9, 1]
    assert found["start_ns"].to_list() == [105, 0]


def launching(*walls_ns: int, blocks: list[int]) -> pl.DataFrame:
    """Steps of one launching thread, 1,000 apart, with what its GPU had to do in each."""
    count = len(walls_ns)
    steps = pl.DataFrame(
        {
            "global_tid": [1] * count,
            "global_pid": [None] * count,
            "device_id": [0] * count,
            "step": range(count),
            "phase": ["mixed"] * count,
            "start_ns": [1_000 * number for number in range(count)],
            "wall_ns": walls_ns,
        },
        schema_overrides={"global_pid": pl.Int64},
    )
    work = steps.select("start_ns", "phase", blocks=pl.Series(blocks))
    return launched_work(steps, steps, work)


def test_a_launching_thread_is_held_against_steps_with_as_much_to_do() -> None:
    small, large = [5_000] * 4, 51_296
    kept = usual_steps(launching(100, 100, 100, 100, 400, blocks=[*small, large]))
    assert kept["wall_ns"].to_list() == [100, 100, 100, 100, 400]
    kept = usual_steps(launching(100, 100, 100, 100, 400, blocks=[*small, 5_000]))
    assert kept["wall_ns"].to_list() == [100, 100, 100, 100]


def test_steps_of_another_size_are_no_measure_of_a_gain() -> None:
    table, cells = halved((30, 30, 30, 22, 22))
    later = pl.when(pl.col("slice") > 2).then(pl.lit("decode 0")).otherwise("stratum")
    (row,) = rearrangement_effects(
        moved((300, 400)), table.with_columns(later.alias("stratum")), cells
    ).to_dicts()
    assert row["before"] is None


def test_a_rearrangement_with_nothing_on_one_side_has_no_gain() -> None:
    (row,) = rearrangement_effects(moved((0, 5)), *halved((30, 30, 30, 22, 22))).to_dicts()
    for name in ("phase", "before", "after", "gain_ns", "payback_steps"):
        assert row[name] is None
    assert row["stall_ns"] == 0
    assert rearrangement_effects(moved((0, 5)).head(0), *halved((1,) * 5)).is_empty()


# --- waiting and work ----------------------------------------------------------------------------

CELL = {"phase": pl.String, "ranks": pl.Int64, "slowest_ns": pl.Int64, "mean_ns": pl.Float64}
WAIT = {"phase": pl.String, "collective": pl.String, "is_matched": pl.Boolean, "wait_ns": pl.Int64}


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 500), min_size=2, max_size=4), min_size=1, max_size=5))
def test_unequal_work_before_a_meeting_is_all_of_its_waiting(works: list[list[int]]) -> None:
    """Ranks work for d₁ … d_R and meet: they wait max d - dᵢ, R × (slowest - mean) in all."""
    cells = [("decode", len(d), max(d), sum(d) / len(d)) for d in works]
    waits = [("decode", "all_reduce", True, max(d) - own) for d in works for own in d]
    (row,) = conservation(
        pl.DataFrame(cells, schema=CELL, orient="row"),
        pl.DataFrame(waits, schema=WAIT, orient="row"),
    ).to_dicts()
    assert row["wait_ns"] == sum(wait for *_, wait in waits)
    assert row["unequal_ns"] == pytest.approx(row["wait_ns"], abs=1e-6)
    assert row["unexplained_ns"] == pytest.approx(0, abs=1e-6)


def test_waiting_by_phase_and_what_is_left_out_of_it() -> None:
    cells = pl.DataFrame(
        [("decode", 2, 10, 8.0), (None, 2, 30, 20.0), ("prefill", 2, 5, 5.0)],
        schema=CELL, orient="row",
    )  # fmt: skip
    waits = pl.DataFrame(
        [
            ("decode", "all_reduce", True, 4), ("decode", "all_reduce", True, 100),
            ("decode", "send_recv", True, 7777), ("decode", "all_reduce", False, None),
            (None, "all_gather", True, 5),
        ],
        schema=WAIT, orient="row",
    )  # fmt: skip
    assert conservation(cells, waits).rows() == [
        ("decode", 104, 4.0, 100.0), ("unattributed", 5, 20.0, -15.0), ("prefill", 0, 0.0, 0.0)
    ]  # fmt: skip


def work(launches: int, tokens: int | None, **steps: int | None) -> dict[str, Any]:
    return {
        "launches": launches,
        "tokens": tokens,
        "phases": {phase: {"steps": count} for phase, count in steps.items()},
    }


def test_equal_work_differs_by_nothing() -> None:
    assert work_difference(work(100, 10, decode=5), work(100, 10, decode=5)) == {}


def test_work_that_differs() -> None:
    before, after = work(100, 10, decode=4, prefill=1), work(110, 5, decode=5, mixed=2)
    assert work_difference(before, after) == pytest.approx(
        {"launches": 0.1, "tokens": -0.5, "steps:decode": 0.25, "steps:prefill": -1.0,
         "steps:mixed": 1.0}
    )  # fmt: skip


def test_what_is_not_known_or_idle_is_no_difference() -> None:
    before, after = work(100, None, decode=None, idle=3), work(100, 10, decode=5, idle=90)
    assert work_difference(before, after) == {}
    assert work_difference(after, before) == {}


# --- two populations -----------------------------------------------------------------------------


def lognormal(count: int, mean: float, *, deviation: float = 0.1, seed: int = 1) -> list[float]:
    source = random.Random(seed)
    return [mean * math.exp(source.gauss(0, deviation)) for _ in range(count)]


@pytest.mark.parametrize("few", [20, 200])
def test_two_populations_are_parted_between_them(few: int) -> None:
    short, long = lognormal(200, 1e5), lognormal(few, 2e6, seed=2)
    parting = split_durations(np.array(short + long))
    assert parting is not None
    assert max(short) < parting < min(long)


def test_one_population_is_not_parted() -> None:
    assert split_durations(np.array(lognormal(400, 1e5))) is None
    assert split_durations(np.array([1e5] * 100)) is None


def test_fewer_than_sixteen_durations_say_nothing() -> None:
    short, long = lognormal(8, 1e5), lognormal(7, 2e6)
    assert split_durations(np.array(short + long)) is None
    assert split_durations(np.array([*short, *long, 0.0, 0.0])) is None
    assert split_durations(np.array([])) is None
    assert split_durations(np.array([1e4, 3e5] * 7)) is None


@settings(max_examples=30)
@given(st.floats(1e-2, 1e4), st.floats(4, 100), st.integers(0, 1000))
def test_partings_scale_with_durations(scale: float, ratio: float, seed: int) -> None:
    short, long = lognormal(100, 1e5, seed=seed), lognormal(40, ratio * 1e5, seed=seed + 1)
    durations = np.array(short + long)
    here, there = split_durations(durations), split_durations(durations * scale)
    assert here is not None
    assert there is not None
    # A duration between two bins may be rounded into the other one.
    assert there == pytest.approx(here * scale, rel=0.02)
    in_bins = split_durations(durations * math.exp(0.02 * 50))
    assert in_bins == pytest.approx(here * math.e, rel=1e-3)


# --- who is late ---------------------------------------------------------------------------------


def turns(last: str, communicator: int = 0, device: int = 0, host: int = 1) -> pl.DataFrame:
    """View ``arrival_turns`` of meetings in each of which rank A or B came last."""
    pairs = list(zip(last, f" {last}", strict=False))
    return pl.DataFrame(
        [
            (
                communicator, host << 48, 0, device + "AB".index(name), last.count(name),
                sum(here == name and before not in {name, " "} for here, before in pairs),
            )
            for name in sorted(set(last))
        ],
        schema=["communicator", "global_pid", "process_id", "device_id", "meetings", "switches"],
        orient="row",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("last", "shares", "switches"),
    [
        ("AAAAA", [(0, 5, 1.0)], 0.0),
        ("ABABA", [(0, 3, 0.6), (1, 2, 0.4)], 1.0),
        ("AAABB", [(0, 3, 0.6), (1, 2, 0.4)], 0.25),
        ("AABBAABB", [(0, 4, 0.5), (1, 4, 0.5)], 3 / 7),
    ],
)
def test_the_last_is_stable_or_rotates(
    last: str, shares: list[tuple[int, int, float]], switches: float
) -> None:
    found = last_arrivals(turns(last)).to_dicts()
    assert [(row["device"], row["last"]) for row in found] == [known[:2] for known in shares]
    assert [row["share"] for row in found] == pytest.approx([known[2] for known in shares])
    assert [row["switches"] for row in found] == pytest.approx([switches] * len(found))


def test_one_meeting_switches_nothing() -> None:
    (row,) = last_arrivals(turns("A")).to_dicts()
    assert (row["last"], row["switches"]) == (1, None)
    assert last_arrivals(turns("A").clear()).is_empty()


def test_a_rank_that_is_always_the_last_of_its_group_does_not_rotate() -> None:
    found = last_arrivals(pl.concat([turns("AAAA"), turns("AAAA", 2, device=2)])).to_dicts()
    assert [(row["device"], row["last"], row["switches"]) for row in found] == [
        (0, 4, 0.0), (2, 4, 0.0)
    ]  # fmt: skip


def test_processes_of_two_hosts_that_share_a_number_are_two_ranks() -> None:
    found = last_arrivals(pl.concat([turns("AAAA"), turns("AAAA", host=2)])).to_dicts()
    assert [(row["global_pid"] >> 48, row["last"]) for row in found] == [(1, 4), (2, 4)]


def test_the_slowest_ranks_and_the_excess_of_their_cells() -> None:
    cells = pl.DataFrame(
        {"slowest_rank": [1, 0, 1, 1], "slowest_ns": [10, 20, 30, 40],
         "mean_ns": [8.0, 15.0, 30.0, 39.0]}
    )  # fmt: skip
    assert slowest_ranks(cells).rows() == [(1, 3, 0.75, 3.0), (0, 1, 0.25, 5.0)]


# --- what communication is for -------------------------------------------------------------------

KERNEL = {"class": pl.String, "backend": pl.String, "role": pl.String, "data_type": pl.String,
          "launches": pl.Int64, "total_ns": pl.Int64}  # fmt: skip
EXPERTS = ("moe_gemm", "triton", "experts", None, 32, 9999)
EPLB = ("eplb", "vllm", "map_and_record", None, 16, 5)


def purposes_of(*kernels: tuple[Any, ...]) -> dict[str, int]:
    found = purposes(pl.DataFrame(kernels, schema=KERNEL, orient="row"))
    assert found["time_ratio"].sum() == pytest.approx(1)
    return {
        row["purpose"] + ("" if row["backend"] == "nccl" else f" by {row['backend']}"): row[
            "total_ns"
        ]
        for row in found.to_dicts()
    }


def nccl(role: str, launches: int, total: int, data_type: str | None = None) -> tuple[Any, ...]:
    return ("collective", "nccl", role, data_type, launches, total)


def test_integers_are_bookkeeping_and_activations_the_models() -> None:
    assert purposes_of(
        EXPERTS, nccl("all_reduce", 34, 300, "bf16"), nccl("all_reduce", 8, 20, "u32"),
        nccl("all_reduce", 2, 1, "u64"), nccl("all_gather", 2, 7),
        ("collective", "vllm", "all_reduce", None, 5, 1000),
    ) == {"model by vllm": 1000, "model": 307, "bookkeeping": 21}  # fmt: skip


def test_all_gather_and_reduce_scatter_a_layer_dispatch_and_combine() -> None:
    assert purposes_of(
        EXPERTS, nccl("all_gather", 16, 60), nccl("reduce_scatter", 16, 40, "bf16"),
        nccl("all_reduce", 1, 3, "u32"),
    ) == {"dispatch": 60, "combine": 40, "bookkeeping": 3}  # fmt: skip


def test_broadcast_and_reduce_a_layer_dispatch_and_combine_too() -> None:
    naive = (nccl("broadcast", 32, 60), nccl("reduce", 16, 40, "bf16"))
    assert purposes_of(EXPERTS, *naive) == {"dispatch": 60, "combine": 40}
    # The two backends together are every layer.
    scattered = (nccl("all_gather", 10, 60), nccl("reduce_scatter", 10, 40, "bf16"))
    naive = (nccl("broadcast", 12, 6), nccl("reduce", 6, 4, "bf16"))
    assert purposes_of(EXPERTS, *scattered, *naive) == {"dispatch": 66, "combine": 44}


def test_pairs_rarer_than_layers_are_the_models() -> None:
    rare = (nccl("all_gather", 15, 60), nccl("reduce_scatter", 15, 40, "bf16"))
    assert purposes_of(EXPERTS, *rare) == {"model": 100}
    assert purposes_of(*rare) == {"model": 100}
    assert purposes_of(EXPERTS, nccl("all_gather", 16, 60)) == {"model": 60}


def test_sends_move_weights_beside_eplb_alone() -> None:
    assert purposes_of(EXPERTS, EPLB, nccl("send_recv", 14, 50)) == {"weights": 50}
    assert purposes_of(EXPERTS, nccl("send_recv", 14, 50)) == {"model": 50}


def test_dedicated_kernels_say_it_themselves() -> None:
    assert purposes_of(
        EXPERTS, ("moe_all2all", "deepep", "dispatch", None, 16, 7),
        ("moe_all2all", "deepep", "combine", None, 16, 9),
    ) == {"combine by deepep": 9, "dispatch by deepep": 7}  # fmt: skip


# --- engines and tokens --------------------------------------------------------------------------


def meetings(*rows: tuple[int, int, str, str | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={"global_pid": pl.Int64, "name_id": pl.Int64, "collective": pl.String,
                "data_type": pl.String, "communicator": pl.Int64},
        orient="row",
    )  # fmt: skip


TENSOR_PARALLEL = meetings(*[(pid, 1, "all_reduce", "bf16", 0) for pid in (100, 200)])
DATA_PARALLEL = meetings(
    *[(pid, 2, "all_reduce", "u32", 0) for pid in (100, 200)],
    *[(pid, 3, "all_gather", None, 0) for pid in (100, 200)],
    *[(pid, 4, "reduce_scatter", "bf16", 0) for pid in (100, 200)],
)


def test_ranks_that_sum_activations_are_one_engine() -> None:
    assert sorted(engines(TENSOR_PARALLEL).rows()) == [(100, 100), (200, 100)]
    custom = meetings(*[(pid, 1, "all_reduce", None, 0) for pid in (100, 200)])
    assert sorted(engines(custom).rows()) == [(100, 100), (200, 100)]


def test_data_parallel_ranks_are_engines_of_their_own() -> None:
    assert engines(DATA_PARALLEL).is_empty()
    unmatched = meetings((100, 1, "all_reduce", "bf16", None), (200, 1, "all_reduce", "bf16", None))
    assert engines(unmatched).is_empty()


def test_two_groups_of_two_are_two_engines() -> None:
    four = meetings(
        *[(pid, 1, "all_reduce", "bf16", 0) for pid in (100, 200)],
        *[(pid, 1, "all_reduce", "bf16", 2) for pid in (300, 400)],
        # All four exchange counts.
        *[(pid, 2, "all_reduce", "i32", 0) for pid in (100, 200, 300, 400)],
    )
    assert sorted(engines(four).rows()) == [(100, 100), (200, 100), (300, 300), (400, 300)]


STEPS = pl.DataFrame(
    [
        (pid, step, phase, context, generation)
        for pid in (100, 200)
        for step, (phase, context, generation) in enumerate(
            [("prefill", 64, 0), ("decode", 0, 2), ("decode", 0, 2)]
        )
    ],
    schema=["global_pid", "step", "phase", "context_tokens", "generation_tokens"],
    orient="row",
)
RANKED = {
    "rank": pl.Int64, "step": pl.Int64, "pass": pl.Int64, "phase": pl.String, "dur_ns": pl.Int64,
    "launches": pl.Int64,
}  # fmt: skip


NOTHING = (
    pl.DataFrame(schema=RANKED),
    pl.DataFrame(
        schema={"rank": pl.Int64, "phase": pl.String, "steps": pl.Int64, "passes": pl.Int64}
    ),
)


def times_of(
    steps: pl.DataFrame, launches: Sequence[tuple[Any, ...]], communication: pl.DataFrame
) -> list[tuple[Any, ...]]:
    """Return what ``phase_times`` says of launches, each given alone."""
    summed = pl.DataFrame([(*row, 1) for row in launches], schema=RANKED, orient="row")
    launched_in = summed.group_by("rank", "phase").agg(
        pl.col("step", "pass").drop_nulls().n_unique().cast(pl.Int64)
    )
    launched_in = launched_in.rename({"step": "steps", "pass": "passes"})
    return phase_times(steps, summed, launched_in, CRITICAL, engines(communication)).rows()


PHASED = [
    (0, 0, 0, "prefill", 30), (1, 0, 0, "prefill", 40), (0, 1, 1, "decode", 4),
    (1, 1, 1, "decode", 6), (0, None, None, None, 1), (0, None, 2, "dummy", 2),
    (0, None, 2, "dummy", 2), (0, None, 3, "dummy", 2), (1, None, 3, "dummy", 2),
]  # fmt: skip
CRITICAL = pl.DataFrame({"phase": ["prefill", "decode"], "slowest_ns": [40, 6]})


@pytest.mark.parametrize(
    ("communication", "tokens"), [(TENSOR_PARALLEL, (64, 4)), (DATA_PARALLEL, (128, 8))]
)
def test_an_engines_tokens_count_once_and_those_of_two_engines_twice(
    communication: pl.DataFrame, tokens: tuple[int, int]
) -> None:
    """Though data-parallel ranks walk through identical steps here."""
    assert times_of(STEPS, PHASED, communication) == [
        ("prefill", 1, 2, 70, 40, tokens[0]),
        ("decode", 2, 2, 10, 6, tokens[1]),
        # Rank 0 made two such passes, rank 1 one.
        ("dummy", 2, 4, 8, None, 0),
        ("unattributed", 0, 1, 1, None, 0),
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "prefill", "decode"]), st.none() | st.integers(1, 30)),
        max_size=40,
    )
)
def test_grids_of_each_phase(launches: list[tuple[str | None, int | None]]) -> None:
    counts = Counter(launches)
    grids = pl.DataFrame(
        [(*key, count) for key, count in counts.items()],
        schema={"phase": pl.String, "blocks": pl.Int64, "launches": pl.Int64}, orient="row",
    )  # fmt: skip
    expected = {}
    for phase in {phase for phase, _ in launches if phase is not None}:
        known = [blocks for told, blocks in launches if told == phase and blocks is not None]
        expected[phase] = {
            "median": median(known) if known else None, "largest": max(known, default=None)
        }  # fmt: skip
    times = phase_times(STEPS.head(0), *NOTHING, CRITICAL.head(0), engines(DATA_PARALLEL))
    assert work_done(times, grids)["blocks"] == expected


def test_without_ranges_steps_are_counted_by_launches_and_tokens_are_unknown() -> None:
    launches = [
        (0, 0, 0, "decode", 3), (0, 1, 1, "decode", 3), (1, 0, 0, "decode", 3),
        (1, None, None, "prefill", 9),
    ]  # fmt: skip
    assert times_of(STEPS.head(0), launches, DATA_PARALLEL) == [
        ("decode", 2, 3, 9, 6, None),
        ("prefill", None, 1, 9, 40, None),
    ]
