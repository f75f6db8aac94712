"""A log that grows: its lines as they come, through rotation, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.watch.engine_log import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 1 << 20


class Tail:
    """A file from its beginning on; what replaces it is read from its own beginning.

    Attributes:
        cut: Lines that were longer than any line of a log, and were cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._inode: int | None = None
        self._rest = b""
        self._skips = False
        self.cut = 0

    def lines(self, most_bytes: int) -> Iterator[bytes]:
        """Yield the lines that came since the last call, of at most some bytes.

        Raises:
            OSError: The file cannot be read.
        """
        told = self._path.stat()
        if told.st_ino != self._inode or told.st_size < self._place:
            self._inode, self._place, self._rest, self._skips = told.st_ino, 0, b"", False
        with self._path.open("rb") as file:
            file.seek(self._place)
            while most_bytes > 0 and (block := file.read(min(_BLOCK, most_bytes))):
                self._place += len(block)
                most_bytes -= len(block)
                yield from self._split(block)

    def _split(self, block: bytes) -> Iterator[bytes]:
        parts = (self._rest + block).split(b"\n")
        self._rest = parts.pop()
        for line in parts:
            if self._skips:
                # The end of a line whose beginning was too long to hold.
                self._skips = False
            elif len(line) > LONGEST:
                self.cut += 1
            else:
                yield line
        if len(self._rest) > LONGEST:
            self.cut += not self._skips
            self._rest, self._skips = b"", True
