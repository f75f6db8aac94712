"""What numpy raises over files that are none of its own, or are damaged."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# The header of an array is a Python literal, an archive a zip of deflated members: a flipped bit
# in either is told by whatever reads it first. RuntimeError: a member that says it is encrypted.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
