"""``nsysmoe collectives``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import RunReading
    from nsysmoe.reports import Document


@trace_command(
    "collectives",
    by_option("communicator", what="Tell communicators apart as well."),
    takes_runs=True,
)
def command(trace: Path, by: Literal["communicator"] | None, reading: RunReading) -> Document:
    """Communication of TRACE: transfer, and waiting for the last rank, by kernel and GPU.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe collectives off.sqlite
    """
    from nsysmoe.analysis.one_trace.structure import collectives
    from nsysmoe.reports.pages.one_trace.structure import collectives_page

    return collectives_page(collectives(trace, by, **reading), by)
