"""``nsysmoe figures``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer
    from nsysmoe.reports.static import Suffix


@click.command("figures")
@click.argument("table", type=FILE)
@click.option("--no-iqr", is_flag=True, help="Drop no outliers from figures 4 and 5.")
@click.option("--folder", type=FILE, help="Write figure-N.csv here, a file a figure.")
@click.option(
    "--static",
    type=click.Choice(["svg", "png"]),
    help="With --folder: pictures as well, where kaleido and a browser are installed.",
)
@output_options
def command(
    table: Path, no_iqr: bool, folder: Path | None, static: Suffix | None, printer: Printer
) -> None:
    """Figures 1 to 5 of the paper from TABLE, on one page that opens offline.

    TABLE is what `nsysmoe sweep collect` wrote. Without -o, the rows of the figures are printed.

    \b
    Example:
      nsysmoe figures sweep.parquet -o figures.html --folder figures --static svg
    """
    from nsysmoe.analysis.experiments.figures import figures
    from nsysmoe.reports.output import make_folder
    from nsysmoe.reports.pages.experiments.figures import figures_page, write_figures

    if static and folder is None:
        raise click.UsageError("--static needs --folder, where the pictures go")
    with working(f"Reading {table}"):
        found = figures(table, iqr=not no_iqr)
    printer.show(figures_page(found), (table,))
    if folder is not None:
        make_folder(folder)
        for path in write_figures(found, folder, static):
            say(f"Wrote {path}")
