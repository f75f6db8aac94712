"""Routing logs: for each token of each request and each MoE layer, the experts that it chose.

One form for every source, so that what counts tokens knows no file format: ``RoutingLog``.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError
from nsysmoe.routing.arrays import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

_MEMBER = re.compile(r"r(\d+)\.npy")
# Uncompressed: a few hundred million choices. A file that claims more is no log of a capture.
_LARGEST_BYTES = 4 << 30
_LARGEST_EXPERT = 65_535


@dataclass(frozen=True)
class RoutingLog:
    """Choices of experts at the level of tokens.

    Attributes:
        source: The file.
        choices: One row a choice: ``request`` (in order of arrival, from 0), ``token`` (fed to
            the model, from 0), ``layer`` (MoE layer, from 0), ``k`` (place among the experts of
            the token, from 0), ``expert`` (logical).
        tokens: Tokens that each request fed to the model, by request.
        layers: MoE layers.
        top_k: Experts that a token chooses in a layer.
    """

    source: str
    choices: pl.DataFrame
    tokens: tuple[int, ...]
    layers: int
    top_k: int


def log_of(source: str, routes: Sequence[NDArray[Any]]) -> RoutingLog:
    """Return the log of one array [tokens, layers, k] of logical experts a request.

    Raises:
        InputError: The arrays are not of one model.
    """
    import numpy as np  # noqa: PLC0415 - slow to import
    import polars as pl  # noqa: PLC0415

    shapes = {route.shape[1:] for route in routes}
    if len(shapes) != 1 or any(route.ndim != 3 for route in routes):
        raise InputError(
            f"{source}: requests differ in layers or experts a token ({sorted(shapes)})"
        )
    if any(not np.issubdtype(route.dtype, np.integer) for route in routes):
        raise InputError(f"{source}: experts must be integers")
    if not all(route.size for route in routes):
        raise InputError(f"{source}: a request without tokens, layers or experts")
    if any(route.min() < 0 or route.max() > _LARGEST_EXPERT for route in routes):
        raise InputError(f"{source}: an expert below 0 or above {_LARGEST_EXPERT:,}")
    layers, top_k = shapes.pop()
    parts = [_choices(number, route) for number, route in enumerate(routes)]
    choices = pl.concat(parts)
    return RoutingLog(source, choices, tuple(len(route) for route in routes), layers, top_k)


def read_vllm_log(path: Path) -> RoutingLog:
    """Read vLLM's returned experts, saved by numpy: an array ``rN`` a request, in order.

    ``CompletionOutput.routed_experts`` (``--enable-return-routed-experts``) has the shape
    [tokens, layers, k]: prompt and output without the last sampled token, which is never fed.

    Raises:
        InputError: The file is unreadable or of another form.
    """
    import numpy as np  # noqa: PLC0415 - slow to import

    numbers = _members(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            routes = [archive[f"r{number}"] for number in range(len(numbers))]
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as numpy arrays: {error}") from error
    if not all(isinstance(route, np.ndarray) for route in routes):
        raise InputError(f"{path} cannot be read as numpy arrays: a member is none")
    return log_of(str(path), routes)


def _members(path: Path) -> list[int]:
    """Return the numbers of the requests in an archive: 0 to n - 1."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or "not a .npz archive"
        raise InputError(f"cannot read the routing in {path}: {reason}") from error
    if sum(entry.file_size for entry in entries) > _LARGEST_BYTES:
        raise InputError(f"{path} unpacks to more than {_LARGEST_BYTES >> 30} GiB")
    found = [_MEMBER.fullmatch(entry.filename) for entry in entries]
    numbers = sorted(int(match[1]) for match in found if match)
    if not numbers or numbers != list(range(len(entries))):
        raise InputError(f"{path} must hold the arrays r0, r1, …, one a request, and nothing else")
    return numbers


def _choices(request: int, route: NDArray[Any]) -> pl.DataFrame:
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    tokens, layers, top_k = route.shape
    index = np.indices(route.shape, dtype=np.uint32).reshape(3, -1)
    return pl.DataFrame(
        {
            "request": np.full(tokens * layers * top_k, request, dtype=np.uint32),
            "token": index[0],
            "layer": index[1].astype(np.uint16),
            "k": index[2].astype(np.uint16),
            "expert": route.reshape(-1).astype(np.uint16),
        }
    )
