"""Writing a rendered document so that a reader never meets half of one."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, OutputError
from nsysmoe.export.files import runs_of
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write(content: bytes, path: Path, inputs: Iterable[Path] = ()) -> None:
    """Write a file whole or not at all; an input, or what SQLite keeps beside it, never.

    Of an input that is a folder or a pattern, the traces that it holds are inputs.

    Raises:
        OutputError: The place cannot be written, or is one of the inputs.
    """
    try:
        for source in inputs:
            if any(_belongs_to(path, one) for one in _files_of(source)):
                raise OutputError(f"{path} is an input of this command; choose another name for -o")
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            if path.is_dir():
                raise OutputError(f"{path} is a directory; name a file in it")
            path.write_bytes(content)
        else:
            target = path.resolve()
            if target.is_symlink():
                raise OutputError(f"{path} is a link to itself; choose another place for -o")
            with whole_file(target) as partial:
                partial.write_bytes(content)
    except (OSError, RuntimeError) as error:
        # A link to itself is a RuntimeError before Python 3.13.
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written ({reason}); choose another place for -o"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder to write to, where it is not there.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}); choose another --folder"
        ) from error


def _files_of(source: Path) -> list[Path]:
    try:
        return [source, *runs_of(source)]
    except InputError:
        # It held something a moment ago, or its error has been told.
        return [source]


def _belongs_to(path: Path, source: Path) -> bool:
    sides = [source.with_name(source.name + end) for end in ("-wal", "-shm", "-journal")]
    return path.absolute() in [side.absolute() for side in sides] or (
        path.exists() and source.exists() and path.samefile(source)
    )
