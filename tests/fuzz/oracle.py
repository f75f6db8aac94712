"""What a mutant says by plain Python and sqlite3 alone: the answer that another must equal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_INT64 = 2**63
# Values that break a table's own rules do not say that a page is damaged.
_RULES = (" value in ", "CHECK constraint failed", "missing from index", "non-unique")


@dataclass(frozen=True)
class Kernel:
    """One execution of a kernel; times in ns."""

    name: str
    start: int
    end: int
    device: int
    process: int | None

    @property
    def duration(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Facts:
    """What a file holds.

    Attributes:
        damage: Why its pages do not hold together; empty where they do.
        kernels: Its kernels; None where they cannot be told, and ``reason`` says why.
        reason: Why no number about kernels may be given.
    """

    damage: str
    kernels: list[Kernel] | None
    reason: str = ""


def facts(path: Path, *, needs_ranks: bool = True) -> Facts:
    """Read a trace row by row.

    Args:
        path: The export.
        needs_ranks: Whether a process or device that is none forbids an answer; numbers by
            kernel name do not depend on them.
    """
    try:
        with closing(_opened(path)) as database:
            lines = [row[0] for row in database.execute("PRAGMA integrity_check(100)")]
            damage = [_text(line) for line in lines if not _is_harmless(_text(line))]
            if damage:
                return Facts(damage[0], None, "its pages are damaged")
            return _kernels(database, needs_ranks=needs_ranks)
    except (sqlite3.Error, ValueError) as error:
        return Facts("", None, str(error))


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    database.text_factory = bytes
    return database


def _is_harmless(line: str) -> bool:
    return line == "ok" or any(rule in line for rule in _RULES)


def _text(value: object) -> str:
    """Return a value of SQLite's as text, what is no UTF-8 and NUL mended."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").replace("\0", "\ufffd")
    return str(value)


def _kernels(database: sqlite3.Connection, *, needs_ranks: bool) -> Facts:
    names = _names(database)
    table = database.execute("PRAGMA table_info(CUPTI_ACTIVITY_KIND_KERNEL)")
    has_process = b"globalpid" in [row[1].lower() for row in table]
    process = "globalPid" if has_process and needs_ranks else "NULL"
    place = "deviceId" if needs_ranks else "0"
    found = []
    for name, start, end, device, pid in database.execute(
        f'SELECT demangledName, start, "end", {place}, {process} FROM CUPTI_ACTIVITY_KIND_KERNEL'
    ):
        if (odd := _odd((name, start, end, device), pid)) or len(names.get(name, ())) > 1:
            return Facts("", None, odd or f"the id {name} has two texts")
        found.append(Kernel(next(iter(names.get(name, "?"))), start, end, device, pid))
    if not found:
        return Facts("", None, "there is no kernel")
    if sum(kernel.duration for kernel in found) >= _INT64:
        return Facts("", None, "the times are beyond 64 bits")
    return Facts("", found)


def _names(database: sqlite3.Connection) -> dict[int, set[str]]:
    """Return the texts of each id; more than one where nobody can tell which is meant."""
    names: dict[int, set[str]] = {}
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    if b"stringids" not in [name.lower() for name in tables]:
        # Every kernel is then without a name.
        return names
    for key, value in database.execute("SELECT id, value FROM StringIds"):
        if isinstance(key, int) and value is not None:
            names.setdefault(key, set()).add(_text(value))
    return names


def _odd(numbers: tuple[object, ...], pid: object) -> str:
    """Say why a row is none that nsys writes; nothing where it is one."""
    if not all(isinstance(value, int) for value in numbers) or not isinstance(pid, int | None):
        return "a value is no integer"
    _, start, end, _ = numbers
    return "a kernel ends before it starts" if end < start else ""  # type: ignore[operator]


def cells(kernels: list[Kernel]) -> list[list[int]] | None:
    """Return durations of the nth MoE kernel of every rank, by n; None where ranks differ."""
    ranks: dict[object, list[Kernel]] = {}
    for kernel in kernels:
        ranks.setdefault((kernel.device, kernel.process), []).append(kernel)
    if len({len(launches) for launches in ranks.values()}) != 1 or len(ranks) < 2:
        return None
    ordered = [
        [k.duration for k in sorted(launches, key=lambda k: (k.start, k.duration))]
        for launches in ranks.values()
    ]
    return [list(cell) for cell in zip(*ordered, strict=True)]
