"""The program that an answer came from: another one may answer otherwise."""

from __future__ import annotations

import sys
from functools import cache
from hashlib import blake2b
from importlib import metadata, resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable

_LIBRARIES = ("duckdb", "numpy", "polars")
_SUFFIXES = (".py", ".sql", ".toml")


@cache
def program_digest() -> str:
    """Return a digest of nsysmoe's modules, views and tables, and of what computes for it."""
    digest = blake2b(digest_size=16)
    digest.update(sys.version.encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    for file in _files(resources.files("nsysmoe")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_SUFFIXES):
            yield entry
        elif not entry.name.startswith(("__pycache__", ".")) and entry.is_dir():
            yield from _files(entry)
