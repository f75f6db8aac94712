"""How every layer reads a small file: within bounds, and with one line on what is wrong."""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import contextmanager
from functools import partial
from importlib import resources
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, AnyStr, TypedDict

from nsysmoe.errors import InputError, NsysmoeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from pathlib import Path

    from typing_extensions import Unpack

# Beyond any record of a run, and within what a laptop holds.
LARGEST = 256 << 20
# A batch of 65,536 tokens, each with the eight experts that it went to, takes 4 MB.
LONGEST_LINE = 64 << 20


class ReadOptions(TypedDict, total=False):
    """How a file is read.

    Attributes:
        largest: Bytes that it may have; 256 MiB where left out.
        fix: What to do where it cannot be used, as the end of a sentence.
        error: What is raised then; InputError where left out.
    """

    largest: int
    fix: str
    error: type[NsysmoeError]


def read_bytes(path: Path, **how: Unpack[ReadOptions]) -> bytes:
    """Read all bytes of a file; it may be a pipe.

    Raises:
        NsysmoeError: It cannot be read, or is larger than it may be.
    """
    largest = how.get("largest", LARGEST)
    try:
        return _content(path, largest)
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror})", how) from error
    except OverflowError as error:
        raise _refusal(path, f"is larger than {largest >> 20} MiB", how) from error


def read_lines(
    path: Path, longest: int = LONGEST_LINE, **how: Unpack[ReadOptions]
) -> Iterator[bytes]:
    """Read a file of any size line by line, as its bytes are; a line ends with a line feed.

    Args:
        path: The file.
        longest: Bytes that a line may have, with its end.
        how: As for other files; it may have any size.

    Raises:
        NsysmoeError: It cannot be read, or a line is longer than it may be.
    """
    with _opened(path, how) as file:
        yield from _bounded(partial(file.readline, longest + 1), path, longest, how)


def read_table_lines(
    path: Path, longest: int = LONGEST_LINE, **how: Unpack[ReadOptions]
) -> Iterator[str]:
    """Read a table of any size line by line, as a CSV reader takes it.

    A line ends with a line feed, a carriage return, or both, and keeps its end.

    Args:
        path: The file, in UTF-8, with a byte order mark or without.
        longest: Characters that a line may have, with its end.
        how: As for other files; it may have any size.

    Raises:
        NsysmoeError: As ``read_lines``.
        UnicodeDecodeError: It is not UTF-8.
    """
    with _opened(path, how) as file, TextIOWrapper(file, "utf-8-sig", newline="") as text:
        yield from _bounded(partial(text.readline, longest + 1), path, longest, how)


@contextmanager
def _opened(path: Path, how: ReadOptions) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror})", how) from error


def _bounded(
    read: Callable[[], AnyStr], path: Path, longest: int, how: ReadOptions
) -> Iterator[AnyStr]:
    number = 0
    while line := read():
        number += 1
        if len(line) > longest:
            what = f"has more than {longest >> 20} MiB in line {number:,}"
            raise _refusal(path, what, how)
        yield line


def read_text(path: Path, **how: Unpack[ReadOptions]) -> str:
    """Read a text in UTF-8, with a byte order mark or without; the file may be a pipe.

    Raises:
        NsysmoeError: It cannot be read, is larger than it may be, or is not UTF-8.
    """
    try:
        return read_bytes(path, **how).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(path, f"is not UTF-8 text (byte {error.start:,})", how) from error


def read_json(path: Path, **how: Unpack[ReadOptions]) -> Any:
    """Read a file that holds one JSON value.

    Raises:
        NsysmoeError: As ``read_text``, or it is not JSON.
    """
    text = read_text(path, **how)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"is not JSON ({error})", how) from error


def read_json_object(path: Path, **how: Unpack[ReadOptions]) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        NsysmoeError: As ``read_json``, or it holds another value.
    """
    found = read_json(path, **how)
    if not isinstance(found, dict):
        raise _refusal(path, "must hold a JSON object", how)
    return found


def read_json_object_if_there(path: Path, **how: Unpack[ReadOptions]) -> dict[str, Any] | None:
    """Read a file that holds one JSON object; None where there is no such file.

    Raises:
        NsysmoeError: As ``read_json_object``, but for a file that is not there.
    """
    try:
        return read_json_object(path, **how)
    except NsysmoeError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_toml(path: Path, **how: Unpack[ReadOptions]) -> dict[str, Any]:
    """Read a file of TOML.

    Raises:
        NsysmoeError: As ``read_text``, or it is not TOML.
    """
    text = read_text(path, **how)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"is not TOML ({error})", how) from error


def shipped_toml(package: str, name: str) -> dict[str, Any]:
    """Return the tables of a TOML file that ships in a package of nsysmoe."""
    return tomllib.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def _content(path: Path, largest: int) -> bytes:
    """Return all bytes.

    Raises:
        OSError: The file cannot be read.
        OverflowError: It holds more than it may.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        # A pipe or a device tells no size, and may have no end.
        size = about.st_size if stat.S_ISREG(about.st_mode) else largest
        if size <= largest and len(content := file.read(size + 1)) <= largest:
            return content
    raise OverflowError


def _refusal(path: Path, what: str, how: ReadOptions) -> NsysmoeError:
    return how.get("error", InputError)(f"{path} {what}; {how.get('fix', 'check the path')}")
