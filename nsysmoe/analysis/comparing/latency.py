"""What users of two arms saw: first token, time a token, throughput, from the runs' records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from nsysmoe.routing.served import SERVED, read_served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.routing.served import Served

_WHICH = {"": "profiled", "_unprofiled": "unprofiled"}


def latency_rows(baseline: Sequence[str], candidate: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return a row a metric: means over the runs of each arm, with and without the profiler.

    Args:
        baseline: Files of the first arm; runs without a record of ``nsysmoe capture`` are left
            out.
        candidate: Those of the second.

    Returns:
        ``metric``, ``higher_is_better``, ``baseline``, ``candidate`` (of runs that tell it),
        ``change`` (candidate / baseline - 1), ``interval`` (of the change, over runs; None for
        fewer than three in an arm), ``baseline_values`` and ``candidate_values`` (of each run);
        the same with ``_unprofiled``; ``baseline_runs``, ``candidate_runs``. No rows where an arm
        has no record.
    """
    first, second = _served(baseline), _served(candidate)
    if not first or not second:
        return ()
    return tuple(_row(key, first, second) for key in SERVED)


def _served(sources: Sequence[str]) -> list[Served]:
    found = [read_served(Path(source)) for source in sources]
    return [one for one in found if one is not None]


def _row(key: str, first: list[Served], second: list[Served]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "metric": key,
        "higher_is_better": SERVED[key],
        "baseline_runs": len(first),
        "candidate_runs": len(second),
    }
    for end, rounds in _WHICH.items():
        before, after = ([getattr(one, rounds)[key] for one in arm] for arm in (first, second))
        row |= {f"{name}{end}": value for name, value in _compared(before, after).items()}
    return row


def _compared(before: list[float | None], after: list[float | None]) -> dict[str, Any]:
    known = [[value for value in values if value is not None] for values in (before, after)]
    means = [fmean(values) if values else None for values in known]
    return {
        "baseline": means[0],
        "candidate": means[1],
        "change": _change(*means),
        "interval": _interval(*known),
        "baseline_values": before,
        "candidate_values": after,
    }


def _interval(before: list[float], after: list[float]) -> dict[str, Any] | None:
    from nsysmoe.metrics.statistics.uncertainty import (  # noqa: PLC0415 - numpy
        MIN_RUNS,
        interval_over_runs,
    )

    if min(len(before), len(after)) < MIN_RUNS:
        return None
    found = interval_over_runs(before, after)
    return None if found is None else asdict(found)


def _change(before: float | None, after: float | None) -> float | None:
    return None if not before or after is None else after / before - 1
