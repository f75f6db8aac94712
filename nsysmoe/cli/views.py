"""``nsysmoe views``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import emit, output_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command("views")
@output_options
def command(format_: str | None, output: Path | None) -> None:
    """The views and columns that `nsysmoe sql` can ask, each with its meaning and unit.

    \b
    Example:
      nsysmoe views --format markdown -o views.md
    """
    from nsysmoe.reports.pages.query import views_page
    from nsysmoe.trace import catalogue

    emit(views_page(catalogue().views()), format_, output)
