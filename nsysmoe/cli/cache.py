"""``nsysmoe cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import output_options

if TYPE_CHECKING:
    from nsysmoe.cli.options import Printer


@click.group("cache")
def command() -> None:
    """Answers kept between calls: what there is, and away with it.

    They lie in NSYSMOE_CACHE_DIR, or in the user's cache folder, up to NSYSMOE_CACHE_SIZE (10GB
    where not set), the least recently used removed first. A trace that changed is read again.

    \b
    Example:
      nsysmoe cache list

    `nsysmoe cache list` has --format and -o, --output.
    """


@command.command("list")
@output_options
def list_kept(printer: Printer) -> None:
    """List what is kept of which trace, the most recently used first.

    \b
    Example:
      nsysmoe cache list --format json
    """
    from nsysmoe.analysis.reading.kept import kept_answers
    from nsysmoe.reports.pages.cache import cache_page

    printer.show(cache_page(kept_answers()))


@command.command("clear")
def clear() -> None:
    """Remove everything that is kept, and what killed calls left in TMPDIR; traces stay.

    Folders of calls that still run stay as well.

    \b
    Example:
      nsysmoe cache clear
    """
    from nsysmoe.cache import clear_left, open_cache
    from nsysmoe.reports.numbers import size

    cache = open_cache()
    entries, freed = cache.clear() if cache is not None else (0, 0)
    click.echo(f"Removed {entries:,} answers, {size(freed)}")
    folders, freed = clear_left()
    if folders:
        click.echo(f"Removed {folders:,} temporary folders of killed calls, {size(freed)}")
