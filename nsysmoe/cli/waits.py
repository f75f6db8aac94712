"""``nsysmoe waits``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.waits import By
    from nsysmoe.cli.options import RunReading
    from nsysmoe.reports import Document


@trace_command(
    "waits",
    by_option(
        "cause",
        "phase",
        "layer",
        "rank",
        "collective",
        default="cause",
        what="What one row is; rank is the one that was waited for.",
    ),
    takes_runs=True,
)
def command(trace: Path, by: By, reading: RunReading) -> Document:
    """Why ranks of TRACE waited for the last one: experts, other kernels, or the host.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe waits off.sqlite --by phase
    """
    from nsysmoe.analysis.one_trace.waits import waits
    from nsysmoe.reports.pages.one_trace.waits import waits_page

    return waits_page(waits(trace, by, **reading))
