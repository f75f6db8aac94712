"""A log of requests on disk: indexed once, read again one request at a time.

Of JSON lines only places and times are held, 16 bytes a request, so that a day of prompts needs no
memory. A JSON list (ShareGPT's files, results of vLLM's benchmark) is held whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from nsysmoe.bounded_files import read_json, read_lines, read_table_lines
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.traffic.forms import BadRowError, answer_of, request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nsysmoe.traffic.request import Request

_BOM = b"\xef\xbb\xbf"
_LARGEST_LIST = 2 << 30
_MOST_BAD = 100
_SHOWN = 5
# BurstGPT's columns and Azure's, which tell times and lengths.
_COLUMNS = {
    "Timestamp": "timestamp",
    "TIMESTAMP": "timestamp",
    "Request tokens": "input_length",
    "ContextTokens": "input_length",
    "Response tokens": "output_length",
    "GeneratedTokens": "output_length",
}


class _Rows(Protocol):
    """Rows that can be read again by their place."""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Return (key, value or BadRowError) of every row."""

    def read(self, key: int) -> Any:
        """Return the row of a key."""


@dataclass(frozen=True)
class RequestLog:
    """Requests in the order of their arrival.

    Attributes:
        source: The file.
        digest: SHA-256 of it.
        arrivals: Seconds since the first, ascending; None where the log tells no times.
        findings: Rows that were left out, lengths that were guessed.
    """

    source: str
    digest: str
    arrivals: array[float] | None
    findings: tuple[Finding, ...]
    _rows: _Rows
    _keys: array[int]
    _count_tokens: Callable[[str], int] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def request(self, number: int) -> Request:
        """Return a request by its place in the order of arrival, from 0."""
        key = self._keys[number]
        return _read(self._rows.read(key), number, self._count_tokens)


def read_log(path: Path, count_tokens: Callable[[str], int] | None = None) -> RequestLog:
    """Index a log.

    Args:
        path: JSON lines or a JSON list of any form in ``forms``, a result of ``vllm bench serve
            --save-detailed`` (lengths and start times), or a CSV with times and lengths.
        count_tokens: Counts the tokens of a conversation's logged answer.

    Raises:
        InputError: The file cannot be read or has too many rows that are no request.
        MissingDataError: It holds none, or tells the times of some requests only.
    """
    try:
        digest = _digest(path)
        rows = _rows_of(path)
        return _indexed(path, digest, rows, count_tokens)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _indexed(
    path: Path, digest: str, rows: _Rows, count_tokens: Callable[[str], int] | None
) -> RequestLog:
    keys, times, bad = array("q"), array("d"), list[tuple[int, str]]()
    for number, (key, row) in enumerate(rows):
        try:
            request = _read(row, number, None)
        except BadRowError as error:
            bad.append((number + 1, str(error)))
            if len(bad) > _MOST_BAD:
                raise InputError(
                    f"{path} has more than {_MOST_BAD} rows that are no request, the last is row "
                    f"{number + 1} ({error}); docs/production/replay.md has the forms"
                ) from error
            continue
        keys.append(key)
        if request.arrival_s is not None:
            times.append(request.arrival_s)
    if not keys:
        why = f": row {bad[0][0]} has {bad[0][1]}" if bad else ""
        raise MissingDataError(f"{path} holds no request{why}")
    if times and len(times) != len(keys):
        raise MissingDataError(
            f"{path} tells when {len(times):,} of {len(keys):,} requests came; all or none must"
        )
    keys, arrivals = _ordered(keys, times)
    return RequestLog(str(path), digest, arrivals, _findings(path, bad), rows, keys, count_tokens)


def _ordered(keys: array[int], times: array[float]) -> tuple[array[int], array[float] | None]:
    if not times:
        return keys, None
    # Requests of one moment keep the order of the log.
    order = sorted(range(len(times)), key=times.__getitem__)
    first = times[order[0]]
    return array("q", (keys[i] for i in order)), array("d", (times[i] - first for i in order))


