"""``nsysmoe bound``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.bound import By
    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "bound",
    by_option(
        "phase", "rank", default="phase", what="What one row is; rank is a rank within a phase."
    ),
)
def command(trace: Path, by: By, reading: Reading) -> Document:
    """What bounds each phase of TRACE: experts, other kernels, transfer, or the host.

    \b
    Example:
      nsysmoe bound off.sqlite --by rank
    """
    from nsysmoe.analysis.one_trace.bound import bound
    from nsysmoe.reports.pages.one_trace.bound import bound_page

    return bound_page(bound(trace, by, **reading))
