"""Ends that are asked for from outside: an exception first, and no second one while cleaning up."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Interrupted(BaseException):
    """Somebody asked for the end, by a signal."""


_NAMES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn what asks for the end into an exception, so that everything is cleaned up.

    What was ignored before (``nohup``, the background of a script) stays so here, but not in the
    programs that are started: nsys is asked by SIGINT to write its report.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    def stay(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: a handler is not inherited, and to ignore is."""

    before = {
        name: signal.signal(name, stay if signal.getsignal(name) == signal.SIG_IGN else end)
        for name in _NAMES
    }
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not cut the clean-up short; what it asks for is being done.

    Signals are handled by the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.signal(name, signal.SIG_IGN) for name in _NAMES}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
