"""``nsysmoe sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer, Reading


@click.command("sql")
@click.argument("trace", type=FILE)
@click.argument("query")
@input_options
@output_options
def command(
    trace: Path,
    query: str,
    reading: Reading,
    printer: Printer,
) -> None:
    """Ask the views of TRACE one SELECT, in DuckDB's SQL.

    A query can read the views and nothing else: no file, no network, no setting, no change.
    `nsysmoe views` lists what there is to ask.

    \b
    Example:
      nsysmoe sql off.sqlite "select device_id, sum(dur_ns) from moe_kernels group by all"
    """
    from nsysmoe.reports.pages.one_trace.query import query_page
    from nsysmoe.trace import open_trace

    with (
        working(f"Reading {trace}"),
        open_trace(trace, **reading) as opened,
    ):
        page = query_page(opened.ask(query), query, opened.findings())
    printer.show(page, (trace,))
