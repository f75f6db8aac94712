"""TensorRT-LLM's statistics of experts: a folder with ``meta_info.json`` and a file a rank."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nsysmoe.errors import InputError
from nsysmoe.routing.forms import BATCH_ROWS, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Level

META = "meta_info.json"
_COUNTS, _CHOICES = "rank", "token_selected_experts_rank"
# Iteration and layer.
_KEY = re.compile(r"(\d{1,18})_(\d{1,9})")


def statistics_of(folder: Path) -> list[Path]:
    """Return the files of all ranks that say most: choices of tokens where there are any.

    Raises:
        InputError: There is no file beside ``meta_info.json``.
    """
    for prefix in (_CHOICES, _COUNTS):
        found = sorted(folder.glob(f"{prefix}*.safetensors"))
        if found:
            return found
    raise InputError(f"{folder} has {META} and no {_COUNTS}*.safetensors beside it")


def read_statistics(path: Path) -> tuple[Level, Iterator[pl.DataFrame]]:
    """Read the counts of a rank by iteration and layer, or the choices of its tokens.

    Keys are ``"{iteration}_{layer}"``; ``rank*.safetensors`` has a count an expert under each, and
    ``token_selected_experts_rank*.safetensors`` (newer versions) the experts, shape [tokens, k].
    Experts are logical. Nothing in such a file can run.

    Raises:
        InputError: safetensors is not installed, or the file is damaged or of another form.
    """
    if path.stem.startswith(_CHOICES):
        return "tokens", _choices(path)
    return "counts", _counts(path)


def _counts(path: Path) -> Iterator[pl.DataFrame]:
    parts: list[pl.DataFrame] = []
    for step, layer, counts in _tensors(path, 1):
        part = {"expert": np.arange(counts.size), "tokens": counts}
        parts.append(pl.DataFrame(part).with_columns(step=pl.lit(step), layer=pl.lit(layer)))
        if len(parts) * counts.size >= BATCH_ROWS:
            yield checked(pl.concat(parts), path, "counts")
            parts = []
    if parts:
        yield checked(pl.concat(parts), path, "counts")


def _choices(path: Path) -> Iterator[pl.DataFrame]:
    request = "rank" + path.stem.removeprefix(_CHOICES)
    for step, layer, chosen in _tensors(path, 2):
        each = max(1, BATCH_ROWS // max(1, chosen.shape[1]))
        for first in range(0, len(chosen), each):
            part = chosen[first : first + each]
            token, k = np.indices(part.shape).reshape(2, -1)
            rows = {"token": token + first, "k": k, "expert": part.reshape(-1)}
            known = {"request": request, "step": step, "layer": layer}
            frame = pl.DataFrame(rows).with_columns(
                pl.lit(value).alias(name) for name, value in known.items()
            )
            yield checked(frame, path, "tokens")


def _tensors(path: Path, axes: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield iteration, layer and whole numbers, in that order, one in memory at a time."""
    try:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"{path} takes safetensors, which is not installed: pip install 'nsysmoe[tensorrt]'"
        ) from error
    try:
        with safe_open(path, framework="np") as file:
            for step, layer, name in _in_order(file.keys(), path):
                yield step, layer, _whole(file.get_tensor(name), axes, f"{path}: `{name}`")
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as safetensors: {reason}") from error


def _in_order(names: Any, path: Path) -> list[tuple[int, int, str]]:
    found = [(_KEY.fullmatch(name), name) for name in names]
    if not found or not all(match for match, _ in found):
        raise InputError(f"{path} is no statistic of experts: its keys are not iteration_layer")
    return sorted((int(match[1]), int(match[2]), name) for match, name in found if match)


def _whole(array: NDArray[Any], axes: int, where: str) -> NDArray[np.int64]:
    if array.ndim != axes or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{where} has {array.ndim} axes of {array.dtype}, not {axes} of integers")
    return array.astype(np.int64)
