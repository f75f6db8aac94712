"""``nsysmoe stalls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.stalls import By
    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "stalls",
    by_option(
        "stall",
        "kind",
        default="stall",
        what="What one row is; kind adds them up, no moment twice.",
    ),
)
def command(trace: Path, by: By, reading: Reading) -> Document:
    """What stopped TRACE: slow steps, loads of compiled code, rearrangements, silences.

    \b
    Example:
      nsysmoe stalls off.sqlite --by kind
    """
    from nsysmoe.analysis.one_trace.stalls import stalls
    from nsysmoe.reports.pages.one_trace.stalls import stalls_page

    return stalls_page(stalls(trace, **reading), by)
