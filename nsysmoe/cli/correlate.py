"""``nsysmoe correlate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer


@click.command("correlate")
@click.argument("table", type=FILE)
@click.option(
    "--x",
    multiple=True,
    default=("expected_score",),
    metavar="expected_score|observed_cv|COLUMN",
    show_default=True,
    help="Imbalance; may be repeated.",
)
@click.option(
    "--y",
    multiple=True,
    default=("ttft", "tpot", "throughput"),
    metavar="ttft|tpot|throughput|COLUMN",
    show_default=True,
    help="Performance; may be repeated.",
)
@click.option(
    "--by", default="routing", show_default=True, help="Column to look at value by value."
)
@click.option("--together", is_flag=True, help="All rows as one group, instead of --by.")
@click.option("--no-iqr", is_flag=True, help="Lead with all points: drop no outliers.")
@click.option("--each-run", is_flag=True, help="Runs as points, rather than means over repeats.")
@output_options
def command(
    table: Path,
    x: tuple[str, ...],
    y: tuple[str, ...],
    by: str,
    together: bool,
    no_iqr: bool,
    each_run: bool,
    printer: Printer,
) -> None:
    """How performance in TABLE goes with expected or observed imbalance.

    TABLE is what `nsysmoe sweep collect` wrote, or any Parquet, CSV or JSON with such columns.

    \b
    Example:
      nsysmoe correlate sweep.parquet --x expected_score --x observed_cv --y tpot
    """
    from nsysmoe.analysis.experiments.correlation import correlation
    from nsysmoe.reports.pages.experiments.correlation import correlation_page

    with working(f"Reading {table}"):
        found = correlation(
            table, x, y, by=None if together else by, iqr=not no_iqr, each_run=each_run
        )
    printer.show(correlation_page(found), (table,))
