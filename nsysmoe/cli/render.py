"""``nsysmoe render``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, emit, output_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command("render")
@click.argument("comparison", type=FILE)
@click.option(
    "--full", is_flag=True, help="Add tails, launches, and the time by kernel and device."
)
@output_options
def command(
    comparison: Path,
    full: bool,
    format_: str | None,
    output: Path | None,
) -> None:
    """Print a COMPARISON that `nsysmoe compare` saved as JSON, without its traces.

    \b
    Example:
      nsysmoe compare off.sqlite on.sqlite -o table1.json
      nsysmoe render table1.json -o table1.tex
    """
    from nsysmoe.analysis.comparison import Comparison
    from nsysmoe.reports.pages.comparison import comparison_page

    page = comparison_page(Comparison.load(comparison), full=full)
    emit(page, format_, output, (comparison,))
