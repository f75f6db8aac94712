"""What a worker process does beside its work: it ends with whoever started it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import TYPE_CHECKING

from nsysmoe.stopping import end

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def masked() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C: the terminal tells all, and one answers.

    A process inherits what is masked when it is started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def watch(line: Connection) -> None:
    """End this process as soon as nobody holds the other end of a line, or by SIGTERM.

    However the other side ended: the system lets go of its end. What the process would leave, its
    folders, goes with it.
    """
    theirs, ours = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(ours)
    # Told by the descriptor alone: a query runs in the thread that could hear it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    Thread(target=_end_after, args=(line, theirs), daemon=True).start()


def _end_after(line: Connection, signals: int) -> None:
    wait([line, signals])
    end(128 + signal.SIGTERM)
