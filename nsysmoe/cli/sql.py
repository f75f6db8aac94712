"""``nsysmoe sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.one_trace import trace_command

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document


@trace_command("sql", click.argument("query"))
def command(trace: Path, query: str, reading: Reading) -> Document:
    """Ask the views of TRACE one SELECT, in DuckDB's SQL.

    A query can read the views and nothing else: no file, no network, no setting, no change.
    `nsysmoe views` lists what there is to ask.

    \b
    Example:
      nsysmoe sql off.sqlite "select device_id, sum(dur_ns) from moe_kernels group by all"
    """
    from nsysmoe.reports.pages.one_trace.query import query_page
    from nsysmoe.trace import open_trace

    with open_trace(trace, **reading) as opened:
        return query_page(opened.ask(query), query, opened.findings())
