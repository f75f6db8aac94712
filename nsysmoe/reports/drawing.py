"""Plotly figures drawn by kaleido in a browser, which may never answer.

kaleido bounds the drawing of one figure, but neither the start of its browser nor the loading of
its page nor its end. Here each step has its time, and the browser that overstays it is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from nsysmoe.cache import own_folder
from nsysmoe.errors import OutputError
from nsysmoe.stopping import stoppable, undone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# On two cores a browser starts in 1.3 s and draws a figure in 0.2 s; 50,000 bars take 8 s, and no
# picture has as many.
PATIENCE_S = 45.0
_BROWSERS = 2
_WIDTH_PX = 1000
_SCALE = 2
# A browser that has drawn everything may take so long to end by itself.
_END_S = 10.0
# How long to wait before looking whether somebody asked for the end (``stopping``).
_LOOK_S = 0.05
_FIX = "or leave out --static"
_INSTALL = f"pip install 'nsysmoe[static]' and Chrome or Chromium, {_FIX}"


def draw(figures: Sequence[Any], kind: str, *, patience_s: float = PATIENCE_S) -> list[bytes]:
    """Return plotly figures as pictures, all drawn by one browser, which is gone afterwards.

    One that does not answer is killed; another one draws what is left.

    Args:
        figures: What to draw.
        kind: ``svg`` or ``png``.
        patience_s: The longest that the start of a browser, or one figure, may take.

    Raises:
        OutputError: kaleido or a browser is not there, or two browsers did not answer.
    """
    found: list[bytes] = []
    for _ in range(_BROWSERS):
        if len(found) < len(figures):
            found += _drawn(figures[len(found) :], kind, patience_s)
    if len(found) < len(figures):
        raise OutputError(_no_answer(len(found), len(figures), patience_s))
    return found


def _no_answer(drawn: int, wanted: int, patience_s: float) -> str:
    return (
        f"pictures cannot be drawn: two browsers did not answer for {patience_s:g} s ({drawn} of "
        f"{wanted} were drawn); see that Chromium works here, name another by BROWSER_PATH, {_FIX}"
    )


def _drawn(figures: Sequence[Any], kind: str, patience_s: float) -> list[bytes]:
    """Start a browser, and return the pictures that it drew before it did not answer any more.

    Raises:
        OutputError: It cannot be started, or failed.
    """
    found: list[bytes] = []
    with own_folder("pictures") as folder, _quiet():
        drawing = _Drawing(figures, kind, folder)
        with undone(drawing.kill), stoppable(drawing.kill):
            try:
                drawing.start()
                # The first step is the start; a step of None is one that does not come.
                steps = iter(partial(drawing.next, patience_s), None)
                found = list(islice(steps, 1 + len(figures)))[1:]
                if len(found) == len(figures):
                    drawing.join(_END_S)
            finally:
                drawing.kill()
                # It sees that its browser is gone; where it does not, it goes with the process.
                drawing.join(_END_S)
    return found


class _Drawing(Thread):
    """A browser that draws figures one by one, in a thread that nobody has to wait for."""

    def __init__(self, figures: Sequence[Any], kind: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self._figures = figures
        self._options = {"format": kind, "width": _WIDTH_PX, "scale": _SCALE}
        self._done: SimpleQueue[bytes | BaseException] = SimpleQueue()
        try:
            self._browser = _browser(folder)
        # Each version of kaleido fails in its own way where it or its browser is missing.
        except Exception as error:
            raise OutputError(_failed(error, _INSTALL)) from error

    def run(self) -> None:
        """Draw; say what came of each step."""
        try:
            # A loop of its own: a notebook has one already.
            asyncio.run(self._draw())
        except BaseException as error:  # noqa: BLE001 - told by whoever asked
            self._done.put(error)

    async def _draw(self) -> None:
        async with self._browser as browser:
            self._done.put(b"")
            for figure in self._figures:
                self._done.put(await browser.calc_fig(figure, opts=self._options))

    def next(self, patience_s: float) -> bytes | None:
        """Wait for the next step, the first of which is the start; None where it does not come.

        Raises:
            OutputError: It failed.
        """
        limit = time.monotonic() + patience_s
        while time.monotonic() < limit:
            with suppress(Empty):
                found = self._done.get(timeout=_LOOK_S)
                if isinstance(found, bytes):
                    return found
                fix = f"see that it starts, name another by BROWSER_PATH, {_FIX}"
                raise OutputError(_failed(found, fix)) from found
        return None

    def kill(self) -> None:
        """End the browser and all that it started, if it still runs; nothing else."""
        process = getattr(self._browser, "subprocess", None)
        # It leads a group of its own. Where it was waited for, its number may be another's.
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _browser(folder: Path) -> Any:
    """Return kaleido's browser, not started yet, whose files all lie in a folder."""
    import kaleido  # noqa: PLC0415 - takes a quarter of a second

    page = folder / "index.html"
    # Without MathJax, which would come from the network: no picture has formulas.
    page.write_text(kaleido.PageGenerator(mathjax=False).generate_index(), encoding="utf-8")
    return kaleido.Kaleido(n=1, timeout=None, page_generator=page, tmp_dir=str(folder))


def _failed(error: BaseException, fix: str) -> str:
    return f"pictures cannot be drawn ({type(error).__name__}); {fix}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what kaleido says of a browser that was killed to itself: errors tell it."""
    loggers = [logging.getLogger(name) for name in ("kaleido", "choreographer", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
