"""Short profiles on a timetable: asked of the server, left to a folder, dropped when analysed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nsysmoe.watch.server import Server

Keep = Literal["worst", "none", "all"]
# A trace that cannot be used and was not written to for so long is not being written any more.
_AT_REST_S = 60.0


@dataclass(frozen=True)
class Timetable:
    """When to profile, and what to keep.

    Attributes:
        every_s: Between the starts of two profiles.
        for_s: How long each is.
        keep: Which traces stay: the one with the largest share of waiting, none, or all.
    """

    every_s: float
    for_s: float
    keep: Keep = "worst"


class Profiles:
    """Asks for profiles, and clears away what came of them.

    Attributes:
        root: The folder that the server's nsys writes to. Traces that were in it before the
            first profile are never touched.
        taken: Profiles that were stopped well.
        failed: What the last failure was; None after a success.
    """

    def __init__(
        self,
        server: Server,
        timetable: Timetable,
        root: Path,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._ended = Event()
        self._server, self._timetable = server, timetable
        self._sleep = sleep or self._ended.wait
        self.root = root
        self._next = 0.0
        self.taken = 0
        self.failed: str | None = None
        self._first_at: float | None = None
        self._worst: tuple[float, Path] | None = None
        self._useless: list[Path] = []

    def end(self) -> None:
        """Stop the profile that is being taken now, and take no more."""
        self._ended.set()

    def take(self, now: float) -> bool:
        """Profile if it is time; tell whether one was taken."""
        if now < self._next or self._ended.is_set():
            return False
        self._next = now + self._timetable.every_s
        try:
            self._first_at = time.time() if self._first_at is None else self._first_at
            try:
                self._server.profile("start")
            except TimeoutError:
                # It may have begun all the same.
                self._server.profile("stop")
                raise
            try:
                self._sleep(self._timetable.for_s)
            finally:
                # Whatever happens here, a server must not go on recording.
                self._server.profile("stop")
        except OSError as error:
            self.failed = str(error)
            return False
        self.failed = None
        self.taken += 1
        return True

    def clear(self, path: Path, wait_share: float | None) -> None:
        """Drop a trace of ours that was analysed, as the timetable says."""
        keep = self._timetable.keep
        # What was not whole before is now.
        self._useless = [useless for useless in self._useless if useless != path]
        if keep == "all" or not self._is_ours(path):
            return
        if keep == "none":
            _drop(path)
            return
        share = -1.0 if wait_share is None else wait_share
        if self._worst is None or share > self._worst[0]:
            if self._worst is not None:
                _drop(self._worst[1])
            self._worst = share, path
        else:
            _drop(path)

    def give_up(self, path: Path) -> None:
        """Note a trace of ours that cannot be used: it may not be whole yet."""
        if self._timetable.keep != "all" and self._is_ours(path):
            # One that grew is read again, and is the last one then.
            self._useless = [*(known for known in self._useless if known != path), path]

    def clear_useless(self, now: float) -> None:
        """Drop traces that cannot be used and are at rest, or a disk would fill up with them.

        With ``worst`` the last one stays, to see why.

        Args:
            now: Seconds since 1970.
        """
        is_one_kept = self._timetable.keep == "worst"
        for path in self._useless[: len(self._useless) - is_one_kept]:
            if not path.exists():
                self._useless.remove(path)
            elif now - path.stat().st_mtime > _AT_REST_S:
                _drop(path)

    def _is_ours(self, path: Path) -> bool:
        """Tell whether a trace was written since the first profile that we asked for."""
        is_inside = path.parent == self.root
        return is_inside and self._first_at is not None and path.stat().st_mtime >= self._first_at


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)
