"""Writing a rendered document so that a reader never meets half of one."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable


def write(text: str, path: Path, inputs: Iterable[Path] = ()) -> None:
    """Write a file whole or not at all; an input is never overwritten.

    Raises:
        OutputError: The place cannot be written, or is one of the inputs.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path} is an input of this command; choose another name for -o")
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            if path.is_dir():
                raise OutputError(f"{path} is a directory; name a file in it")
            path.write_text(text, encoding="utf-8")
        else:
            _replace(text, path.resolve())
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another place for -o"
        ) from error


def _replace(text: str, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
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
