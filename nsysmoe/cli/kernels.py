"""``nsysmoe kernels``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.cli.one_trace import by_option, trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.kernels import By
    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "kernels", by_option("name", "class", "device", default="name", what="What one row is.")
)
def command(trace: Path, by: By, reading: Reading) -> Document:
    """Every kernel of TRACE: launches, total, mean, median, min, max, standard deviation.

    \b
    Examples:
      nsysmoe kernels off.sqlite
      nsysmoe kernels off.sqlite --by class --format csv -o classes.csv
    """
    from nsysmoe.analysis.one_trace.kernels import kernel_table
    from nsysmoe.reports.pages.one_trace.kernels import kernels_page

    return kernels_page(kernel_table(trace, by, **reading))
