"""``nsysmoe kernels``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, class_map, emit, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.kernels import By


@click.command("kernels")
@click.argument("trace", type=FILE)
@click.option(
    "--by",
    type=click.Choice(["name", "class", "device"]),
    default="name",
    show_default=True,
    help="What one row is.",
)
@input_options
@output_options
def command(
    trace: Path,
    by: By,
    classes: Path | None,
    nsys: str | None,
    format_: str | None,
    output: Path | None,
) -> None:
    """Every kernel of TRACE: launches, total, mean, median, min, max, standard deviation.

    \b
    Examples:
      nsysmoe kernels off.sqlite
      nsysmoe kernels off.sqlite --by class --format csv -o classes.csv
    """
    from nsysmoe.analysis.kernels import kernel_table
    from nsysmoe.reports.pages.kernels import kernels_page

    with working(f"Reading {trace}"):
        table = kernel_table(trace, by, class_map=class_map(classes), nsys=nsys)
    emit(kernels_page(table), format_, output, (trace,))
