"""Limits that a candidate must not exceed, for scripts that decide on a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.errors import GateError
from nsysmoe.metrics.kernel_time.schedule import SCHEDULE
from nsysmoe.metrics.kernel_time.table1 import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparing.comparison import Comparison

GATED = tuple(metric.key for metric in (*METRICS, *SCHEDULE))


@dataclass(frozen=True)
class Gate:
    """A metric may become worse by at most ``percent`` %."""

    metric: str
    percent: float


def failures(comparison: Comparison, gates: Sequence[Gate]) -> list[str]:
    """Return a line for each gate that the candidate failed.

    It fails where the metric is worse by more than the gate's percent, the interval of its
    change excludes 0, and clocks of files can tell the change from none.

    Raises:
        GateError: A gate cannot be judged: the metric is not known, or has no interval.
    """
    failed = []
    for gate in gates:
        change = comparison.metric(gate.metric)
        if change.change is None or change.interval is None:
            why = (
                "its change is not known (a value is missing, or the baseline is 0)"
                if change.change is None
                else "its change has no interval"
            )
            raise GateError(
                f"{gate.metric} cannot be judged: {why}; give three runs an arm, or gate a sum "
                "over steps, such as wall_time_ns, on traces read without --quick"
            )
        is_sure = change.interval.excludes_zero() and not change.is_within_clocks
        if change.change * 100 > gate.percent and is_sure:
            failed.append(
                f"{gate.metric} is worse by {change.change:+.2%}, more than {gate.percent:g} % "
                f"({change.interval.level:.0%} interval {change.interval.low:+.2%} to "
                f"{change.interval.high:+.2%} over {change.interval.over})"
            )
    return failed
