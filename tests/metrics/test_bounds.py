"""What bounds a phase: causes add up to the window, whatever the ledger says."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.metrics.kernel_time.bounds import bounds, longest_window, time_causes
from nsysmoe.metrics.kernel_time.causes import BOUNDS, TIME_CAUSES

PLACE = {
    "global_pid": pl.Int64,
    "process_id": pl.Int64,
    "device_id": pl.Int64,
    "phase": pl.String,
}
TIME = ("window_ns", "moe_ns", "compute_ns", "exposed_copy_ns", "exposed_transfer_ns",
        "exposed_unmatched_ns", "exposed_wait_ns")  # fmt: skip
GAPS = ("blocked_ns", "calling_ns", "outside_ns", "launched_ns", "unknown_ns")
LEDGER = ("moe_ns", "other_kernels_ns", "host_ns", "other_gap_ns", "previous_end_ns", "residual_ns")
WAITS = ("wait_moe", "wait_other_kernels", "wait_host", "wait_other_gap", "wait_unexplained")
Row = dict[str, Any]


def frame(columns: tuple[str, ...], *rows: Row) -> pl.DataFrame:
    filled = [
        {"global_pid": 1, "process_id": 1, "device_id": 0, "phase": "decode"}
        | dict.fromkeys(columns, 0)
        | row
        for row in rows
    ]
    return pl.DataFrame(filled, schema={**PLACE, **dict.fromkeys(columns, pl.Int64)})


def time_row(**values: Any) -> Row:
    """Return a row whose window is what was spent in it, and ``idle``."""
    idle = values.pop("idle", 0)
    spent = sum(value for name, value in values.items() if name in TIME and name != "moe_ns")
    return {"window_ns": spent + idle, **values}


def split(time: list[Row], gaps: list[Row], ledger: list[Row]) -> list[Row]:
    found = time_causes(frame(TIME, *time), frame(GAPS, *gaps), frame(LEDGER, *ledger))
    for row in found.to_dicts():
        assert sum(row[cause] for cause in TIME_CAUSES) == pytest.approx(row["window_ns"], abs=1e-6)
    return found.to_dicts()


def test_causes_and_bounds_name_the_same() -> None:
    assert sorted(TIME_CAUSES) == sorted(cause for parts in BOUNDS.values() for cause in parts)
    assert len(set(TIME_CAUSES)) == len(TIME_CAUSES)


def test_each_kind_of_time_is_its_own_cause() -> None:
    time = time_row(compute_ns=100, moe_ns=70, exposed_copy_ns=5, exposed_transfer_ns=8,
                    exposed_unmatched_ns=3, exposed_wait_ns=40, idle=100)  # fmt: skip
    gaps = {"blocked_ns": 40, "calling_ns": 20, "outside_ns": 10, "launched_ns": 25,
            "unknown_ns": 5}  # fmt: skip
    ledger = {"moe_ns": 5, "other_kernels_ns": 5, "host_ns": 20, "other_gap_ns": 6,
              "previous_end_ns": 3, "residual_ns": 1}  # fmt: skip
    (row,) = split([time], [gaps], [ledger])
    assert {cause: row[cause] for cause in TIME_CAUSES} == pytest.approx({
        "moe": 70, "other_compute": 30, "copy": 5, "transfer": 8, "unmatched": 3,
        "host": 30, "sync": 40, "latency": 25, "unknown_launch": 5,
        "wait_moe": 5, "wait_other_kernels": 5, "wait_host": 20, "wait_other_gap": 6,
        "wait_unexplained": 4,
    })  # fmt: skip


def test_waiting_goes_to_what_made_the_other_rank_late_in_proportion() -> None:
    """Overlap hid half of the ledger's waiting: the exposed half is split as the whole was."""
    (row,) = split(
        [time_row(exposed_wait_ns=50)], [], [{"moe_ns": 60, "host_ns": 30}, {"moe_ns": 10}]
    )
    assert [row[name] for name in WAITS] == pytest.approx([35, 0, 15, 0, 0])


def test_what_shortened_a_wait_is_no_cause_of_it() -> None:
    """Sums over the phase count: +30 and -10 of host are 20; other kernels shortened it by 40."""
    ledger = [
        {"moe_ns": 60, "other_kernels_ns": -40, "host_ns": 30},
        {"moe_ns": 20, "host_ns": -10},
    ]
    (row,) = split([time_row(exposed_wait_ns=60)], [], ledger)
    assert [row[name] for name in WAITS] == pytest.approx([48, 0, 12, 0, 0])


def test_previous_end_and_residual_cancel_before_they_count() -> None:
    ledger = [{"moe_ns": 30, "previous_end_ns": 50, "residual_ns": -40}]
    (row,) = split([time_row(exposed_wait_ns=40)], [], ledger)
    assert [row[name] for name in WAITS] == pytest.approx([30, 0, 0, 0, 10])


@pytest.mark.parametrize("ledger", [[], [{"moe_ns": -5}]], ids=["none", "negative"])
def test_waiting_without_a_positive_cause_is_unexplained(ledger: list[Row]) -> None:
    (row,) = split([time_row(exposed_wait_ns=60)], [], ledger)
    assert [row[name] for name in WAITS] == [0, 0, 0, 0, 60]


def test_a_ledger_of_another_phase_or_rank_does_not_count() -> None:
    ledger: list[Row] = [{"phase": "prefill", "moe_ns": 9}, {"device_id": 1, "moe_ns": 9},
              {"global_pid": 2, "moe_ns": 9}]  # fmt: skip
    (row,) = split([time_row(exposed_wait_ns=60)], [], ledger)
    assert row["wait_unexplained"] == 60


