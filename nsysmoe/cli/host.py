"""``nsysmoe host``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.one_trace import trace_command
from nsysmoe.cli.options import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command(
    "host",
    click.option(
        "--run-json",
        type=FILE,
        help="Latencies of the profiled run; its last round is the profiled one.",
    ),
    click.option(
        "--control",
        type=FILE,
        help="Latencies of an unprofiled run.  [default: the round before the profiled one]",
    ),
)
def command(trace: Path, run_json: Path | None, control: Path | None, reading: Reading) -> Document:
    """What launching costs in TRACE, rank by rank, and what the profiler added.

    \b
    Example:
      nsysmoe host off.sqlite --run-json off.run.json
    """
    from nsysmoe.analysis.one_trace.host import host
    from nsysmoe.reports.pages.one_trace.host import host_page

    if control is not None and run_json is None:
        raise click.UsageError("--control is compared with a profiled run: name it by --run-json")
    return host_page(host(trace, run_json=run_json, control=control, **reading))
