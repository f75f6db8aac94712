"""Temporary folders on the disk of ``TMPDIR``, and those that killed processes left there."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsysmoe.cache.held import held_folder, left, sweep
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["trace", "export", "pictures"]


@contextmanager
def own_folder(kind: Kind) -> Iterator[Path]:
    """Make a folder for what does not fit into memory, or is another program's.

    It goes with the block, or by the next call where the process was killed.

    Args:
        kind: What is in it, for those who find it.

    Raises:
        InputError: There is no place to write.
    """
    parent = Path(tempfile.gettempdir())
    sweep(parent, _prefix())
    with ExitStack() as held:
        try:
            folder = held.enter_context(held_folder(parent, _prefix(kind)))
        except OSError as error:
            raise InputError(
                f"nothing can be written to {parent} ({error.strerror}); name another folder by "
                "TMPDIR"
            ) from error
        yield folder


def left_folders() -> list[tuple[Path, int]]:
    """Return the folders whose processes were killed, and the bytes that each takes."""
    return [(folder, _size(folder)) for folder in left(Path(tempfile.gettempdir()), _prefix())]


def clear_left() -> tuple[int, int]:
    """Remove the folders whose processes were killed; return how many went, and their bytes."""
    found = left_folders()
    for folder, _ in found:
        shutil.rmtree(folder, ignore_errors=True)
    gone = [size for folder, size in found if not folder.exists()]
    return len(gone), sum(gone)


def _prefix(kind: str = "*") -> str:
    return f"nsysmoe-{kind}-"


def _size(folder: Path) -> int:
    """Return the bytes of the files of a folder, of those that are still there."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_size
    return size
