"""What this process may use: threads, memory, and the cache; set once, read by every layer."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# In this order: GB ends in B as well.
_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
_BINARY = {"TIB": 2**40, "GIB": 2**30, "MIB": 2**20, "KIB": 2**10}


@dataclass(frozen=True)
class Limits:
    """What some reading may use.

    Attributes:
        threads: Threads; one for each core where None.
        memory_bytes: What tables and queries may hold before they go to disk.
    """

    threads: int | None
    memory_bytes: int

    def shared(self, parts: int) -> Limits:
        """Return what each of some readings may use that go on at once."""
        cores = self.threads or os.cpu_count() or parts
        return Limits(max(1, cores // parts), max(LEAST_MEMORY, self.memory_bytes // parts))


@dataclass(frozen=True)
class Resources:
    """Limits of this process.

    Attributes:
        threads: Threads that queries may use in all; one for each core where None.
        memory_bytes: What tables and queries of all open traces may hold before they go to disk;
            ``DEFAULT_MEMORY`` where None.
        has_cache: Whether answers are kept between processes.
    """

    threads: int | None = None
    memory_bytes: int | None = None
    has_cache: bool = True

    def limits(self, threads: int | None = None, memory_bytes: int | None = None) -> Limits:
        """Return what one reading may use: what is given, the rest as of this process."""
        return Limits(threads or self.threads, memory_bytes or self.memory_bytes or DEFAULT_MEMORY)


# What leaves a process, with Python, its libraries and results, below 1 GB.
DEFAULT_MEMORY = 500 * 10**6
# Queries need some for every thread before they can go to disk at all.
LEAST_MEMORY = 100 * 10**6

# One for the process and not one for each thread: traces are read in threads of their own.
_current = [Resources()]


def resources() -> Resources:
    """Return what this process may use now."""
    return _current[-1]


def configure(**changes: Any) -> Resources:
    """Change what this process may use from now on; traces that are open keep what they have.

    Args:
        changes: Fields of ``Resources``.
    """
    _current[-1] = replace(_current[-1], **changes)
    return _current[-1]


@contextmanager
def using(**changes: Any) -> Iterator[Resources]:
    """Change what this process may use while the block runs."""
    _current.append(replace(_current[-1], **changes))
    try:
        yield _current[-1]
    finally:
        _current.pop()


def bytes_of(text: str) -> int:
    """Return the number of bytes that a text such as ``500MB``, ``1.5 GiB`` or ``4000000`` names.

    Raises:
        InputError: The text is no size.
    """
    plain = text.strip().upper().replace(" ", "")
    for unit, factor in {**_BINARY, **_UNITS}.items():
        if plain.endswith(unit):
            plain, scale = plain.removesuffix(unit), factor
            break
    else:
        scale = 1
    try:
        number = float(plain) * scale
        found = round(number)
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise InputError(f"{text!r} is no size; give one such as 500MB or 2GiB")
    return found
