"""Routing in tables: CSV and Parquet with named columns, ours and others'."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from pyarrow import csv, parquet

from nsysmoe.errors import InputError
from nsysmoe.routing.forms import BATCH_ROWS, SCHEMAS, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nsysmoe.routing.forms import Level

_ARROW = {
    pl.String: pa.string(),
    pl.Int64: pa.int64(),
    # Wide, so that a number which does not fit is named rather than called no number.
    pl.Int32: pa.int64(),
    pl.Float32: pa.float64(),
    pl.Boolean: pa.bool_(),
}


def table_level(path: Path) -> Level:
    """Tell by its columns what a table holds.

    Raises:
        InputError: It is unreadable or lacks what either form needs.
    """
    with _readable(path):
        columns = set(_columns(path))
    if {"layer", "expert", "tokens"} <= columns:
        return "counts"
    if {"layer", "token", "expert"} <= columns:
        return "tokens"
    raise InputError(
        f"{path} needs the columns layer, expert and tokens (counts), or layer, token and expert "
        f"(choices); it has {', '.join(sorted(columns)[:12])}"
    )


def read_table(path: Path, level: Level) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table, ``k`` 0 where it has none.

    Raises:
        InputError: It is unreadable, or tokens differ in how many experts they have.
    """
    places: dict[int, int] = {}
    with _readable(path):
        known = [name for name in _columns(path) if name in SCHEMAS[level]]
        for batch in _batches(path, known, level):
            rows = pl.DataFrame(batch)
            if level == "tokens" and "k" not in known:
                rows = rows.with_columns(k=pl.lit(0))
            found = checked(rows, path, level)
            if level == "tokens":
                for k, count in found["k"].value_counts().iter_rows():
                    places[k] = places.get(k, 0) + count
            yield found
    _check_even(places, path)


def _check_even(places: dict[int, int], path: Path) -> None:
    """Refuse routes of different lengths: then some place among experts comes less often."""
    for k in range(len(places)):
        if places.get(k) != places.get(0):
            raise InputError(
                f"{path}: routes differ in length: k 0 comes {places.get(0, 0):,} times, k {k} "
                f"{places.get(k, 0):,} times"
            )


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return list(parquet.read_schema(path).names)
    with csv.open_csv(path) as reader:
        return list(reader.schema.names)


def _batches(path: Path, known: list[str], level: Level) -> Iterator[Any]:
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=known)
        return
    kinds = {name: _ARROW[SCHEMAS[level][name]] for name in known}
    options = csv.ConvertOptions(
        column_types=kinds, include_columns=known, strings_can_be_null=True
    )
    with csv.open_csv(path, convert_options=options) as reader:
        yield from reader


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or _line(error)}") from error
    # UnicodeDecodeError: the names of columns are read as they are.
    except (pa.ArrowException, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no table: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
