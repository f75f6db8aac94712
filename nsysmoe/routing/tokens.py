"""Routing logs as arrays: the experts that each token chose, by layer, with the request of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from nsysmoe.errors import InputError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Source

# Choices that are held: a few hundred MB while they are sorted. Of more tokens evenly spaced ones
# are kept; swaps of experts look at fewer.
LARGEST = 1 << 22
_COLUMNS = ("run", "request", "phase", "step", "layer", "token", "k", "expert")
# Consecutive tokens that stand for a request where a log names too few.
WINDOW_TOKENS = 256


@dataclass(frozen=True, eq=False)
class TokenRoutes:
    """Choices of tokens by layer; tokens of one request in their order.

    Attributes:
        layers: Numbers of the layers.
        chosen: Of each layer the experts of each token, shape [tokens, k].
        requests: Of each layer the request of each token, from 0, shape [tokens].
        is_first: Of each layer whether a token belongs to the first part of its request: its
            prompt where the log tells phases, else its first half.
        count: Requests.
        every: Of how many tokens one was kept.
        has_phases: Whether the log tells phases.
        has_requests: Whether requests are the log's own.
    """

    layers: tuple[int, ...]
    chosen: tuple[NDArray[np.int64], ...]
    requests: tuple[NDArray[np.int64], ...]
    is_first: tuple[NDArray[np.bool_], ...]
    count: int
    every: int
    has_phases: bool
    has_requests: bool


def read_tokens(sources: Sequence[Source], fewest_requests: int) -> TokenRoutes:
    """Read the choices of tokens.

    Args:
        sources: Logs, opened.
        fewest_requests: Where a log names fewer, each 256 consecutive tokens stand for one.

    Raises:
        InputError: A log holds counts, or the choices of a token are ragged.
        MissingDataError: There is no choice.
    """
    if odd := [source for source in sources if source.level != "tokens"]:
        raise InputError(
            f"{odd[0].path} holds counts: which experts a token chose together is not in them"
        )
    name = ", ".join(str(source.path) for source in sources)
    rows, every = _thinned(batch for source in sources for batch in source.batches)
    if rows.is_empty():
        raise MissingDataError(f"{name} holds no choice of an expert")
    # In the order of the log where it does not tell tokens.
    rows = rows.sort("run", "request", "step", "token", maintain_order=True)
    request = rows.select(pl.struct("run", "request").rle_id().alias("id"))["id"]
    rows = rows.with_columns(number=request.cast(pl.Int64))
    count = int(rows["number"].max()) + 1  # type: ignore[arg-type]
    has_requests = count >= fewest_requests
    has_phases = set(rows["phase"].unique().to_list()) >= {"prefill", "decode"}
    layers = tuple(sorted(rows["layer"].unique().to_list()))
    parts = [_layer(rows.filter(pl.col("layer") == layer), name) for layer in layers]
    if not has_requests:
        parts = [part.with_columns(number=pl.int_range(pl.len()) // WINDOW_TOKENS)
                 for part in parts]  # fmt: skip
        count = max(-(-part.height // WINDOW_TOKENS) for part in parts)
    return TokenRoutes(
        layers=layers,
        chosen=tuple(part["experts"].to_numpy().astype(np.int64) for part in parts),
        requests=tuple(part["number"].to_numpy() for part in parts),
        is_first=tuple(_is_first(part, has_phases=has_phases) for part in parts),
        count=count,
        every=every,
        has_phases=has_phases,
        has_requests=has_requests,
    )


def _thinned(batches: Iterable[pl.DataFrame]) -> tuple[pl.DataFrame, int]:
    """Keep tokens, evenly spaced where there are too many to hold."""
    kept: list[pl.DataFrame] = []
    every, held = 1, 0
    for batch in batches:
        part = batch.select(_COLUMNS)
        # Tokens without a number cannot be thinned by it: by their place in the log.
        kept.append(part.filter(_number() % every == 0) if every > 1 else part)
        held += kept[-1].height
        while held > LARGEST:
            every *= 2
            kept = [pl.concat(kept).filter(_number() % every == 0)]
            held = kept[0].height
            if every > LARGEST:
                break
    empty = pl.DataFrame(schema=dict.fromkeys(_COLUMNS, pl.Int64))
    return (pl.concat(kept) if kept else empty), every


def _number() -> pl.Expr:
    return pl.col("token").fill_null(0)


def _layer(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return one row a token: ``number`` of the request, ``phase``, ``experts``."""
    k = int(rows["k"].max()) + 1  # type: ignore[arg-type]
    if rows.height % k or (rows["k"].to_numpy() != np.tile(np.arange(k), rows.height // k)).any():
        raise InputError(
            f"{name}: the tokens of layer {rows['layer'][0]} do not have {k} choices each, in order"
        )
    experts = rows["expert"].to_numpy().reshape(-1, k)
    return (
        rows.gather_every(k)
        .select("number", "phase")
        .with_columns(experts=pl.Series(experts, dtype=pl.Array(pl.Int64, k)))
    )


def _is_first(part: pl.DataFrame, *, has_phases: bool) -> NDArray[np.bool_]:
    if has_phases:
        return (part["phase"] == "prefill").fill_null(value=False).to_numpy()
    place = pl.int_range(pl.len()).over("number")
    half = (pl.len().over("number") + 1) // 2
    found: NDArray[np.bool_] = part.select((place < half).alias("first"))["first"].to_numpy()
    return found
