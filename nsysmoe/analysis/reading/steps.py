"""The steps of a trace and what stretched some of them, without the rest of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.trace import Trace

_STEPS = ("global_pid", "device_id", "step", "phase", "start_ns")
_LAUNCHED = ("slice", "launches")
STALLS = (("host_gaps", None), ("silent_gaps", None), ("device_steps", _STEPS))
_CAUSES = (*STALLS, ("code_loads", None), ("rearrangements", None))


@dataclass(frozen=True)
class StepTimes:
    """When steps were, and which of them are not to be taken for usual.

    Attributes:
        table: What ``metrics.kernel_time.steps.timed_steps`` returned.
        distorted: What ``metrics.kernel_time.steps.distorted`` returned; None where it was not
            asked for.
    """

    table: pl.DataFrame
    distorted: pl.DataFrame | None


def needed_views(*, with_distorted: bool) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
    """Return what ``read_step_times`` is going to ask for, as ``Trace.read_ahead`` takes it."""
    causes = _CAUSES if with_distorted else ()
    return (("slices", None), ("slice_work", None), ("moe_slices", _LAUNCHED), *causes)


def read_step_times(trace: Trace, *, with_distorted: bool) -> StepTimes:
    """Read the steps of a trace, and where asked which of them are distorted.

    Raises:
        NsysmoeError: The trace cannot be used.
    """
    from nsysmoe.metrics.kernel_time.steps import timed_steps, with_work  # noqa: PLC0415 - polars

    cuts = with_work(trace.frame("slices").sort("slice"), trace.frame("slice_work"))
    table = timed_steps(cuts, trace.frame("moe_slices", _LAUNCHED))
    return StepTimes(table, _distorted(trace, cuts, table) if with_distorted else None)


def read_stalls(trace: Trace) -> dict[str, pl.DataFrame]:
    """Return what ``metrics.kernel_time.stalls.distorting_events`` finds in a trace."""
    from nsysmoe.metrics.kernel_time.stalls import distorting_events  # noqa: PLC0415 - polars

    idle, steps = trace.frame("silent_gaps"), trace.frame("device_steps", _STEPS)
    return distorting_events(trace.frame("host_gaps"), idle, steps)


def _distorted(trace: Trace, cuts: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.steps import (  # noqa: PLC0415
        distorted,
        spent_by_slice,
        with_typical,
    )

    causes = (("code_load", trace.frame("code_loads")), *read_stalls(trace).items())
    is_met = any(events.height for _, events in causes)
    if is_met and with_typical(table)["typical_ns"].null_count():
        # How long devices idled decides where a phase has too few steps, and takes all kernels.
        spent = spent_by_slice(cuts, trace.frame("device_time"))
        table = table.join(spent, on="slice", how="left").with_columns(
            pl.col("idle_ns").fill_null(0)
        )
    else:
        table = table.with_columns(idle_ns=pl.lit(0.0))
    return distorted(table, causes, trace.frame("rearrangements"))
