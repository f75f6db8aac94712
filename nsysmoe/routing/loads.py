"""Tables of loads and maps of experts, as files that other programs write."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.bounded_files import read_json, read_text
from nsysmoe.errors import InputError
from nsysmoe.routing.run import is_matrix, map_of_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

# Sums of loads stay exact in double precision well beyond this.
_LARGEST_LOAD = 1e15
_MAP_KEY = "physical_to_logical_map"


def read_loads(path: Path) -> NDArray[np.float64]:
    """Read a CSV without header, one line a layer, one column an expert.

    Returns:
        Shape [layers, experts].

    Raises:
        InputError: It is unreadable or of another form; the message names the line.
    """
    text = io.StringIO(read_text(path), newline="")
    try:
        rows = [_numbers(line, number, path) for number, line in _lines(text)]
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error
    if not rows:
        raise InputError(f"{path} holds no loads: one line a layer, one column an expert")
    if len({len(row) for row in rows}) != 1:
        odd = next(number for number, row in enumerate(rows) if len(row) != len(rows[0]))
        raise InputError(
            f"{path}: layer {odd} has {len(rows[odd])} experts, layer 0 has {len(rows[0])}"
        )
    return np.array(rows, dtype=np.float64)


def read_map(path: Path) -> tuple[NDArray[np.int64], int | None]:
    """Read a map of experts: a plan of ours, a bare ``physical_to_logical_map``, or a run record.

    Returns:
        Logical experts, shape [layers, slots], and the GPUs where the file tells them.

    Raises:
        InputError: It holds none.
    """
    document = read_json(path)
    gpus = None
    if isinstance(document, list):
        map_ = document
    elif isinstance(document, dict) and isinstance(document.get("layers"), list):
        map_, gpus = _of_plan(document["layers"], path)
    elif isinstance(document, dict) and _MAP_KEY in document:
        found = document[_MAP_KEY]
        map_ = found if isinstance(found, list) else []
    elif isinstance(document, dict) and document.get("eplb_after") is not None:
        map_ = list(map_of_state(document["eplb_after"], f"{path}: `eplb_after`") or ())
    else:
        map_ = []
    rows = [list(row) if isinstance(row, tuple) else row for row in map_]
    if not is_matrix(rows):
        raise InputError(f"{path} has no `{_MAP_KEY}` of layers by slots")
    return np.array(rows, dtype=np.int64), gpus


def _of_plan(layers: list[Any], path: Path) -> tuple[list[Any], int | None]:
    """Return the map of a plan, and its GPUs by the loads that it lists."""
    if not all(isinstance(layer, dict) for layer in layers):
        raise InputError(f"{path}: `layers` must hold an object a layer")
    listed = [layer.get("device_loads") for layer in layers]
    lengths = {len(loads) for loads in listed if isinstance(loads, list)}
    gpus = lengths.pop() if len(lengths) == 1 else None
    return [layer.get(_MAP_KEY) for layer in layers], gpus or None


def _lines(file: io.StringIO) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(csv.reader(file), start=1):
        # Not what Python calls space: a control character is a damaged file.
        if any(cell.strip(" \t") for cell in line):
            yield number, line


def _numbers(line: list[str], number: int, path: Path) -> list[float]:
    try:
        values = [float(cell) for cell in line]
    except ValueError as error:
        raise InputError(
            f"{path}, line {number}: {error}; loads are numbers without a header"
        ) from error
    if not all(math.isfinite(value) and 0 <= value <= _LARGEST_LOAD for value in values):
        raise InputError(f"{path}, line {number}: loads must lie between 0 and {_LARGEST_LOAD:.0e}")
    return values
