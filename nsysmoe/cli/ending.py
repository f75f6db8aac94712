"""How a command ends by a signal: soon, with one line, and nothing left.

Ctrl-C is an exception in the main thread, which is not enough. The main thread may wait in a
library that comes back minutes later, or makes an error of its own of the exception; polars takes
SIGINT over such that the system goes on with waits that it broke off; and threads know of nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from nsysmoe.cli.exits import HUNG_UP, INTERRUPTED, TERMINATED

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS = {
    signal.SIGINT: ("Interrupted", INTERRUPTED),
    signal.SIGTERM: ("Terminated", TERMINATED),
    signal.SIGHUP: ("Hung up", HUNG_UP),
}
# What the main thread may take to come back by itself.
_GRACE_S = 1.0
_AGAIN_S = 0.05
_IMPORTING = "<frozen importlib"


class Ending:
    """While the block runs, signals stop what it waits for, and end the process soon after.

    Commands with handlers of their own (``capture``, ``replay``, ``watch``) end as these say.

    Attributes:
        heard: The signal that asked for the end; None where none did.
    """

    heard: signal.Signals | None = None

    def __enter__(self) -> Ending:
        self._before: dict[signal.Signals, object] = {}
        self._unsaid = [1]
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in _SIGNALS:
            # One that is ignored (nohup) stays so.
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                self._before[number] = signal.signal(number, self._interrupt)
        self._main = threading.get_ident()
        self._is_over = threading.Event()
        self._told, self._tell = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._tell, False)
        # Written by the handler in C, whatever the main thread is doing.
        self._told_before = signal.set_wakeup_fd(self._tell)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._is_over.set()
        signal.set_wakeup_fd(self._told_before)
        os.close(self._tell)
        self._watcher.join()
        os.close(self._told)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def line(self) -> str:
        """Return the line to say, once: two threads may be about to."""
        try:
            self._unsaid.pop()
        except IndexError:
            return ""
        return f"{_SIGNALS[self.heard or signal.SIGINT][0]}\n"

    @property
    def status(self) -> int:
        """The exit status."""
        return _SIGNALS[self.heard or signal.SIGINT][1]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise the first time; what a second one asks for is being done."""
        # Libraries that are half imported abort the process; the watcher sends it again.
        if not self._is_raised and not _is_importing(frame):
            self._is_raised = True
            self.heard = self.heard or signal.Signals(number)
            raise KeyboardInterrupt

    _is_raised = False

    def _watch(self) -> None:
        """Wait for a signal, then stop what is waited for until the block has ended."""
        while told := os.read(self._told, 1):
            number = signal.Signals(told[0])
            if signal.getsignal(number) == self._interrupt:
                self.heard = self.heard or number
                self._stop(number)
                return

    def _stop(self, number: signal.Signals) -> None:
        from nsysmoe.stopping import end, stop

        deadline = time.monotonic() + _GRACE_S
        while not self._is_over.wait(_AGAIN_S):
            stop()
            if not self._is_raised:
                signal.pthread_kill(self._main, number)
            if time.monotonic() > deadline:
                with suppress(OSError):
                    os.write(2, self.line().encode())
                end(self.status)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False
