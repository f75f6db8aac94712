"""``nsysmoe report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import (
    FILE,
    STEP,
    input_options,
    label_options,
    output_options,
    run_options,
)
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.portrait import Choice
    from nsysmoe.cli.options import Printer, RunReading


@click.command("report")
@click.argument("baseline", type=FILE)
@click.argument("candidate", type=FILE)
@label_options
@click.option(
    "--step",
    type=STEP,
    default="median",
    show_default=True,
    help="The step whose timeline is drawn: a number, slowest or median.",
)
@input_options
@run_options
@output_options
def command(
    baseline: Path,
    candidate: Path,
    baseline_label: str,
    candidate_label: str,
    step: Choice,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Everything about two arms, on one page that opens offline.

    BASELINE and CANDIDATE are as for compare; pictures need events, so no summary CSV.

    \b
    Example:
      nsysmoe report off.sqlite on.sqlite -o report.html
    """
    from nsysmoe.analysis.report import report
    from nsysmoe.reports.pages.report import report_page

    with working(f"Reading {baseline} and {candidate}"):
        found = report(
            baseline,
            candidate,
            baseline_label=baseline_label,
            candidate_label=candidate_label,
            step=step,
            **reading,
        )
        page = report_page(found.comparison, found.portraits)
    printer.show(page, found.comparison.sources)
