"""SGLang's recorder of expert distributions: a .pt, which is a pickle and is treated as one."""

from __future__ import annotations

import pickle
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nsysmoe.errors import InputError
from nsysmoe.routing.forms import LARGEST_EXPERT, checked, count_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Level


# ForwardMode of a pass.
_PHASES = {1: "prefill", 2: "decode", 3: "mixed"}
_TOKENS = "topk_ids_of_layer"


def read_recorder(path: Path) -> tuple[Level, Iterator[pl.DataFrame]]:
    """Read counts by step, layer and logical expert, or choices where tokens were recorded.

    ``stat`` and ``stat_approx`` hold ``logical_count`` [steps, layers, experts], a ring buffer
    whose unused rows are 0 and left out; ``per_pass`` holds ``records`` with
    ``global_physical_count`` [layers, slots] and a map to logical experts; ``per_token`` has
    ``topk_ids_of_layer`` [layers, tokens, 8] of physical experts in them, -1 where a token chose
    fewer. Loaded by torch with ``weights_only``: nothing in the file can run.

    Raises:
        InputError: torch is not installed, refuses the file, or finds another form.
    """
    document = _load(path)
    if not isinstance(document, dict):
        raise InputError(f"{path} is none of SGLang's recordings")
    if "logical_count" in document:
        return "counts", _counts(path, _numbers(document["logical_count"], 3, path), None)
    if not isinstance(document.get("records"), list):
        raise InputError(f"{path} has neither `logical_count` nor `records`")
    records = [row for row in document["records"] if isinstance(row, dict)]
    map_ = _map(document, path)
    if records and all(_TOKENS in row for row in records):
        return "tokens", _routes(records, map_, path)
    loads, steps = _per_pass(records, map_, path)
    return "counts", _counts(path, loads, steps)


def _counts(
    path: Path, loads: NDArray[np.int64], steps: list[int] | None
) -> Iterator[pl.DataFrame]:
    used = np.flatnonzero(loads.any(axis=(1, 2)))
    numbers = used if steps is None else np.array(steps)[used]
    if not used.size:
        raise InputError(f"{path} counted nothing")
    yield from count_batches(path, loads[used], None, numbers.tolist())


def _routes(
    records: list[dict[str, Any]], map_: NDArray[np.int64], path: Path
) -> Iterator[pl.DataFrame]:
    """Yield the choices of every pass, tokens numbered over the pass."""
    for number, record in enumerate(records):
        physical = _numbers(record[_TOKENS], 3, path)
        if physical.shape[0] != len(map_) or physical.max(initial=-1) >= map_.shape[1]:
            raise InputError(f"{path}: `{_TOKENS}` and the map differ in layers or experts")
        # Where a pass chose fewer than eight, the last columns are empty.
        token, layer, k = np.nonzero(physical.transpose(1, 0, 2) >= 0)
        yield checked(
            pl.DataFrame(
                {
                    "phase": np.full(len(token), _PHASES.get(record.get("forward_mode", 0), "")),
                    "step": np.full(len(token), _pass(record, number, path)),
                    "layer": layer,
                    "token": token,
                    "k": k,
                    "expert": map_[layer, physical[layer, token, k]],
                }
            ).with_columns(pl.col("phase").replace("", None)),
            path,
            "tokens",
        )


def _pass(record: dict[str, Any], number: int, path: Path) -> int:
    step = record.get("forward_pass_id", number)
    if not isinstance(step, int):
        raise InputError(f"{path}: `forward_pass_id` {step!r} is no number")
    return step


def _map(document: dict[str, Any], path: Path) -> NDArray[np.int64]:
    """Return the logical expert of each physical one, shape [layers, slots]."""
    if document.get("last_physical_to_logical_map") is None:
        raise InputError(f"{path} has no `last_physical_to_logical_map`")
    map_ = _numbers(document["last_physical_to_logical_map"], 2, path)
    if not map_.size or map_.min() < 0 or map_.max() > LARGEST_EXPERT:
        raise InputError(f"{path}: `last_physical_to_logical_map` names no experts")
    return map_


def _load(path: Path) -> Any:
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"{path} is a PyTorch file, and PyTorch is not installed: pip install torch"
        ) from error
    try:
        with warnings.catch_warnings():
            # Of old pickles, which are refused or read all the same.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than arrays, texts and numbers, or is no PyTorch file: it could "
            "run code, and is not read (torch.load(weights_only=True) refuses it)"
        ) from error
    except Exception as error:  # torch raises what zip and its own checks raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read by torch.load: {reason.split('. ')[0]}") from error


def _per_pass(
    records: list[dict[str, Any]], map_: NDArray[np.int64], path: Path
) -> tuple[NDArray[np.int64], list[int]]:
    """Add up physical experts to logical ones, by pass."""
    if not records or any("global_physical_count" not in row for row in records):
        raise InputError(f"{path}: `records` must hold `global_physical_count`")
    counts = [_numbers(row["global_physical_count"], 2, path) for row in records]
    if any(count.shape != map_.shape for count in counts):
        raise InputError(f"{path}: counts and map differ in layers or experts")
    loads = np.zeros((len(counts), len(map_), int(map_.max()) + 1), dtype=np.int64)
    for step, count in enumerate(counts):
        np.add.at(loads[step], (np.arange(len(map_))[:, None], map_), count)
    return loads, [_pass(row, n, path) for n, row in enumerate(records)]


def _numbers(value: Any, axes: int, path: Path) -> NDArray[np.int64]:
    """Return whole numbers from a tensor or an array."""
    try:
        # numpy has no bfloat16.
        array = np.asarray(value.double().numpy() if hasattr(value, "double") else value)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} holds an array that cannot be read: {error}") from error
    if array.ndim != axes or not np.issubdtype(array.dtype, np.number):
        raise InputError(f"{path} holds an array of {array.ndim} axes where {axes} are due")
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise InputError(f"{path} holds counts that are no whole numbers")
    return array.astype(np.int64)
