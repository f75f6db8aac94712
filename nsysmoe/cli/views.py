"""``nsysmoe views``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import output_options

if TYPE_CHECKING:
    from nsysmoe.cli.options import Printer


@click.command("views")
@output_options
def command(printer: Printer) -> None:
    """The views and columns that `nsysmoe sql` can ask, each with its meaning and unit.

    \b
    Example:
      nsysmoe views --format markdown -o views.md
    """
    from nsysmoe.reports.pages.one_trace.query import views_page
    from nsysmoe.trace import catalogue

    printer.show(views_page(catalogue().views()))
