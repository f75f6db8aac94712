"""Floats are added up to the same bits whatever the threads, their chunks, the order of rows."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nsysmoe.metrics.statistics.ordered_sum import ordered_sum

ROOT = Path(__file__).parents[2]


def told(threads: int, order: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.metrics.float_sums", str(order)],
        env={**os.environ, "POLARS_MAX_THREADS": str(threads)},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout)
    assert found["threads"] == threads
    return found["told"]


def test_every_metric_is_the_same_to_the_bit_with_one_thread_and_with_many() -> None:
    known = told(1, order=0)
    for threads, order in ((5, 0), (3, 1)):
        found = told(threads, order)
        assert [name for name in known if found[name] != known[name]] == []


def test_a_sum_in_order_is_as_right_as_any() -> None:
    values = np.random.default_rng(2).uniform(0, 1e9, 100_000)
    frame = pl.DataFrame({"values": values})
    found = frame.select(ordered_sum(pl.col("values"))).item()
    assert found == pytest.approx(math.fsum(values), rel=1e-13)
    mirrored = pl.DataFrame({"values": values[::-1].copy()})
    assert mirrored.select(ordered_sum(pl.col("values"))).item() == found
