"""Padding of batches: the load that it puts on experts, and where it could go instead.

Rows of a batch that are shorter than the longest are filled with padding tokens, whose results
nobody reads; the router sends them to experts all the same, and most of them to the same few. The
method is that of P. Lin, "Batch Inference Load Balancing for Mixture-of-Experts LLMs" (2026):
padding goes where the fewest real tokens go. Nothing here needs more than numpy, so that a model's
forward pass can call ``reroute`` on its router's choices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]


def expert_counts(experts: NDArray[Any], count: int) -> Counts:
    """Count the choices of each expert.

    Args:
        experts: Choices of one layer, shape [tokens, k].
        count: Experts.

    Returns:
        Shape [count].
    """
    counts: Counts = np.bincount(experts.reshape(-1).astype(np.int64), minlength=count)
    return counts


def filled(real: Counts, padding: Counts, top_k: int) -> Counts:
    """Share out choices of padding so that experts become as even as they can be.

    The least loaded experts are raised first, all to one level: below the mean of the real counts
    where there is little padding, to it and evenly beyond it where there is enough. That is the
    least coefficient of variation that any choice of padding reaches.

    Args:
        real: Choices of real tokens, shape [..., experts].
        padding: Padding tokens, shape [...].
        top_k: Different experts that a token needs: none gets more choices than there are padding
            tokens.

    Returns:
        Choices of padding for each expert, shape of ``real``; they add up to padding x k.
    """
    experts = real.shape[-1]
    if not 0 < top_k <= experts:
        raise ValueError(f"{top_k} of {experts} experts cannot be chosen")
    tokens = np.asarray(padding, dtype=np.int64)[..., None]
    wanted = tokens * top_k
    # The highest level that takes no more choices than there are.
    low = real.min(axis=-1, keepdims=True)
    high = real.max(axis=-1, keepdims=True) + tokens + 1
    while (high - low > 1).any():
        level = (low + high) // 2
        fits = np.clip(level - real, 0, tokens).sum(axis=-1, keepdims=True) <= wanted
        low, high = np.where(fits, level, low), np.where(fits, high, level)
    added = np.clip(low - real, 0, tokens)
    left = wanted - added.sum(axis=-1, keepdims=True)
    # One more for the first experts that stand at the level and may take it.
    takes = (real + added == low) & (added < tokens)
    is_next = takes & (np.cumsum(takes, axis=-1) <= left)
    return np.asarray(added + is_next, dtype=np.int64)


def dealt(counts: Counts, top_k: int) -> NDArray[np.int64]:
    """Deal choices to tokens, so that no token gets an expert twice.

    Args:
        counts: Choices of each expert, shape [experts]; they add up to tokens x k, none above
            tokens.
        top_k: Experts a token.

    Returns:
        Shape [tokens, k].
    """
    # Equal experts stand together and are dealt round, fewer of them than there are tokens
    # (McNaughton's wrap-around rule, 1959).
    tokens: NDArray[np.int64] = np.repeat(np.arange(len(counts)), counts).reshape(top_k, -1).T
    return tokens


def reroute(experts: NDArray[Any], is_padding: NDArray[np.bool_], count: int) -> NDArray[Any]:
    """Return the choices with those of padding tokens moved to the least loaded experts.

    Args:
        experts: Choices of one layer in one batch, shape [tokens, k].
        is_padding: Which tokens are padding, shape [tokens].
        count: Experts of the layer.

    Returns:
        Shape and type of ``experts``; choices of real tokens are what they were.
    """
    mask = np.asarray(is_padding, dtype=bool)
    top_k = experts.shape[1]
    real = expert_counts(experts[~mask], count)
    moved: NDArray[Any] = np.array(experts)
    moved[mask] = dealt(filled(real, np.asarray(mask.sum()), top_k), top_k)
    return moved


def formed(
    lengths: Counts, size: int, count: int, *, is_sorted: bool, seed: int = 0
) -> NDArray[np.int64]:
    """Form batches of requests, each as long as its longest.

    Requests are drawn without replacement as far as they go (all of them, then all again), so
    that sorted and unsorted batches hold the same ones.

    Args:
        lengths: Tokens of each request, shape [requests].
        size: Requests of a batch.
        count: Batches.
        is_sorted: Sort requests by length before they are dealt to batches.
        seed: Of the draw.

    Returns:
        Numbers of requests, shape [count, size].
    """
    random = np.random.default_rng([seed, size, count])
    rounds = -(-size * count // len(lengths))
    drawn = np.concatenate([random.permutation(len(lengths)) for _ in range(rounds)])
    drawn = drawn[: size * count]
    if is_sorted:
        drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
    return drawn.reshape(count, size)


def padding_of(lengths: Counts, batches: NDArray[np.int64]) -> Counts:
    """Return the padding tokens of each batch: what its rows lack to its longest.

    Args:
        lengths: Tokens of each request.
        batches: What ``formed`` returned, shape [count, size].

    Returns:
        Shape [count].
    """
    rows = lengths[batches]
    return np.asarray((rows.max(axis=1, keepdims=True) - rows).sum(axis=1), dtype=np.int64)
