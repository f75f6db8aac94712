"""What clocks leave unsure of waiting, against arrivals and clocks that were made up."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nsysmoe.metrics.kernel_time.clock_error import (
    transfer_uncertainty,
    transfers_across_clocks,
    uncertain_metrics,
    wait_uncertainty,
    waits_across_clocks,
)

Arrivals = np.ndarray[tuple[int, int], np.dtype[np.int64]]
TOOK_NS = 40_000


def events(
    arrivals: Arrivals, files: list[int], departures: Arrivals | None = None
) -> pl.DataFrame:
    """Return collectives as files tell them: times in ns, a row a meeting, a column a rank.

    All leave at once where ``departures`` is left out.
    """
    last = arrivals.max(axis=1)
    left = last[:, None] + np.full(arrivals.shape, TOOK_NS) if departures is None else departures
    rows = [
        {
            "kernel_id": meeting * len(files) + rank,
            "file": file,
            "name_id": 0,
            "communicator": 0,
            "ordinal": meeting,
            "is_matched": True,
            "is_last": bool(arrivals[meeting, rank] == last[meeting]),
            "wait_ns": int(last[meeting] - arrivals[meeting, rank]),
            "dur_ns": int(left[meeting, rank] - arrivals[meeting, rank]),
        }
        for meeting in range(len(arrivals))
        for rank, file in enumerate(files)
    ]
    return pl.DataFrame(rows)


def total(arrivals: Arrivals) -> int:
    return int((arrivals.max(axis=1, keepdims=True) - arrivals).sum())


def uncertainty(told: Arrivals, files: list[int], residuals: list[float | None]) -> int:
    across = waits_across_clocks(events(told, files), residuals)
    return int(wait_uncertainty(across.filter(~pl.col("is_last")))["wait_uncertainty_ns"].sum())


@pytest.mark.parametrize("seed", range(40))
def test_no_offset_within_the_residuals_moves_a_total_by_more(seed: int) -> None:
    chance = np.random.default_rng(seed)
    files = [0, 0, 1, 2, 2][: chance.integers(2, 6)]
    residuals: list[float | None] = [0.0, 3_000.0, 8_000.0]
    true = chance.integers(0, 30_000, (25, len(files)))
    off = np.round([chance.uniform(-1, 1) * (residuals[file] or 0) for file in range(3)])
    told = true + np.array([off[file] for file in files], np.int64)
    assert abs(total(told) - total(true)) <= uncertainty(told, files, residuals)


@pytest.mark.parametrize("spread", [0, 500])
def test_waits_that_are_the_clocks_alone_count_whole(spread: int) -> None:
    true = np.random.default_rng(5).integers(0, spread + 1, (200, 2))
    told = true + np.array([0, 6_000])
    found = uncertainty(told, [0, 1], [0.0, 6_000.0])
    assert abs(total(told) - total(true)) <= found
    # Nobody waited, and no more than that is said.
    assert found <= 200 * (6_000 + spread)


@pytest.mark.parametrize("seed", range(20))
def test_no_error_within_the_residuals_moves_a_wait_by_more(seed: int) -> None:
    chance = np.random.default_rng(seed)
    files = [0, 0, 1, 2]
    residuals = [0.0, 5_000.0, 9_000.0]
    true = chance.integers(0, 20_000, (30, 4))
    off = np.round(chance.uniform(-1, 1, (30, 3)) * residuals).astype(np.int64)
    told = true + off[:, files]
    found = waits_across_clocks(events(told, files), residuals).sort("kernel_id")
    waits = [frame - frame.max(axis=1, keepdims=True) for frame in (true, told)]
    apart = np.abs(waits[1] - waits[0]).ravel()
    # Where a duration says more than clocks do, what they cannot have been is left out.
    possible = (-waits[0] <= -waits[1] + TOOK_NS).ravel()
    assert (apart[possible] <= found["slack_ns"].to_numpy()[possible]).all()


def test_what_one_rank_always_waits_for_grows_with_meetings_and_turns_with_their_root() -> None:
    lead = np.full(400, 90_000)
    always = np.stack([np.zeros(400, np.int64), lead], axis=1)
    turns = always.copy()
    turns[::2] = turns[::2, ::-1]
    residuals: list[float | None] = [0.0, 2_000.0]
    for count in (100, 400):
        found = uncertainty(always[:count], [0, 1], residuals)
        assert found == pytest.approx(2_000 * (count + count**0.5), abs=1)
        assert uncertainty(turns[:count], [0, 1], residuals) == pytest.approx(
            2_000 * count**0.5, abs=1
        )


def test_meetings_within_one_file_are_as_sure_as_its_clock() -> None:
    told = np.array([[0, 70_000], [5_000, 0]])
    assert waits_across_clocks(events(told, [1, 1]), [0.0, 9_000.0]).is_empty()
    # A third rank that came long before the others leaves their order to their own clock.
    told = np.array([[-90_000, 0, 1_000]])
    found = waits_across_clocks(events(told, [0, 1, 1]), [0.0, 9_000.0]).sort("kernel_id")
    assert found["is_decided"].all()
    assert found["reach_ns"].to_list() == [9_000, 0, 0]


def test_a_clock_that_is_not_known_leaves_what_durations_say() -> None:
    told = np.array([[0, 70_000]])
    found = waits_across_clocks(events(told, [0, 1]), [0.0, None]).sort("kernel_id")
    assert not found["is_decided"].any()
    # The one that waited 70 us of its 110 us may have waited 0 to 110 us.
    assert found["slack_ns"].to_list() == [70_000, TOOK_NS]


def test_parts_are_told_apart_and_add_up_to_no_less() -> None:
    chance = np.random.default_rng(3)
    told = chance.integers(0, 50_000, (60, 2))
    across = waits_across_clocks(events(told, [0, 1]), [0.0, 4_000.0])
    waits = across.filter(~pl.col("is_last"))
    by_file = wait_uncertainty(waits, ["file"])
    assert by_file["file"].to_list() == [0, 1]
    whole = wait_uncertainty(waits)["wait_uncertainty_ns"].item()
    assert by_file["wait_uncertainty_ns"].sum() >= whole
    transfers = transfers_across_clocks(events(told, [0, 1]), [0.0, 4_000.0])
    found = uncertain_metrics(across, transfers, 2)
    assert found["wait_ns"] == whole
    # What a kernel waits less, it transfers more.
    assert found["exposed_transfer_ns"] == found["exposed_wait_ns"] > 0
    moved = transfer_uncertainty(transfers)["transfer_uncertainty_ns"].item()
    assert found["transfer_ns"] == moved > 0
    assert wait_uncertainty(waits.clear(), ["file"]).is_empty()


def moved(told: pl.DataFrame, residuals: list[float | None]) -> int:
    across = transfers_across_clocks(told, residuals)
    return int(transfer_uncertainty(across)["transfer_uncertainty_ns"].sum())


def transferred(arrivals: Arrivals, departures: Arrivals) -> Arrivals:
    found: Arrivals = departures.min(axis=1) - arrivals.max(axis=1)
    return found


@pytest.mark.parametrize("spread", [500, 30_000])
@pytest.mark.parametrize("seed", range(40))
def test_no_offset_within_the_residuals_moves_a_total_of_transfer_by_more(
    seed: int, spread: int
) -> None:
    chance = np.random.default_rng(seed)
    files = [0, 0, 1, 2, 2][: chance.integers(2, 6)]
    residuals: list[float | None] = [0.0, 3_000.0, 8_000.0]
    came = chance.integers(0, 30_000, (25, len(files)))
    left = came.max(axis=1, keepdims=True) + TOOK_NS + chance.integers(0, spread, came.shape)
    off = np.round([chance.uniform(-1, 1) * (residuals[file] or 0) for file in range(3)])
    by_rank = np.array([off[file] for file in files], np.int64)
    apart = transferred(came + by_rank, left + by_rank) - transferred(came, left)
    found = moved(events(came + by_rank, files, left + by_rank), residuals)
    assert abs(int(apart.sum())) * len(files) <= found


@pytest.mark.parametrize("seed", range(20))
def test_no_error_within_the_residuals_moves_a_transfer_by_more(seed: int) -> None:
    chance = np.random.default_rng(seed)
    files, residuals = [0, 0, 1, 2], [0.0, 5_000.0, 9_000.0]
    came = chance.integers(0, 20_000, (30, 4))
    left = came.max(axis=1, keepdims=True) + 2_000 + chance.integers(0, 9_000, came.shape)
    off = np.round(chance.uniform(-1, 1, (30, 3)) * residuals).astype(np.int64)[:, files]
    told = transferred(came + off, left + off)
    met = events(came + off, files, left + off)
    slack = transfers_across_clocks(met, residuals).sort("kernel_id")["slack_ns"].to_numpy()
    apart = np.abs(told - transferred(came, left))
    assert (apart <= slack.reshape(came.shape).max(axis=1)).all()


def test_a_transfer_that_one_rank_opens_and_ends_is_as_sure_as_its_clock() -> None:
    came, left = np.array([[0, 90_000]]), np.array([[190_000, 130_000]])
    found = transfers_across_clocks(events(came, [0, 1], left), [0.0, 9_000.0])
    assert found["is_decided"].all()
    assert moved(events(came, [0, 1], left), [0.0, 9_000.0]) == 0
    assert transfers_across_clocks(events(came, [1, 1], left), [0.0, 9_000.0]).is_empty()
    # One opens it and the other ends it: each of two ranks counts it, and both are off at once.
    left = left[:, ::-1]
    assert moved(events(came, [0, 1], left), [0.0, 9_000.0]) == 2 * 9_000 + 2 * 9_000


def test_of_a_clock_that_is_not_known_a_transfer_is_less_than_any_duration() -> None:
    came, left = np.array([[0, 70_000]]), np.array([[100_000, 110_000]])
    found = transfers_across_clocks(events(came, [0, 1], left), [0.0, None])
    assert not found["is_decided"].any()
    # 30 us were told: it may have been none, or the 40 us of the kernel that took least.
    assert found["slack_ns"].to_list() == [30_000, 30_000]
