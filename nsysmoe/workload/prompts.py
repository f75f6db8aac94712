"""Prompts out of files: JSON lines, conversations in ShareGPT's format, a column of Parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json, read_lines
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIELD = "prompt"
MAX_ERRORS = 100
_SHOWN = 20
# All prompts are held, as bytes of a JSON list or as characters.
_LARGEST = 2 << 30
_BOM = b"\xef\xbb\xbf"
_HUMAN = {"human", "user"}


@dataclass(frozen=True)
class Prompts:
    """Texts in the order of the file, and the rows that held none.

    Attributes:
        source: The file.
        texts: Not empty, each with something that is not space.
        bad: Line (or row, from 1) and why it was left out.
    """

    source: str
    texts: tuple[str, ...]
    bad: tuple[tuple[int, str], ...] = ()

    def findings(self) -> tuple[Finding, ...]:
        """Return one finding that names the lines that were left out."""
        if not self.bad:
            return ()
        shown = ", ".join(f"line {line} ({reason})" for line, reason in self.bad[:_SHOWN])
        more = f" and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
        message = f"left out of {self.source}, {len(self.bad)} bad row(s): {shown}{more}"
        lines = [line for line, _ in self.bad]
        return (Finding("bad_rows", "warning", message, {"rows": len(lines), "lines": lines}),)


@dataclass
class _Rows:
    """What was read so far."""

    source: str
    max_errors: int
    texts: list[str] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    characters: int = 0

    def add(self, line: int, read: Callable[[], str]) -> None:
        """Keep what ``read`` returns, or that it could not.

        Raises:
            InputError: There are more bad rows than allowed, or more text than can be held.
        """
        try:
            text = _checked(read())
            self.texts.append(text)
            self.characters += len(text)
        # Lists within lists without end are no reason to stop either.
        except (_BadRowError, RecursionError) as error:
            self.bad.append((line, str(error) if isinstance(error, _BadRowError) else "too deep"))
        if self.characters > _LARGEST:
            raise InputError(
                f"{self.source} has more than {_LARGEST >> 20} Mi characters of prompts by line "
                f"{line}; keep a sample of its rows"
            )
        if len(self.bad) > self.max_errors:
            number, reason = self.bad[-1]
            raise InputError(
                f"{self.source} has more than {self.max_errors} bad rows, the last in line "
                f"{number} ({reason}); mend it or raise --max-errors"
            )


class _BadRowError(ValueError):
    """A row without a prompt; the text says why."""


def read_prompts(path: Path, field_: str = FIELD, max_errors: int = MAX_ERRORS) -> Prompts:
    """Read prompts.

    Args:
        path: JSON lines with a text ``field_`` or with ``conversations``; a JSON list of such
            objects; or ``.parquet`` with a column ``field_`` of texts.
        field_: Name of the field or column.
        max_errors: Rows without a prompt that are left out; one more stops.

    Raises:
        InputError: The file cannot be read, or has too many bad rows.
        MissingDataError: No row has a prompt.
    """
    rows = _Rows(str(path), max_errors)
    try:
        if path.suffix == ".parquet":
            _read_parquet(path, field_, rows)
        else:
            _read_json(path, field_, rows)
    except OSError as error:
        # Of a pipe the system gives no reason: nothing went wrong, it only cannot go back.
        why = error.strerror or "it is a pipe; write it to a file"
        raise InputError(f"{path} cannot be read ({why}); check the path") from error
    if not rows.texts:
        why = f": line {rows.bad[0][0]} ({rows.bad[0][1]})" if rows.bad else ""
        raise MissingDataError(f"{path} holds no prompt{why}; each row needs a text `{field_}`")
    return Prompts(str(path), tuple(rows.texts), tuple(rows.bad))


def _read_json(path: Path, field_: str, rows: _Rows) -> None:
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(_BOM).lstrip()
        # It is opened again below: a pipe, which cannot go back, is refused here.
        file.seek(0)
    if start.startswith(b"["):
        listed = read_json(path, largest=_LARGEST, fix="write a JSON object a line")
        for number, row in enumerate(listed, start=1):
            rows.add(number, lambda row=row: _text_of(row, field_))  # type: ignore[misc]
        return
    for number, line in _lines(path):
        rows.add(number, lambda line=line: _text_of(_parsed(line), field_))  # type: ignore[misc]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Return the lines that hold anything, with their numbers."""
    for number, line in enumerate(read_lines(path), start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if text.strip():
            yield number, text


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadRowError("not UTF-8") from error
    except ValueError as error:
        raise _BadRowError("not JSON") from error


def _text_of(row: Any, field_: str) -> str:
    if not isinstance(row, dict):
        raise _BadRowError("no JSON object")
    if field_ not in row and isinstance(row.get("conversations"), list):
        return _first_turn(row["conversations"])
    if field_ not in row:
        raise _BadRowError(f"no field {field_}")
    value = row[field_]
    if not isinstance(value, str):
        raise _BadRowError(f"{field_} is no text")
    return value


def _first_turn(turns: list[Any]) -> str:
    """Return the first thing that a person says in ShareGPT's ``from`` and ``value``."""
    for turn in turns:
        if isinstance(turn, dict) and str(turn.get("from")) in _HUMAN:
            if isinstance(turn.get("value"), str):
                return str(turn["value"])
            break
    raise _BadRowError("no turn of a person")


def _checked(text: str) -> str:
    if not text.strip():
        raise _BadRowError("an empty prompt")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _BadRowError("half of a surrogate pair") from error
    return text


def _read_parquet(path: Path, column: str, rows: _Rows) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to import, and only Parquet needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path} has no column {column}; it has {names} (--field)")
            number = 0
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    rows.add(number, lambda value=value: _text_of({column: value}, column))  # type: ignore[misc]
    except pa.ArrowException as error:
        raise InputError(f"{path} is no Parquet that can be read ({error})") from error
