"""Files that appear whole or not at all, whatever ends the process while they are written."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.stopping import undone

if TYPE_CHECKING:
    from collections.abc import Iterator

# How names begin that a kill may leave.
PARTIAL = ".nsysmoe-"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` that takes its place when the block ends well.

    A kill at any moment leaves what was there before, or the new file. What it may leave besides
    is called ``.nsysmoe-…``, has no suffix, and is read by nothing.

    Raises:
        OSError: The folder cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
    os.close(handle)
    partial = Path(name)
    try:
        with undone(lambda: partial.unlink(missing_ok=True)):
            yield partial
            with partial.open("rb") as file:
                # The name must not reach the disk before the content does.
                os.fsync(file.fileno())
            partial.chmod(_mode_for(path))
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _mode_for(path: Path) -> int:
    """Return the rights that a plain open() would have left."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
