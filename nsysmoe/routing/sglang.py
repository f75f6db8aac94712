"""SGLang's recorder of expert distributions: a .pt, which is a pickle and is treated as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.errors import InputError
from nsysmoe.routing.forms import count_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray


def read_recorder(path: Path) -> Iterator[pl.DataFrame]:
    """Yield counts by step, layer and logical expert.

    ``stat`` and ``stat_approx`` hold ``logical_count`` [steps, layers, experts], a ring buffer
    whose unused rows are 0 and left out; ``per_pass`` holds ``records`` with
    ``global_physical_count`` [layers, slots] and a map to logical experts. Loaded by torch with
    ``weights_only``: nothing in the file can run.

    Raises:
        InputError: torch is not installed, refuses the file, or finds another form.
    """
    document = _load(path)
    if not isinstance(document, dict):
        raise InputError(f"{path} is none of SGLang's recordings")
    if "logical_count" in document:
        loads, steps = _numbers(document["logical_count"], 3, path), None
    elif isinstance(document.get("records"), list):
        loads, steps = _per_pass(document, path)
    else:
        raise InputError(f"{path} has neither `logical_count` nor `records`")
    used = np.flatnonzero(loads.any(axis=(1, 2)))
    numbers = used if steps is None else np.array(steps)[used]
    if not used.size:
        raise InputError(f"{path} counted nothing")
    yield from count_batches(path, loads[used], None, numbers.tolist())


def _load(path: Path) -> Any:
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"{path} is a PyTorch file, and PyTorch is not installed: pip install torch"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what unpickling, zip and its own checks raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is refused by torch.load(weights_only=True): {reason}") from error


def _per_pass(document: dict[str, Any], path: Path) -> tuple[NDArray[np.int64], list[int]]:
    """Add up physical experts to logical ones, by pass."""
    if document.get("last_physical_to_logical_map") is None:
        raise InputError(f"{path} has no `last_physical_to_logical_map`")
    map_ = _numbers(document["last_physical_to_logical_map"], 2, path)
    records = [row for row in document["records"] if isinstance(row, dict)]
    if not records or any("global_physical_count" not in row for row in records):
        raise InputError(f"{path}: `records` must hold `global_physical_count`")
    counts = [_numbers(row["global_physical_count"], 2, path) for row in records]
    if any(count.shape != map_.shape for count in counts) or map_.min() < 0:
        raise InputError(f"{path}: counts and map differ in layers or experts")
    loads = np.zeros((len(counts), len(map_), int(map_.max()) + 1), dtype=np.int64)
    for step, count in enumerate(counts):
        np.add.at(loads[step], (np.arange(len(map_))[:, None], map_), count)
    return loads, [int(row.get("forward_pass_id", n)) for n, row in enumerate(records)]


def _numbers(value: Any, axes: int, path: Path) -> NDArray[np.int64]:
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.ndim != axes or not np.issubdtype(array.dtype, np.number):
        raise InputError(f"{path} holds an array of {array.ndim} axes where {axes} are due")
    return array.astype(np.int64)
