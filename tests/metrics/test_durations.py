"""Duration statistics against plain Python."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsysmoe.metrics.kernel_time import durations as durations_module
from nsysmoe.metrics.kernel_time.durations import (
    STATISTICS,
    counted_statistics,
    pooled_statistics,
)
from tests.oracle import statistics_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def duration_statistics(events: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Count launches, then summarise."""
    counts = events.group_by(*by, "dur_ns").agg(pl.len().cast(pl.Int64).alias("launches"))
    return counted_statistics(counts, by)


DURATIONS = st.lists(st.integers(0, 10**12), min_size=1, max_size=50)


@given(DURATIONS)
def test_equals_plain_python(durations: list[int]) -> None:
    found = duration_statistics(pl.DataFrame({"dur_ns": durations})).row(0, named=True)
    for key, expected in statistics_of(durations).items():
        assert found[key] == (None if expected is None else pytest.approx(expected, rel=1e-9)), key


@given(DURATIONS)
def test_counts_say_what_launches_do(durations: list[int]) -> None:
    counted = Counter(durations)
    # One duration may have several rows, as ids of names may share a name.
    rows = [*((value, 1) for value in counted), *((value, n - 1) for value, n in counted.items())]
    counts = pl.DataFrame(rows, schema={"dur_ns": pl.Int64, "launches": pl.Int64}, orient="row")
    launches = pl.DataFrame({"dur_ns": durations})
    assert counted_statistics(counts).equals(duration_statistics(launches))


@given(DURATIONS)
def test_the_deviation_is_exact(durations: list[int]) -> None:
    found = duration_statistics(pl.DataFrame({"dur_ns": durations}))["stddev_ns"].item()
    if len(durations) == 1:
        assert found is None
    else:
        assert found == pytest.approx(
            math.sqrt(Fraction(statistics.variance(map(Fraction, durations)))), rel=4e-16
        )


def test_groups_beyond_what_is_summed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(2)
    rows = [(chance.choice([None, 1, 2, 3]), chance.randrange(1, 50)) for _ in range(500)]
    schema = {"device": pl.Int64, "dur_ns": pl.Int64}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    whole = duration_statistics(events, ["device"])
    monkeypatch.setattr(durations_module, "_ROWS_AT_ONCE", 60)
    assert duration_statistics(events, ["device"]).equals(whole)
    for row in whole.iter_rows(named=True):
        mine = [duration for device, duration in rows if device == row["device"]]
        assert row["stddev_ns"] == pytest.approx(statistics.stdev(mine), rel=1e-12)


def test_an_example_to_check_by_eye() -> None:
    found = duration_statistics(pl.DataFrame({"dur_ns": [10, 20, 30, 40]})).row(0, named=True)
    assert found == {
        "launches": 4,
        "total_ns": 100,
        "mean_ns": 25.0,
        "median_ns": 25.0,
        "min_ns": 10,
        "max_ns": 40,
        "stddev_ns": pytest.approx(12.909944),
        "cv": pytest.approx(0.5163978),
        "max_min_ratio": 4.0,
        "p95_ns": pytest.approx(38.5),
        "p99_ns": pytest.approx(39.7),
    }


def test_groups_and_their_order() -> None:
    events = pl.DataFrame({"device": [0, 1, 1], "dur_ns": [5, 3, 4]})
    found = duration_statistics(events, ["device"])
    assert found["device"].to_list() == [1, 0]
    assert found["total_ns"].to_list() == [7, 5]
    assert found.columns == ["device", *STATISTICS]


def test_nothing_launched() -> None:
    found = duration_statistics(pl.DataFrame({"dur_ns": []}, schema={"dur_ns": pl.Int64}))
    assert found.row(0)[:2] == (0, 0)
    assert set(found.row(0)[2:]) == {None}


@given(st.lists(DURATIONS, min_size=1, max_size=5))
def test_pooling_equals_having_all_launches(kernels: list[list[int]]) -> None:
    rows = [statistics_of(durations) for durations in kernels]
    keys = ["launches", "total_ns", "mean_ns", "median_ns", "min_ns", "max_ns", "stddev_ns"]
    frame = pl.DataFrame(
        {key: [row[key] for row in rows] for key in keys},
        schema_overrides=dict.fromkeys(["mean_ns", "median_ns", "stddev_ns"], pl.Float64),
        strict=False,
    )
    found = pooled_statistics(frame).row(0, named=True)
    everything = [duration for durations in kernels for duration in durations]
    expected = statistics_of(everything)
    for key in ("launches", "total_ns", "min_ns", "max_ns", "mean_ns"):
        assert found[key] == pytest.approx(expected[key], rel=1e-9)
    if expected["stddev_ns"] is None:
        assert found["stddev_ns"] is None
    else:
        tolerance = 1e-6 * (statistics.fmean(everything) + 1)
        assert found["stddev_ns"] == pytest.approx(expected["stddev_ns"], abs=tolerance)


def test_what_one_kernel_lacks_is_unknown_for_all() -> None:
    frame = pl.DataFrame(
        {
            "launches": [2, 2],
            "total_ns": [4, 6],
            "mean_ns": [2.0, 3.0],
            "median_ns": [2.0, 3.0],
            "min_ns": [1, None],
            "max_ns": [3, 4],
            "stddev_ns": [1.0, None],
        }
    )
    found = pooled_statistics(frame).row(0, named=True)
    assert (found["min_ns"], found["stddev_ns"], found["median_ns"]) == (None, None, None)
    assert (found["total_ns"], found["max_ns"], found["mean_ns"]) == (10, 4, 2.5)


def test_order_of_rows_means_nothing() -> None:
    durations = list(range(1, 100))
    random.Random(1).shuffle(durations)
    shuffled = duration_statistics(pl.DataFrame({"dur_ns": durations}))
    assert shuffled.equals(duration_statistics(pl.DataFrame({"dur_ns": sorted(durations)})))
