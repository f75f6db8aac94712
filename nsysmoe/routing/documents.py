"""Routing in arrays and JSON documents: what vLLM returns, and logs of gates."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.bounded_files import read_json
from nsysmoe.errors import InputError
from nsysmoe.routing.arrays import UNREADABLE
from nsysmoe.routing.forms import array_batches, count_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Level

# Of one request, which is held whole: a million tokens of the largest models.
_LARGEST_BYTES = 1 << 30
_GATE_LAYER = re.compile(r"gate_logs_(\d+)")
_ROUTED = "routed_experts"
_LOADS = "expert_loads"
# choices[].routed_experts of an HTTP answer lie three levels deep.
_DEEPEST = 8


def read_archive(path: Path) -> Iterator[pl.DataFrame]:
    """Yield choices of a .npz with an array [tokens, layers, k] a request, in order of numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = max((entry.file_size for entry in archive.infolist()), default=0)
        if size > _LARGEST_BYTES:
            raise InputError(f"{path} has an array of more than {_LARGEST_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as arrays:
            yield from _requests(path, ((name, arrays[name]) for name in _in_order(arrays.files)))
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as numpy arrays: {error}") from error


def read_array(path: Path) -> Iterator[pl.DataFrame]:
    """Yield choices of a .npy with one request's array, which is not loaded whole."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as a numpy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} cannot be read as a numpy array: it is an archive")
    yield from array_batches(path, "0", array)


def json_level(document: Any, path: Path) -> Level:
    """Tell what a JSON document holds.

    Raises:
        InputError: Neither routed experts nor loads.
    """
    if isinstance(document, dict) and _LOADS in document:
        return "counts"
    if next(_routed(document), None) is not None:
        return "tokens"
    raise InputError(f"{path} has no `{_ROUTED}` and no `{_LOADS}`")


def read_document(path: Path) -> tuple[Level, Iterator[pl.DataFrame]]:
    """Read ``routed_experts`` (lists, or .npy in base64), or a gate's loads by step.

    A gate log is ``{"step": [...], "num_tokens": [...], "expert_loads": [[...], ...]}`` of the
    layer in its name, ``gate_logs_{layer}.json``.
    """
    document = read_json(path)
    level = json_level(document, path)
    if level == "counts":
        return level, _gate(document, path)
    named = ((str(number), _array(value, path)) for number, value in enumerate(_routed(document)))
    return level, _requests(path, named)


def _requests(path: Path, named: Iterator[tuple[str, NDArray[Any]]]) -> Iterator[pl.DataFrame]:
    """Yield the choices of requests, which all have the layers and experts of the first."""
    shape: tuple[int, ...] | None = None
    for name, array in named:
        shape = shape or array.shape[1:]
        if array.shape[1:] != shape:
            raise InputError(
                f"{path}: request {name} has layers and experts {list(array.shape[1:])}, those "
                f"before {list(shape)}"
            )
        yield from array_batches(path, name, array)
    if shape is None:
        raise InputError(f"{path} holds no request")


def _gate(document: dict[str, Any], path: Path) -> Iterator[pl.DataFrame]:
    found = _GATE_LAYER.search(path.stem)
    try:
        loads = np.array(document[_LOADS])
        if loads.ndim != 2 or not np.issubdtype(loads.dtype, np.number):
            raise InputError(f"{path}: `{_LOADS}` must be rows of one length, a number an expert")
        steps = document.get("step") or list(range(len(loads)))
        if not isinstance(steps, list) or len(steps) != len(loads):
            raise InputError(f"{path}: `step` and `{_LOADS}` differ in length")
        is_whole = np.isfinite(loads) & (loads == np.floor(loads)) & (np.abs(loads) < 2.0**63)
        if not is_whole.all():
            raise InputError(f"{path}: `{_LOADS}` must be whole numbers of 64 bits")
        yield from count_batches(
            path, loads.astype(np.int64)[:, None], int(found[1]) if found else 0, steps
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: `{_LOADS}` is no table of numbers: {error}") from error


def _routed(document: Any, depth: int = 0) -> Iterator[Any]:
    """Yield every value of the key, in order, however an answer is wrapped."""
    if depth > _DEEPEST:
        return
    if isinstance(document, dict):
        if document.get(_ROUTED) is not None:
            yield document[_ROUTED]
            return
        inner: Any = document.values()
    else:
        inner = document if isinstance(document, list) else ()
    for value in inner:
        if isinstance(value, (dict, list)):
            yield from _routed(value, depth + 1)


def _array(value: Any, path: Path) -> NDArray[Any]:
    try:
        if isinstance(value, str):
            data = io.BytesIO(base64.b64decode(value, validate=True))
            loaded = np.load(data, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                raise InputError(f"{path}: `{_ROUTED}` holds an archive, not an array")
            return loaded
        return np.array(value)
    except UNREADABLE as error:
        raise InputError(f"{path}: `{_ROUTED}` is no array: {error}") from error


def _in_order(names: list[str]) -> list[str]:
    """Return r10 after r9."""
    numbers = {name: re.findall(r"\d+", name) for name in names}
    return sorted(names, key=lambda name: ([int(part) for part in numbers[name]], name))
