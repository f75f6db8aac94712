"""Commands that ask one trace: a file of such a command holds its options and its question."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.options import FILE, grouped, input_options, output_options, run_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from collections.abc import Callable

    from nsysmoe.cli.options import F, Printer
    from nsysmoe.reports import Document


def trace_command(
    name: str,
    *own: Callable[[Any], Any],
    takes_runs: bool = False,
    doing: str = "Reading",
) -> Callable[[Callable[..., Document]], click.Command]:
    """Return a decorator that makes a command of a function from a trace to a document.

    The function gets ``trace``, ``reading``, and what its own options say. Every path among
    these is an input, which the answer is not written over.

    Args:
        name: Of the command.
        own: Options and arguments that only this command has.
        takes_runs: Whether the trace may be a run of several files.
        doing: What is said while it works, before the trace's name.
    """

    def decorate(answer: Callable[..., Document]) -> click.Command:
        @functools.wraps(answer)
        def show(trace: Path, printer: Printer, **given: Any) -> None:
            with working(f"{doing} {trace}"):
                document = answer(trace=trace, **given)
            inputs = (trace, *(value for value in given.values() if isinstance(value, Path)))
            printer.show(document, inputs)

        reading = (input_options, run_options) if takes_runs else (input_options,)
        trace = click.argument("trace", type=FILE)
        return click.command(name)(grouped(trace, *own, *reading, output_options)(show))

    return decorate


def by_option(*rows: str, what: str, default: str | None = None) -> Callable[[F], F]:
    """Return ``--by``: what one row of the answer is.

    Args:
        rows: The choices.
        what: Its help.
        default: One of the choices; None where without it there is one row for all.
    """
    return click.option(
        "--by",
        type=click.Choice(rows),
        default=default,
        show_default=default is not None,
        help=what,
    )
