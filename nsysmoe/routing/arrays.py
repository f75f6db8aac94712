"""What numpy raises where a file of arrays is damaged; nothing in one is ever unpickled."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# Headers are parsed as Python literals, archives by zipfile: either has errors of its own.
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
