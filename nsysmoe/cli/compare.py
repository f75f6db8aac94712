"""``nsysmoe compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, class_map, emit, input_options, not_empty, output_options
from nsysmoe.cli.progress import working
from nsysmoe.metrics.table1 import BASELINE_LABEL, CANDIDATE_LABEL

if TYPE_CHECKING:
    from pathlib import Path


@click.command("compare")
@click.argument("baseline", type=FILE)
@click.argument("candidate", type=FILE)
@click.option(
    "--baseline-label",
    callback=not_empty,
    default=BASELINE_LABEL,
    show_default=True,
    help="Name of the first.",
)
@click.option(
    "--candidate-label",
    callback=not_empty,
    default=CANDIDATE_LABEL,
    show_default=True,
    help="Name of the second.",
)
@click.option(
    "--full", is_flag=True, help="Add tails, launches, and the time by kernel and device."
)
@input_options
@output_options
def command(
    baseline: Path,
    candidate: Path,
    baseline_label: str,
    candidate_label: str,
    full: bool,
    classes: Path | None,
    nsys: str | None,
    format_: str | None,
    output: Path | None,
) -> None:
    """Two traces in, the paper's Table 1 out.

    BASELINE and CANDIDATE are runs of one workload: .sqlite exports of nsys, .nsys-rep reports
    (with nsys at hand), or the CSV of a CUDA GPU Kernel Summary.

    \b
    Examples:
      nsysmoe compare off.sqlite on.sqlite
      nsysmoe compare off.sqlite on.sqlite --full -o table1.html
      nsysmoe compare tp2.sqlite ep2.sqlite --baseline-label TP --candidate-label EP
    """
    from nsysmoe.analysis.compare import compare
    from nsysmoe.reports.pages.comparison import comparison_page

    with working(f"Reading {baseline} and {candidate}"):
        comparison = compare(
            baseline,
            candidate,
            baseline_label=baseline_label,
            candidate_label=candidate_label,
            class_map=class_map(classes),
            nsys=nsys,
        )
    emit(comparison_page(comparison, full=full), format_, output, (baseline, candidate))
