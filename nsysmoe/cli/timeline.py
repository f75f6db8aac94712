"""``nsysmoe timeline``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import trace_command
from nsysmoe.cli.options import step_option

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.timeline import Choice
    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "timeline",
    step_option("A step's number; slowest or median picks one by wall time."),
)
def command(trace: Path, step: Choice, reading: Reading) -> Document:
    """What ran in one step of TRACE, on every rank.

    \b
    Example:
      nsysmoe timeline on.sqlite --step slowest -o step.html
    """
    from nsysmoe.analysis.comparing.report import timeline
    from nsysmoe.reports.pages.one_trace.timeline import timeline_page

    return timeline_page(timeline(trace, step, **reading))
