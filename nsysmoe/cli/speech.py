"""What is said on stderr beside an answer: with ``--quiet`` errors alone, with ``--verbose`` more.

Both stand before the command or after it, and mean the same.
"""

from __future__ import annotations

import logging
import resource
import time
from typing import Any, Literal

import click

_KEY = "nsysmoe.speech"
Speech = Literal["quiet", "usual", "verbose"]


def speech() -> Speech:
    """Return how much is to be said."""
    context = click.get_current_context(silent=True)
    return "usual" if context is None else context.meta.get(_KEY, "usual")


def say(text: str) -> None:
    """Print a line on stderr that is no error, unless nobody wants it."""
    if speech() != "quiet":
        click.echo(_visible(text), err=True)


def with_speech(command: click.Command) -> click.Command:
    """Add ``--quiet`` and ``--verbose`` to a command, and to those below it."""
    if not any(parameter.name in {"quiet", "verbose"} for parameter in command.params):
        command.params += options()
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_speech(below)
    return command


def options() -> list[click.Parameter]:
    """Return the two options, new ones each time."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_choose,
            help="Say nothing on stderr but errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_choose,
            help="Say on stderr what is read and how long it takes.",
        ),
    ]


def _choose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    chosen = "quiet" if parameter.name == "quiet" else "verbose"
    if context.meta.setdefault(_KEY, chosen) != chosen:
        raise click.UsageError("--quiet and --verbose say the opposite; give one of them")
    if chosen == "verbose":
        _listen(context.find_root())


def _listen(root: click.Context) -> None:
    """Print what the layers below log, until the command ends; then what it all took."""
    logger, handler = logging.getLogger("nsysmoe"), _ToStderr()
    if any(isinstance(known, _ToStderr) for known in logger.handlers):
        return
    started, level = time.monotonic(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def end() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        logger.info("done in %.2f s, at most %.0f MiB", time.monotonic() - started, peak)
        logger.removeHandler(handler)
        logger.setLevel(level)

    root.call_on_close(end)


class _ToStderr(logging.Handler):
    """Prints through click: stderr may have been replaced since, by a spinner or a test."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, without what could steer a terminal."""
        click.echo(_visible(record.getMessage()), err=True)


def _visible(text: Any) -> str:
    from nsysmoe.reports.escape import visible

    return visible(str(text))
