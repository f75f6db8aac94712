"""``nsysmoe render``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from nsysmoe.cli.options import FILE, detail_options, output_options

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer


@click.command("render")
@click.argument("comparison", type=FILE)
@detail_options
@output_options
def command(
    comparison: Path,
    full: bool,
    by: Literal["phase", "rank", "run"] | None,
    printer: Printer,
) -> None:
    """Print a COMPARISON that `nsysmoe compare` saved as JSON, without its traces.

    \b
    Example:
      nsysmoe compare off.sqlite on.sqlite -o table1.json
      nsysmoe render table1.json -o table1.tex
    """
    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.reports.pages.comparing.comparison import comparison_page

    page = comparison_page(Comparison.load(comparison), full=full, by=by)
    printer.show(page, (comparison,))
