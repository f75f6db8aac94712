"""What users of two arms saw: first token, time a token, throughput, from the runs' records."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from nsysmoe.routing.served import SERVED, read_served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.routing.served import Served


def latency_rows(baseline: Sequence[str], candidate: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return a row a metric: medians over the runs of each arm, with and without the profiler.

    Args:
        baseline: Files of the first arm; runs without a record of ``nsysmoe capture`` are left
            out.
        candidate: Those of the second.

    Returns:
        ``metric``, ``higher_is_better``, ``baseline``, ``candidate``, ``change`` (candidate /
        baseline - 1), the same three ``_unprofiled``, ``baseline_runs``, ``candidate_runs``. No
        rows where an arm has no record.
    """
    first, second = _served(baseline), _served(candidate)
    if not first or not second:
        return ()
    return tuple(_row(key, first, second) for key in SERVED)


def _served(sources: Sequence[str]) -> list[Served]:
    found = [read_served(Path(source)) for source in sources]
    return [one for one in found if one is not None]


def _row(key: str, first: list[Served], second: list[Served]) -> dict[str, Any]:
    before = _median([one.profiled[key] for one in first])
    after = _median([one.profiled[key] for one in second])
    control_before = _median([one.unprofiled[key] for one in first])
    control_after = _median([one.unprofiled[key] for one in second])
    return {
        "metric": key,
        "higher_is_better": SERVED[key],
        "baseline": before,
        "candidate": after,
        "change": _change(before, after),
        "baseline_unprofiled": control_before,
        "candidate_unprofiled": control_after,
        "change_unprofiled": _change(control_before, control_after),
        "baseline_runs": len(first),
        "candidate_runs": len(second),
    }


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after / before - 1
