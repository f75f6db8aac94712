"""Routing in tables: CSV and Parquet with named columns, ours and others'."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.errors import InputError
from nsysmoe.routing.forms import BATCH_ROWS, COUNTS_SCHEMA, TOKENS_SCHEMA, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nsysmoe.routing.forms import Level


def table_level(path: Path) -> Level:
    """Tell by its columns what a table holds.

    Raises:
        InputError: It is unreadable or lacks what either form needs.
    """
    with _readable(path):
        columns = set(_scan(path).collect_schema().names())
    if {"layer", "expert", "tokens"} <= columns:
        return "counts"
    if {"layer", "token", "expert"} <= columns:
        return "tokens"
    raise InputError(
        f"{path} needs the columns layer, expert and tokens (counts), or layer, token and expert "
        f"(choices); it has {', '.join(sorted(columns)[:12])}"
    )


def read_table(path: Path, level: Level) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table, ``k`` 0 where it has none."""
    schema = TOKENS_SCHEMA if level == "tokens" else COUNTS_SCHEMA
    with _readable(path):
        scan = _scan(path)
        known = [name for name in scan.collect_schema().names() if name in schema]
        for batch in scan.select(known).collect_batches(chunk_size=BATCH_ROWS):
            rows = batch
            if level == "tokens" and "k" not in known:
                rows = rows.with_columns(k=pl.lit(0))
            yield checked(rows, path, level)


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is no table: {str(error).splitlines()[0]}") from error
