"""``nsysmoe doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.exits import REFUSED
from nsysmoe.cli.options import output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from nsysmoe.cli.options import Printer


@click.command("doctor")
@click.option("--nsys", metavar="PATH", help="The nsys to look for.  [default: the one on PATH]")
@output_options
def command(nsys: str | None, printer: Printer) -> None:
    """What is installed here, where there is room, and which inputs can be read.

    Exits with 1, after printing, where no trace could be read: a package is broken, or there is
    no place for temporary files.

    \b
    Example:
      nsysmoe doctor --format json
    """
    from nsysmoe.analysis.doctor import doctor
    from nsysmoe.reports.pages.doctor import doctor_page

    with working("Looking around"):
        health = doctor(nsys)
    printer.show(doctor_page(health))
    if not health.is_well:
        raise click.exceptions.Exit(REFUSED)
