"""The two forms that every routing log becomes, in batches: choices of tokens, or counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Level = Literal["tokens", "counts"]
# A row a choice; null where the log does not tell.
TOKENS_SCHEMA: dict[str, Any] = {
    "run": pl.String,
    "request": pl.String,
    "phase": pl.String,
    "step": pl.Int64,
    "layer": pl.Int32,
    "token": pl.Int64,
    "k": pl.Int32,
    "expert": pl.Int32,
    "weight": pl.Float32,
    "domain": pl.String,
    "padding": pl.Boolean,
}
COUNTS_SCHEMA: dict[str, Any] = {
    "run": pl.String,
    "step": pl.Int64,
    "layer": pl.Int32,
    "expert": pl.Int32,
    "tokens": pl.Int64,
}
SCHEMAS: dict[Level, dict[str, Any]] = {"tokens": TOKENS_SCHEMA, "counts": COUNTS_SCHEMA}
# Rows of a batch: tens of MB, whatever the log's size.
BATCH_ROWS = 1 << 18
LARGEST_EXPERT = 65_535
_LARGEST_LAYER = 65_535
# Sums of a hundred million such numbers fit 64 bits.
_LARGEST_COUNT = 1 << 36


@dataclass
class Tally:
    """What was seen while a log was read.

    Attributes:
        dummy_rows: Choices of the engine's dummy runs.
        dummy_tokens: Routes of them (a token in a layer).
    """

    dummy_rows: int = 0
    dummy_tokens: int = 0


@dataclass(frozen=True)
class Source:
    """One log while it is read.

    Attributes:
        path: The file.
        level: What its rows are.
        batches: Frames of ``SCHEMAS[level]``; reading fails while they are taken.
        tally: Filled meanwhile.
    """

    path: Path
    level: Level
    batches: Iterator[pl.DataFrame]
    tally: Tally


def array_batches(
    path: Path, request: str, route: NDArray[Any], top_k: int | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the choices of one request from its array [tokens, layers, k].

    Raises:
        InputError: It has another shape, or holds no experts.
    """
    where = f"{path}: request {request}"
    if route.ndim != 3 or not route.size:
        raise InputError(f"{where} has the shape {list(route.shape)}, not [tokens, layers, k]")
    if not np.issubdtype(route.dtype, np.integer):
        raise InputError(f"{where}: experts must be integers")
    tokens, layers, k = route.shape
    if top_k is not None and k != top_k:
        raise InputError(f"{where} has {k} experts a token, those before {top_k}")
    each = max(1, BATCH_ROWS // (layers * k))
    for first in range(0, tokens, each):
        part = np.asarray(route[first : first + each])
        index = np.indices(part.shape).reshape(3, -1)
        yield checked(
            pl.DataFrame(
                {
                    "request": np.full(part.size, request),
                    "token": index[0] + first,
                    "layer": index[1],
                    "k": index[2],
                    "expert": part.reshape(-1).astype(np.int64),
                }
            ),
            path,
            "tokens",
        )


def count_batches(
    path: Path, loads: NDArray[Any], layer: int | None = None, steps: Sequence[int] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the counts of an array [steps, layers, experts], zeros too.

    Args:
        path: Where it is from.
        loads: Counts.
        layer: Layer of the array's only one; None to number them from 0.
        steps: Number of each step; None to number them from 0.
    """
    if loads.ndim != 3 or not loads.size:
        raise InputError(f"{path} has loads of the shape {list(loads.shape)}, not 3 axes")
    count, layers, experts = loads.shape
    numbers = np.arange(count) if steps is None else np.array(steps, dtype=np.int64)
    each = max(1, BATCH_ROWS // (layers * experts))
    for first in range(0, count, each):
        part = np.asarray(loads[first : first + each])
        index = np.indices(part.shape).reshape(3, -1)
        yield checked(
            pl.DataFrame(
                {
                    "step": numbers[first + index[0]],
                    "layer": index[1] + (layer or 0),
                    "expert": index[2],
                    "tokens": part.reshape(-1),
                }
            ),
            path,
            "counts",
        )


def checked(frame: pl.DataFrame, path: Path, level: Level) -> pl.DataFrame:
    """Return the frame with every column of its form, or refuse values that no log can have.

    Raises:
        InputError: A value is missing, no number, or out of range.
    """
    schema = SCHEMAS[level]
    wide = {name: pl.Int64 if kind == pl.Int32 else kind for name, kind in schema.items()}
    try:
        found = frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in wide.items()
        )
    except (pl.exceptions.PolarsError, OverflowError) as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    for name, highest in _limits(level).items():
        _check(found, name, highest, path)
    source = pl.lit(path.stem) if found["run"].null_count() else pl.col("run")
    return found.with_columns(run=pl.coalesce("run", source)).cast(pl.Schema(schema))


def _limits(level: Level) -> dict[str, int]:
    if level == "counts":
        return {"layer": _LARGEST_LAYER, "expert": LARGEST_EXPERT, "tokens": _LARGEST_COUNT}
    return {"layer": _LARGEST_LAYER, "expert": LARGEST_EXPERT, "k": LARGEST_EXPERT}


def _check(frame: pl.DataFrame, name: str, highest: int, path: Path) -> None:
    values = frame[name]
    if values.null_count():
        raise InputError(f"{path}: {values.null_count():,} rows have no `{name}`")
    if not frame.height:
        return
    lowest, largest = int(values.min()), int(values.max())  # type: ignore[arg-type]
    if lowest < 0 or largest > highest:
        odd = lowest if lowest < 0 else largest
        raise InputError(f"{path}: `{name}` {odd} is not between 0 and {highest:,}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
