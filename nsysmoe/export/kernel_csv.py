"""Kernel summaries as CSV: copied from the Nsight window, or printed by ``nsys stats``.

Two layouts, told apart by their values and never by the file's name:

* the window's "CUDA GPU Kernel Summary": values with a unit, such as ``102.664 s``, which Nsight
  has rounded to three decimals;
* ``nsys stats -r cuda_gpu_kern_sum --format csv``: plain numbers, the unit in the header, ns
  unless ``--timeunit`` said otherwise.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from nsysmoe.bounded_files import read_bytes
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_UNITS |= {"nsec": 1, "usec": 1_000, "msec": 1_000_000, "sec": 1_000_000_000}
_VALUE = re.compile(r"([0-9][0-9,]{0,29}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?) *([a-zA-Zµμ]*)")
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")
_HEADER_UNIT = re.compile(r"\(([a-zA-Zµμ]+)\)")
# Header without unit and blanks, lower case, to our name; older nsys spells three of them out.
_COLUMNS = {
    "totaltime": "total_ns",
    "instances": "launches",
    "avg": "mean_ns",
    "average": "mean_ns",
    "med": "median_ns",
    "median": "median_ns",
    "min": "min_ns",
    "minimum": "min_ns",
    "max": "max_ns",
    "maximum": "max_ns",
    "stddev": "stddev_ns",
    "name": "name",
}
_NEEDED = ("name", "total_ns", "launches")
_HEADER_SEARCH_LINES = 50
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class KernelRow:
    """One kernel of a summary; None where the layout does not hold the figure.

    ``total_ns``, ``min_ns`` and ``max_ns`` are integers in ns; ``is_rounded`` tells that the
    source had rounded them.
    """

    name: str
    launches: int
    total_ns: int
    mean_ns: float | None
    median_ns: float | None
    min_ns: int | None
    max_ns: int | None
    stddev_ns: float | None
    is_rounded: bool


def read_kernel_csv(path: Path) -> list[KernelRow]:
    """Read the rows of a kernel summary.

    Raises:
        InputError: The file is no kernel summary, or a value cannot be understood.
    """
    raw = read_bytes(path, fix="check its rights and that it is a kernel summary")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = raw.decode(encoding, "replace").replace("\0", "\ufffd")
    # The module's limit is 128 KiB a field; names of kernels have no limit.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = [_row(path, line, values) for line, values in _records(path, text)]
    if not rows:
        raise InputError(f"{path} has a header but no kernels; copy the whole table")
    if sum(row.total_ns for row in rows) > _INT64_MAX or sum(r.launches for r in rows) > _INT64_MAX:
        raise InputError(f"{path}: the times add up to over 292 years; copy the table again")
    return rows


def _records(path: Path, text: str) -> Iterator[tuple[int, dict[str, tuple[str, str]]]]:
    """Yield line number and, for each known column, its value and the unit of its header."""
    # By line feeds alone: a name may hold what Unicode calls a line's end.
    lines = io.StringIO(text).readlines()
    header = _find_header(path, lines)
    reader = csv.reader(lines[header.line :], delimiter=header.delimiter, strict=True)
    try:
        for values in reader:
            line = header.line + reader.line_num
            if not any(values):
                continue
            if len(values) != len(header.columns):
                raise InputError(
                    f"{path}, line {line}: {len(values)} values where the header has "
                    f"{len(header.columns)}; the file is cut off or was edited"
                )
            named = zip(header.columns, values, strict=True)
            yield line, {name: (value, unit) for (name, unit), value in named if name}
    except csv.Error as error:
        line = header.line + reader.line_num
        raise InputError(f"{path}, line {line}: {error}; the file is cut off") from error


@dataclass(frozen=True)
class _Header:
    """Line number (from 1), delimiter, and for each column our name and the unit it states."""

    line: int
    delimiter: str
    columns: list[tuple[str, str]]


def _find_header(path: Path, lines: list[str]) -> _Header:
    """Find the header: nsys stats may print lines before it."""
    for number, line in enumerate(lines[:_HEADER_SEARCH_LINES], 1):
        delimiter = "\t" if "\t" in line else ";" if ";" in line and "," not in line else ","
        columns = [(_column(title), _header_unit(title)) for title in _titles(line, delimiter)]
        if {name for name, _ in columns} >= set(_NEEDED):
            return _Header(number, delimiter, columns)
    raise InputError(
        f"{path} is not a kernel summary (no columns Name, Total Time, Instances); copy the table "
        "CUDA GPU Kernel Summary, or run nsys stats -r cuda_gpu_kern_sum --format csv"
    )


def _titles(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line; none where it is no line of a table."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _column(title: str) -> str:
    plain = re.sub(r"\(.*?\)|\s", "", title).lower()
    # "Time(%)" is a share; only "Total Time" is a time.
    return _COLUMNS.get(plain, "")


def _header_unit(title: str) -> str:
    match = _HEADER_UNIT.search(title)
    return match.group(1) if match else ""


def _row(path: Path, line: int, values: dict[str, tuple[str, str]]) -> KernelRow:
    def time(name: str) -> Decimal | None:
        text, header_unit = values.get(name, ("", ""))
        return _time(text, header_unit, f"{path}, line {line}, {name}") if text.strip() else None

    launches = values["launches"][0].replace(",", "").strip()
    total = time("total_ns")
    is_count = launches.isascii() and launches.isdecimal() and len(launches) < 19
    if not is_count or int(launches) < 1 or total is None:
        raise InputError(f"{path}, line {line}: a kernel needs its launches and its total time")
    shortest, longest = time("min_ns"), time("max_ns")
    if shortest is not None and longest is not None and shortest > longest:
        raise InputError(f"{path}, line {line}: the minimum is above the maximum")
    return KernelRow(
        name=values["name"][0],
        launches=int(launches),
        total_ns=round(total),
        mean_ns=_float(time("mean_ns")),
        median_ns=_float(time("median_ns")),
        min_ns=_int(shortest),
        max_ns=_int(longest),
        # One launch has no deviation; nsys prints 0 for it.
        stddev_ns=_float(time("stddev_ns")) if int(launches) > 1 else None,
        is_rounded=bool(_VALUE.fullmatch(values["total_ns"][0].strip()).group(2)),  # type: ignore[union-attr]
    )


def _time(text: str, header_unit: str, where: str) -> Decimal:
    """Return a time in ns, exactly as written."""
    match = _VALUE.fullmatch(text.strip())
    number = match.group(1) if match else ""
    if "," in number and not _THOUSANDS.fullmatch(number.partition(".")[0]):
        number = ""
    unit = ((match and match.group(2)) or header_unit or "ns").replace("μ", "u").replace("µ", "u")
    if not number or unit not in _UNITS:
        raise InputError(f"{where}: {text!r} is not a time such as 102.664 s or 102664000")
    value = Decimal(number.replace(",", "")) * _UNITS[unit]
    if value > _INT64_MAX:
        raise InputError(f"{where}: {text!r} is over 292 years")
    return value


def _int(value: Decimal | None) -> int | None:
    return None if value is None else round(value)


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
