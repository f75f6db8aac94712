"""``nsysmoe size``, and the same of ``nsysmoe advise --replay``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.options import FILE, Finite, grouped, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nsysmoe.analysis.placing.sizing import Layout
    from nsysmoe.cli.options import F, Printer

_LAYOUT = re.compile(r"([1-9]\d{0,5})(?:\+(\d{1,6}))?")


# Generic in newer versions of click only.
class _Layout(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """GPUS or GPUS+REDUNDANT."""

    name = "layout"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "GPUS[+REDUNDANT]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Layout:
        from nsysmoe.analysis.placing.sizing import Layout

        if isinstance(value, Layout):
            return value
        found = _LAYOUT.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no layout, such as 8 or 8+32", param, ctx)
        return Layout(int(found[1]), None if found[2] is None else int(found[2]))


def sizing_options(*, is_required: bool) -> Callable[[F], F]:
    """Return a decorator that adds a replay, its layout, and the layouts and limits to judge.

    Args:
        is_required: Whether the command cannot do without a replay.
    """
    return grouped(
        click.option("--replay", type=FILE, required=is_required, help="Folder of nsysmoe replay."),
        click.option(
            "--now", type=_Layout(), help="What the replay ran on.  [default: the first --layout]"
        ),
        click.option(
            "--layout",
            "layouts",
            type=_Layout(),
            multiple=True,
            help="To judge: GPUs (experts in order), or GPUs + redundant experts (EPLB). May be "
            "repeated.",
        ),
        click.option(
            "--max-num-seqs",
            type=click.IntRange(1, 65_536),
            multiple=True,
            default=(256,),
            show_default=True,
            help="Sequences of a batch; may be repeated.",
        ),
        click.option(
            "--max-num-batched-tokens",
            type=click.IntRange(min=1),
            default=8192,
            show_default=True,
            help="Tokens of a step.",
        ),
        click.option(
            "--expert-share",
            type=Finite(0, 1),
            help="Share of a step that follows the experts' loads, from a capture.",
        ),
    )


def show_sizes(printer: Printer, routing: Path, given: Mapping[str, Any]) -> None:
    """Judge the layouts and limits that were given, and print it."""
    from nsysmoe.analysis.placing.sizing import Limits, size
    from nsysmoe.reports.pages.placing.sizing import sizing_page

    if given["now"] is None and not given["layouts"]:
        raise click.UsageError("give --now, what the replay ran on, or layouts with --layout")
    limits = Limits(
        now=given["now"],
        layouts=given["layouts"],
        most_sequences=tuple(dict.fromkeys(given["max_num_seqs"])),
        most_tokens=given["max_num_batched_tokens"],
        expert_share=given["expert_share"],
    )
    with working(f"Simulating {given['replay']}"):
        found = size(given["replay"], routing, limits)
    printer.show(sizing_page(found), [routing])


@click.command("size")
@click.option("--routing", type=FILE, required=True, help="A routing log of the same workload.")
@sizing_options(is_required=True)
@output_options
def command(printer: Printer, routing: Path, **given: Any) -> None:
    """Say what layouts and batch limits would give for a replayed workload, and for a lost device.

    \b
    Example:
      nsysmoe size --replay replay/ --routing routes.parquet --now 4 --layout 8 --layout 8+32
          --max-num-seqs 64 --max-num-seqs 256
    """
    show_sizes(printer, routing, given)
