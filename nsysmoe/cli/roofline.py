"""``nsysmoe roofline``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.one_trace import trace_command
from nsysmoe.cli.options import FILE, Finite, routed_options

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Reading
    from nsysmoe.reports import Document

_SIZE = click.IntRange(min=1)
_RATE = Finite(min=0, min_open=True)


@trace_command(
    "roofline",
    routed_options,
    click.option("--config", type=FILE, help="The model's config.json."),
    click.option("--hidden-size", type=_SIZE, help="Width of the model.  [default: by --config]"),
    click.option(
        "--intermediate-size", type=_SIZE, help="Inner width of one expert.  [default: by --config]"
    ),
    click.option("--weight-bytes", type=_RATE, help="Bytes of a weight.  [default: by --config]"),
    click.option(
        "--bandwidth", type=_RATE, help="Peak of the memory, GB/s.  [default: by trace, datasheet]"
    ),
    click.option("--flops", type=_RATE, help="Peak of the GPU, TFLOP/s.  [default: by datasheet]"),
)
def command(
    trace: Path,
    routed: Path,
    run: Path,
    config: Path | None,
    hidden_size: int | None,
    intermediate_size: int | None,
    weight_bytes: float | None,
    bandwidth: float | None,
    flops: float | None,
    reading: Reading,
) -> Document:
    """Which limit of the GPU bounds the experts of TRACE, and what to balance.

    \b
    Example:
      nsysmoe roofline off.sqlite --routed off.routed.npz --run off.run.json --config config.json
    """
    from nsysmoe.analysis.one_trace.roofline import Limits, roofline
    from nsysmoe.analysis.routing.routed import Inputs
    from nsysmoe.reports.pages.one_trace.roofline import roofline_page
    from nsysmoe.routing import read_model

    shape = read_model(
        config, hidden=hidden_size, intermediate=intermediate_size, weight_bytes=weight_bytes
    )
    if shape is None:
        raise click.UsageError("give --config, or --hidden-size and --intermediate-size")
    limits = Limits(bandwidth and bandwidth * 1e9, flops and flops * 1e12)
    return roofline_page(roofline(Inputs(trace, routed, run), shape, limits=limits, **reading))
