"""An independent answer: plain Python over the SQLite file, with nothing of nsysmoe in it."""

from __future__ import annotations

import sqlite3
import statistics
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def kernel_durations(path: Path) -> dict[str, list[int]]:
    """Return durations by kernel name, read row by row."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        database.text_factory = bytes
        names = {
            key: value.decode("utf-8", "replace").replace("\0", "\ufffd")
            for key, value in database.execute("SELECT id, value FROM StringIds")
        }
        found: dict[str, list[int]] = {}
        for name, start, end in database.execute(
            'SELECT demangledName, start, "end" FROM CUPTI_ACTIVITY_KIND_KERNEL'
        ):
            found.setdefault(names.get(name, "?"), []).append(end - start)
    return found


def percentile(values: list[int], ratio: float) -> float:
    """Return a percentile with linear interpolation between order statistics."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * ratio
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def statistics_of(durations: list[int]) -> dict[str, Any]:
    """Return the statistics that nsysmoe reports, by the same names."""
    mean = sum(durations) / len(durations)
    stddev = statistics.stdev(durations) if len(durations) > 1 else None
    return {
        "launches": len(durations),
        "total_ns": sum(durations),
        "mean_ns": mean,
        "median_ns": statistics.median(durations),
        "min_ns": min(durations),
        "max_ns": max(durations),
        "stddev_ns": stddev,
        "cv": None if stddev is None or mean == 0 else stddev / mean,
        "max_min_ratio": max(durations) / min(durations) if min(durations) else None,
        "p95_ns": percentile(durations, 0.95),
        "p99_ns": percentile(durations, 0.99),
    }