def _read(row: Any, number: int, count_tokens: Callable[[str], int] | None) -> Request:
    if isinstance(row, BadRowError):
        raise row
    found = request_of(row, number)
    if found.output_tokens is None and count_tokens is not None:
        answer = answer_of(row)
        if answer:
            return type(found)(
                found.id, found.path, found.prompt, max(1, count_tokens(answer)),
                found.arrival_s, found.options,
            )  # fmt: skip
    return found


def _findings(path: Path, bad: list[tuple[int, str]]) -> tuple[Finding, ...]:
    if not bad:
        return ()
    shown = ", ".join(f"row {number} ({why})" for number, why in bad[:_SHOWN])
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    message = f"left out of {path}, {len(bad)} that are no request: {shown}{more}"
    return (Finding("bad_rows", "warning", message, {"rows": len(bad)}),)


def _rows_of(path: Path) -> _Rows:
    if path.suffix == ".csv":
        return _Listed(list(_table(path)))
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(_BOM).lstrip()
    if start.startswith(b"["):
        return _Listed(_whole(path, list))
    if start.startswith(b"{") and b"\n" not in start.rstrip():
        # One line alone: a result of vLLM's benchmark, or a log of one request.
        return _one_line(path)
    return _single_object(path) if _is_spread(start) else _Lines(path)


def _is_spread(start: bytes) -> bool:
    """Tell whether an object begins that goes on over lines, as indented JSON does."""
    first = start.split(b"\n", 1)[0].strip()
    return first == b"{"


def _one_line(path: Path) -> _Rows:
    lines = _Lines(path)
    first = next((row for _, row in lines), None)
    return _Listed(_benchmark(first)) if _is_benchmark(first) else lines


def _single_object(path: Path) -> _Rows:
    found = _whole(path, dict)
    return _Listed(_benchmark(found) if _is_benchmark(found) else [found])


def _whole(path: Path, kind: type) -> Any:
    found = read_json(path, largest=_LARGEST_LIST, fix="write a JSON object a line")
    if not isinstance(found, kind):
        raise InputError(f"{path} is neither JSON lines nor a JSON list")
    return found


def _is_benchmark(row: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(row, dict) and isinstance(row.get("input_lens"), list)


def _benchmark(row: dict[str, Any]) -> list[Any]:
    """Return a row a request of ``vllm bench serve --save-detailed``: lengths and start times."""
    lengths, outputs = row["input_lens"], row.get("output_lens")
    starts = row.get("start_times")
    count = len(lengths)
    if not isinstance(outputs, list) or len(outputs) != count:
        outputs = [None] * count
    if not isinstance(starts, list) or len(starts) != count:
        starts = [None] * count
    return [
        {"input_length": one, "output_length": other, "arrival_s": start}
        for one, other, start in zip(lengths, outputs, starts, strict=True)
    ]


def _table(path: Path) -> Iterator[Any]:
    try:
        reader = csv.DictReader(read_table_lines(path))
        names = {name: _COLUMNS[name] for name in reader.fieldnames or () if name in _COLUMNS}
        if not {"input_length", "timestamp"} <= set(names.values()):
            raise InputError(
                f"{path} lacks columns of times and lengths (Timestamp, Request tokens, "
                "Response tokens; or TIMESTAMP, ContextTokens, GeneratedTokens)"
            )
        for row in reader:
            yield {ours: _number(row[theirs]) for theirs, ours in names.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV that can be read ({error})") from error


def _number(text: str | None) -> Any:
    try:
        return int(text or "")
    except ValueError:
        return text


class _Listed:
    """Rows that are held."""

    def __init__(self, rows: list[Any]) -> None:
        self._held = rows

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return iter(enumerate(self._held))

    def read(self, key: int) -> Any:
        return self._held[key]


class _Lines:
    """JSON lines, by the place where each begins."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        place = 0
        for line in read_lines(self._path):
            if line.removeprefix(_BOM).strip():
                yield place, _parsed(line)
            place += len(line)

    def read(self, key: int) -> Any:
        with self._path.open("rb") as file:
            file.seek(key)
            return _parsed(file.readline())


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError:
        return BadRowError("bytes that are not UTF-8")
    except (ValueError, RecursionError):
        return BadRowError("no JSON")
