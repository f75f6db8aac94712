"""``nsysmoe phases``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import RunReading
    from nsysmoe.reports import Document


@trace_command("phases", takes_runs=True)
def command(trace: Path, reading: RunReading) -> Document:
    """Prefill, decode and mixed steps of TRACE: launches, MoE time and tokens.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe phases off.sqlite
    """
    from nsysmoe.analysis.one_trace.structure import phases
    from nsysmoe.reports.pages.one_trace.structure import phases_page

    return phases_page(phases(trace, **reading))
