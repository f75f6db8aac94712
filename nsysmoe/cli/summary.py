"""``nsysmoe summary``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import RunReading
    from nsysmoe.reports import Document


@trace_command("summary", takes_runs=True)
def command(trace: Path, reading: RunReading) -> Document:
    """The metrics of Table 1 for one TRACE, overall and by device.

    TRACE may be the folder of a run, or of several: the median one is then shown.

    \b
    Example:
      nsysmoe summary on.sqlite --format markdown
    """
    from nsysmoe.analysis.one_trace.summary import summarize
    from nsysmoe.reports.pages.one_trace.summary import summary_page

    return summary_page(summarize(trace, **reading))