def test_a_phase_that_is_not_known_has_a_name_and_keeps_its_waiting() -> None:
    (row,) = split(
        [time_row(phase=None, exposed_wait_ns=60, idle=10)],
        [{"phase": None, "outside_ns": 10}],
        [{"phase": None, "moe_ns": 9}],
    )
    assert (row["phase"], row["wait_moe"], row["host"]) == ("unattributed", 60, 10)


def test_processes_that_an_old_export_does_not_name() -> None:
    nobody = {"global_pid": None, "process_id": None}
    (row,) = split(
        [time_row(**nobody, exposed_wait_ns=60, idle=10)],
        [{**nobody, "outside_ns": 10}],
        [{**nobody, "moe_ns": 9}],
    )
    assert (row["wait_moe"], row["host"]) == (60, 10)


def test_steps_of_a_phase_add_up() -> None:
    rows = [time_row(compute_ns=10, idle=5), time_row(compute_ns=20, idle=5)]
    (row,) = split(rows, [{"outside_ns": 5}, {"blocked_ns": 5}], [])
    assert (row["window_ns"], row["other_compute"], row["host"], row["sync"]) == (40, 30, 5, 5)


def test_nothing_at_all() -> None:
    causes = time_causes(frame(TIME), frame(GAPS), frame(LEDGER))
    assert causes.is_empty()
    assert bounds(causes, ("phase",)).is_empty()
    assert longest_window(causes) == dict.fromkeys(TIME_CAUSES, 0.0)


def test_the_largest_share_bounds_and_balance_is_its_own() -> None:
    rows = [
        time_row(phase="decode", compute_ns=20, moe_ns=10, exposed_wait_ns=40, idle=40),
        time_row(phase="prefill", compute_ns=200, moe_ns=150),
    ]
    gaps = [{"outside_ns": 39, "launched_ns": 1}]
    causes = time_causes(
        frame(TIME, *rows), frame(GAPS, *gaps), frame(LEDGER, {"moe_ns": 3, "host_ns": 1})
    )
    prefill, decode = bounds(causes, ("phase",)).to_dicts()
    assert (prefill["phase"], prefill["bound"], prefill["window_ns"]) == ("prefill", "moe", 200)
    assert prefill["moe"] == 0.75
    assert prefill["balance_ratio"] == 0
    # Host 39 + 10 of the waiting, MoE 10 + 30 of it.
    assert decode["bound"] == "host"
    assert decode["host"] == pytest.approx(0.49)
    assert decode["moe"] == pytest.approx(0.40)
    assert decode["balance_ratio"] == pytest.approx(0.30)
    assert decode["wait_moe_ns"] == pytest.approx(30)


def test_the_wall_time_is_that_of_the_longest_window_over_its_phases() -> None:
    rows = [
        time_row(device_id=0, compute_ns=60),
        time_row(device_id=0, phase="prefill", compute_ns=60),
        time_row(device_id=1, compute_ns=100),
    ]
    found = longest_window(time_causes(frame(TIME, *rows), frame(GAPS), frame(LEDGER)))
    assert sum(found.values()) == found["other_compute"] == 120


NS = st.integers(0, 10**12)
PLACES = st.fixed_dictionaries(
    {
        "global_pid": st.sampled_from([None, 1]),
        "device_id": st.integers(0, 1),
        "phase": st.sampled_from([None, "decode", "prefill"]),
    }
)


@st.composite
def spent_rows(draw: st.DrawFn) -> tuple[list[Row], list[Row], list[Row]]:
    """Return device_time and gaps that fit to one another, and any ledger."""
    time, gaps = [], []
    for _ in range(draw(st.integers(1, 5))):
        place, compute = draw(PLACES), draw(NS)
        parts = draw(st.lists(NS, min_size=5, max_size=5))
        waits = {name: draw(NS) for name in TIME[3:]}
        time.append(time_row(**place, compute_ns=compute, moe_ns=min(compute, draw(NS)), **waits,
                             idle=sum(parts)))  # fmt: skip
        gaps.append({**place, **dict(zip(GAPS, parts, strict=True))})
    any_ns = st.integers(-(10**12), 10**12)
    ledger = st.fixed_dictionaries(dict.fromkeys(LEDGER, any_ns))
    rows = [{**draw(PLACES), **draw(ledger)} for _ in range(draw(st.integers(0, 5)))]
    return time, gaps, rows


@settings(max_examples=60)
@given(spent_rows())
def test_causes_add_up_and_shares_to_one_whatever_was_spent(
    spent: tuple[list[Row], list[Row], list[Row]],
) -> None:
    time, gaps, ledger = spent
    causes = time_causes(frame(TIME, *time), frame(GAPS, *gaps), frame(LEDGER, *ledger))
    assert causes["window_ns"].sum() == sum(row["window_ns"] for row in time)
    for row in causes.to_dicts():
        whole = row["window_ns"]
        parts = [row[cause] for cause in TIME_CAUSES]
        assert sum(parts) == pytest.approx(whole, rel=1e-12, abs=1e-6)
        # Nothing is negative but what rounding leaves of a wait that is explained in full.
        assert min(parts) >= -1e-9 * whole
    for by in (("phase",), ("phase", "global_pid", "device_id")):
        for row in bounds(causes, by).to_dicts():
            shares = {name: row[name] for name in BOUNDS}
            assert sum(shares.values()) == pytest.approx(1)
            assert shares[row["bound"]] == max(shares.values())
            assert 0 <= row["balance_ratio"] <= shares["moe"] + 1e-9
