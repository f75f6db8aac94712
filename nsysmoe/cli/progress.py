"""A sign of life on stderr for work that takes over a second; silent in a pipe."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

from nsysmoe.cli.speech import speech

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 1.0
_log = logging.getLogger(__name__)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner with ``what`` while the block runs, if it runs for over a second.

    With ``--verbose``, say how long it took; with ``--quiet``, nothing.
    """
    started = time.monotonic()
    with _spinner(what):
        yield
    _log.info("%s: %.2f s", what, time.monotonic() - started)


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    if speech() == "quiet" or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    from nsysmoe.reports.escape import visible
    from nsysmoe.stopping import undone

    status = Console(file=sys.stderr).status(visible(what).replace("[", r"\["))
    timer = Timer(_PATIENCE_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        # A terminal whose cursor was hidden gets it back.
        with undone(status.stop):
            yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
