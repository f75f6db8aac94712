"""``nsysmoe compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from nsysmoe.cli.exits import GATE as GATE_FAILED
from nsysmoe.cli.options import (
    GATE,
    arms_options,
    detail_options,
    input_options,
    output_options,
    run_options,
)
from nsysmoe.cli.progress import working
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.analysis.comparing.gates import Gate
    from nsysmoe.cli.options import Printer, RunReading


@click.command("compare")
@arms_options
@detail_options
@click.option(
    "--gate",
    "gates",
    type=GATE,
    multiple=True,
    metavar="METRIC=PCT",
    help="Exit 3 where METRIC (a key of the JSON) is worse by more than PCT % and its interval "
    "excludes 0. May be given several times.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Read kernels alone: no steps, phases or intervals over steps.",
)
@input_options
@run_options
@output_options
def command(
    baseline: Path,
    candidate: Path,
    baseline_label: str,
    candidate_label: str,
    full: bool,
    by: Literal["phase", "rank", "run"] | None,
    gates: tuple[Gate, ...],
    quick: bool,
    reading: RunReading,
    printer: Printer,
) -> None:
    """Two traces in, the paper's Table 1 out, and what it hides.

    BASELINE and CANDIDATE are runs of one workload: .sqlite exports of nsys, .nsys-rep reports
    (with nsys at hand), or the CSV of a CUDA GPU Kernel Summary. A folder or a quoted pattern
    ('off-*.sqlite') is one run where its files hold different ranks at one time, else an arm of
    several runs, which intervals over runs take three of.

    \b
    Examples:
      nsysmoe compare off.sqlite on.sqlite
      nsysmoe compare off.sqlite on.sqlite --full -o table1.html
      nsysmoe compare nodes/off nodes/on --one-run --engine ray --ray-address auto
      nsysmoe compare runs/off runs/on --gate wall_time_ns=1 --gate critical_moe_ns=0
      nsysmoe compare tp2.sqlite ep2.sqlite --baseline-label TP --candidate-label EP
    """
    from nsysmoe.analysis.comparing.compare import compare
    from nsysmoe.reports.pages.comparing.comparison import comparison_page

    with working(f"Reading {baseline} and {candidate}"):
        comparison = compare(
            baseline,
            candidate,
            baseline_label=baseline_label,
            candidate_label=candidate_label,
            **reading,
            quick=quick,
        )
    printer.show(comparison_page(comparison, full=full, by=by), comparison.sources)
    if gates:
        _check_gates(comparison, gates)


def _check_gates(comparison: Comparison, gates: tuple[Gate, ...]) -> None:
    from nsysmoe.analysis.comparing.gates import failures

    if failed := failures(comparison, gates):
        for line in failed:
            click.echo(f"gate: {line}", err=True)
        raise click.exceptions.Exit(GATE_FAILED)
    say(f"gate: {len(gates)} passed")
