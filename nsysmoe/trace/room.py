"""What to say where DuckDB had no room: not the trace is to blame, and there is something to do."""

from __future__ import annotations

import errno
import tempfile

import duckdb

from nsysmoe.errors import InputError

_FULL_DISK = ("No space left on device", "Disk quota exceeded")


def out_of_room(error: Exception) -> InputError | None:
    """Return the error that names what was full, memory or disk; None where neither was."""
    # Messages of other errors quote the trace, which may say anything.
    if _is_full_disk(error):
        return InputError(
            f"{tempfile.gettempdir()} is full; make room there, or name another folder by TMPDIR"
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return InputError(
            "the answer takes more memory than it may; allow more by --memory-limit, such as 2GB"
        )
    return None


def _is_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    if isinstance(error, duckdb.OutOfMemoryException):
        return "max_temp_directory_size" in str(error)
    return isinstance(error, duckdb.IOException) and any(sign in str(error) for sign in _FULL_DISK)
