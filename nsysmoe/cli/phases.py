"""``nsysmoe phases``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, class_map, emit, input_options, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path


@click.command("phases")
@click.argument("trace", type=FILE)
@input_options
@output_options
def command(
    trace: Path,
    classes: Path | None,
    nsys: str | None,
    format_: str | None,
    output: Path | None,
) -> None:
    """Prefill, decode and mixed steps of TRACE: launches, MoE time and tokens.

    \b
    Example:
      nsysmoe phases off.sqlite
    """
    from nsysmoe.analysis.structure import phases
    from nsysmoe.reports.pages.structure import phases_page

    with working(f"Reading {trace}"):
        measured = phases(trace, class_map=class_map(classes), nsys=nsys)
    emit(phases_page(measured), format_, output, (trace,))
