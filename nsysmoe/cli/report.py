"""``nsysmoe report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import (
    FILE,
    arms_options,
    eplb_options,
    input_options,
    output_options,
    run_options,
    step_option,
)
from nsysmoe.cli.progress import working
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.one_trace.timeline import Choice
    from nsysmoe.cli.options import Printer, RunReading
    from nsysmoe.reports.static import Suffix


@click.command("report")
@arms_options
@step_option("The step whose timeline is drawn: a number, slowest or median.")
@click.option(
    "--routing", type=FILE, help="The baseline's routing log: adds loads, placements and advice."
)
@eplb_options("the baseline's record", when="With --routing: ")
@click.option("--folder", type=FILE, help="With --static: write the pictures here, a file each.")
@click.option(
    "--static",
    type=click.Choice(["svg", "png"]),
    help="With --folder: as what, where kaleido and a browser are installed.",
)
@input_options
@run_options
@output_options
def command(
    baseline: Path,
    candidate: Path,
    baseline_label: str,
    candidate_label: str,
    step: Choice,
    routing: Path | None,
    run: Path | None,
    gpus: int | None,
    redundant: int,
    folder: Path | None,
    static: Suffix | None,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Everything about two arms, on one page that opens offline.

    BASELINE and CANDIDATE are as for compare; pictures need events, so no summary CSV.

    \b
    Example:
      nsysmoe report off.sqlite on.sqlite -o report.html
      nsysmoe report off.sqlite on.sqlite --routing off.routed.npz --run off.run.json
          -o report.html
      nsysmoe report off.sqlite on.sqlite -o report.html --folder pictures --static svg
    """
    from nsysmoe.analysis.comparing.report import report
    from nsysmoe.reports.output import make_folder
    from nsysmoe.reports.pages.comparing.report import report_page
    from nsysmoe.reports.static import write_pictures

    if (folder is None) != (static is None):
        raise click.UsageError("--folder and --static go together: where the pictures go, as what")
    if folder is not None:
        make_folder(folder)
    if routing is None and (run is not None or gpus is not None or redundant):
        raise click.UsageError("--run, --gpus and --redundant go with --routing")
    with working(f"Reading {baseline} and {candidate}"):
        found = report(
            baseline,
            candidate,
            baseline_label=baseline_label,
            candidate_label=candidate_label,
            step=step,
            routing=routing,
            run=run,
            gpus=gpus,
            redundant=redundant,
            **reading,
        )
        page = report_page(found.comparison, found.portraits, found.routed)
    beside = [path for path in (routing, run) if path is not None]
    printer.show(page, (*found.comparison.sources, *beside))
    if folder is not None and static is not None:
        with working(f"Drawing pictures into {folder}"):
            written = write_pictures(page, folder, static)
        for path in written:
            say(f"Wrote {path}")
