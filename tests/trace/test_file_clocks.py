"""Clocks of files, against clocks that were made up."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nsysmoe.trace.file_clocks import align_files

RNG = np.random.default_rng(7)
SECOND = 1_000_000_000


def ends(
    clocks: list[tuple[int, float]], groups: list[list[int]], noise: float = 0.0
) -> pl.DataFrame:
    """Return the ends of collectives, as files tell them whose clocks are (ahead, drift) off.

    Args:
        clocks: How far each file's clock is ahead at 0, ns, and its drift in ppm.
        groups: The files of each communicator; 60 collectives of each over ten seconds.
        noise: How far ends of one collective are apart, ns.
    """
    rows = []
    for series, files in enumerate(groups):
        true = np.sort(RNG.integers(0, 10 * SECOND, 60))
        for file in files:
            ahead, drift = clocks[file]
            late = RNG.normal(0, noise, true.size) if noise else 0.0
            told = true + ahead + true * drift / 1e6 + late
            rows += [
                {"file": file, "rank": file, "series": series, "launches": 60, "ordinal": number,
                 "end_ns": round(end)}
                for number, end in enumerate(told)
            ]  # fmt: skip
    return pl.DataFrame(rows)


def test_offset_and_drift_are_found() -> None:
    first, second, third = align_files(
        ends([(0, 0), (3_000_000, 20), (-70_000_000, -5)], [[0, 1, 2]]), [0, 1, 2]
    )
    assert (first.offset_ns, first.residual_ns, first.is_applied) == (0, 0, False)
    assert second.drift_ppm == pytest.approx(20, abs=0.01)
    # At its first meeting, told by its own clock.
    at = second.zero_ns - second.offset_ns
    assert second.offset_ns == pytest.approx(3_000_000 + 20e-6 * at, abs=5)
    assert third.drift_ppm == pytest.approx(-5, abs=0.01)
    assert all(clock.is_applied and clock.reference == 0 for clock in (second, third))
    assert second.residual_ns == pytest.approx(1, abs=1)


def test_the_residual_is_what_ends_differ_by() -> None:
    (_, second) = align_files(ends([(0, 0), (1_000_000, 0)], [[0, 1]], noise=5_000), [0, 1])
    # Of the difference of two normal ends 95 % lie within 1.96 x sqrt(2) x 5 us.
    assert second.residual_ns == pytest.approx(13_900, rel=0.35)
    assert second.drift_ppm == 0
    assert second.offset_ns == pytest.approx(1_000_000, abs=4_000)


def test_a_file_is_reached_through_another() -> None:
    clocks = align_files(
        ends([(0, 0), (2_000_000, 10), (5_000_000, -10)], [[0, 1], [1, 2]], noise=1_000), [0, 1, 2]
    )
    assert [clock.reference for clock in clocks] == [None, 0, 1]
    assert clocks[2].offset_ns - 5_000_000 == pytest.approx(-10e-6 * clocks[2].zero_ns, abs=2_000)
    assert (clocks[2].residual_ns or 0) > (clocks[1].residual_ns or 0)


def test_collectives_of_other_communicators_are_not_taken_for_shared() -> None:
    # Each file reduces with itself alone, as often as the other: their ends say nothing.
    table = pl.concat(
        [
            ends([(0, 0)], [[0]]),
            ends([(0, 0)], [[0]]).with_columns(
                pl.lit(1, pl.Int64).alias(name) for name in ("file", "rank")
            ),
        ]
    )
    clocks = align_files(table, [0, 1])
    assert clocks[1].residual_ns is None
    assert not clocks[1].is_applied


def test_files_of_one_host_keep_their_clock_unless_it_is_off() -> None:
    table = ends([(0, 0), (9_000, 0), (90_000, 0)], [[0, 1, 2]], noise=500)
    clocks = align_files(table, [0, 0, 0])
    assert [clock.is_applied for clock in clocks] == [False, False, True]
    # Of two hosts nobody knows that they share a clock.
    assert align_files(table, [0, 1, 2])[1].is_applied


def test_one_late_end_does_not_tilt_the_line() -> None:
    table = ends([(0, 0), (4_000_000, 0)], [[0, 1]], noise=100)
    late = (pl.col("file") == 1) & (pl.col("ordinal") == 59)
    table = table.with_columns(
        pl.when(late).then(pl.col("end_ns") + 50_000_000).otherwise("end_ns").alias("end_ns")
    )
    assert align_files(table, [0, 1])[1].offset_ns == pytest.approx(4_000_000, abs=200)


def wandering(chance: np.random.Generator, seconds: float, drift_ppm: float) -> pl.DataFrame:
    """Return ends of two files whose differences stay alike from one collective to the next."""
    true = np.sort(chance.integers(0, int(seconds * SECOND), 120))
    apart = np.zeros(true.size)
    for number in range(1, true.size):
        apart[number] = 0.8 * apart[number - 1] + chance.normal(0, 3_000)
    told = [true, true + 2_000_000 + true * drift_ppm / 1e6 + apart]
    return pl.DataFrame(
        [
            {"file": file, "rank": file, "series": 0, "launches": 120, "ordinal": number,
             "end_ns": round(end)}
            for file, ends_ in enumerate(told)
            for number, end in enumerate(ends_)
        ]
    )  # fmt: skip


def test_a_short_capture_shows_no_drift_that_is_not_there() -> None:
    chance = np.random.default_rng(11)
    fits = [align_files(wandering(chance, 0.4, 0), [0, 1])[1] for _ in range(100)]
    assert sum(fit.drift_ppm != 0 for fit in fits) <= 3
    assert all(abs(fit.offset_ns - 2_000_000) <= (fit.residual_ns or 0) for fit in fits)


def test_a_drift_that_moves_ends_further_than_they_scatter_is_found() -> None:
    chance = np.random.default_rng(12)
    fits = [align_files(wandering(chance, 10, 20), [0, 1])[1] for _ in range(50)]
    assert all(fit.drift_ppm == pytest.approx(20, abs=3) for fit in fits)


def test_a_drift_that_is_left_out_is_in_the_residual() -> None:
    # 0.4 s at 20 ppm are 8 us, which ends scatter by.
    chance = np.random.default_rng(13)
    for _ in range(20):
        fit = align_files(wandering(chance, 0.4, 20), [0, 1])[1]
        assert fit.drift_ppm == 0 or fit.drift_ppm > 0
        true = 2_000_000 + np.array([0.0, 0.4 * SECOND]) * 20e-6
        at = np.array([0.0, 0.4 * SECOND]) + 2_000_000
        fitted = fit.offset_ns + fit.drift_ppm / 1e6 * (at - fit.zero_ns)
        assert (np.abs(fitted - true) <= (fit.residual_ns or 0)).all()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("step", [30_000, 90_000, 2_000_000, -130_000_000])
def test_a_clock_that_was_set_midway_is_said_or_stands_on_utc(part: float, step: int) -> None:
    """NTP sets a clock that is off by more than 128 ms at once, and slews less than that."""
    chance = np.random.default_rng(14)
    true = np.sort(chance.integers(0, 10 * SECOND, 120))
    ahead = 2_000_000 + np.where(true >= part * 10 * SECOND, step, 0)
    told = np.rint(true + ahead + chance.normal(0, 1_000, true.size)).astype(np.int64)
    table = pl.DataFrame(
        [
            {"file": file, "rank": file, "series": 0, "launches": 120, "ordinal": number,
             "end_ns": int(end)}
            for file, ends_ in enumerate([true, told])
            for number, end in enumerate(ends_)
        ]
    )  # fmt: skip
    fit = align_files(table, [0, 1])[1]
    if fit.residual_ns is None:
        assert not fit.is_applied
        return
    off = np.abs(told - fit.corrected(told) - ahead)
    assert (off <= fit.residual_ns).mean() >= 0.9
    assert fit.residual_ns > min(abs(step) / 10, 3_000)
