"""``nsysmoe imbalance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.structure import ImbalanceBy
    from nsysmoe.cli.options import RunReading
    from nsysmoe.reports import Document


@trace_command(
    "imbalance",
    by_option(
        "layer", "phase", "step", "gemm", what="One row for each of these instead of one for all."
    ),
    takes_runs=True,
)
def command(trace: Path, by: ImbalanceBy | None, reading: RunReading) -> Document:
    """Balance of the experts in TRACE: the slowest rank of each cell against the mean.

    TRACE may be a folder or a quoted pattern of files that are ranks of one run.

    \b
    Example:
      nsysmoe imbalance off.sqlite --by layer
    """
    from nsysmoe.analysis.one_trace.structure import imbalance
    from nsysmoe.reports.pages.one_trace.structure import imbalance_page

    return imbalance_page(imbalance(trace, by, **reading), by)
