"""Padding goes to the experts that the fewest real tokens chose; tensors in, tensors out.

After P. Lin, "Batch Inference Load Balancing for Mixture-of-Experts LLMs" (2026): docs/padding.md
has the algorithm. No loop over tokens or experts, and nothing that a GPU has to be waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.model.extra import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch are padding; made once a batch, used in every layer.

    Attributes:
        is_real: 1 for a real token, 0 for padding; int64, shape [rows].
        padding: Numbers of the rows that are padding; int64, shape [paddings].
        paddings: How many those are, known without asking the device.
    """

    is_real: Tensor
    padding: Tensor
    paddings: int


def rows_of(mask: Tensor) -> Rows:
    """Return the rows of a batch, in the order in which a MoE layer sees its tokens.

    Args:
        mask: Attention mask, 0 for padding; shape [prompts, tokens].
    """
    is_real = (mask.reshape(-1) != 0).to(torch.int64)
    padding = (is_real == 0).nonzero().reshape(-1)
    return Rows(is_real, padding, padding.numel())


def expert_counts(experts: Tensor, weights: Tensor, count: int) -> Tensor:
    """Count the choices of each expert.

    Args:
        experts: Choices of a layer, int64, shape [rows, k].
        weights: What a row counts for, int64, shape [rows].
        count: Experts of the layer.

    Returns:
        int64, shape [count].
    """
    counts = torch.zeros(count, dtype=torch.int64, device=experts.device)
    each = weights.unsqueeze(1).expand_as(experts)
    return counts.scatter_add_(0, experts.reshape(-1), each.reshape(-1))


def filled(real: Tensor, paddings: int, top_k: int) -> Tensor:
    """Share the choices of padding out so that experts become as even as they can be.

    Every expert below one level is raised to it; what is left (fewer choices than there are
    experts at the level) goes one each to the first of those. An expert takes no more choices
    than there are paddings, since a token chooses an expert once.

    Args:
        real: Choices of real tokens, int64, shape [experts].
        paddings: Tokens of padding.
        top_k: Experts a token.

    Returns:
        Choices of padding for each expert, int64; they add up to paddings * top_k.
    """
    wanted = paddings * top_k
    # The choices that a level takes grow linearly between these.
    corners = torch.cat((real, real + paddings))
    taken = (corners.unsqueeze(1) - real).clamp_(0, paddings).sum(1)
    corner = torch.where(taken <= wanted, corners, real.min()).max()
    rising = ((real <= corner) & (corner < real + paddings)).sum().clamp_(min=1)
    left = wanted - (corner - real).clamp(0, paddings).sum()
    level = corner + left // rising
    added = (level - real).clamp(0, paddings)
    takes = (real <= level) & (added < paddings)
    first = takes & (takes.cumsum(0) <= wanted - added.sum())
    return added + first


def dealt(added: Tensor, paddings: int, top_k: int) -> Tensor:
    """Deal choices to tokens, so that no token gets an expert twice.

    Args:
        added: Choices of each expert, none above ``paddings``; they add up to paddings * top_k.
        paddings: Tokens.
        top_k: Experts a token.

    Returns:
        Shape [paddings, top_k].
    """
    numbers = torch.arange(added.numel(), device=added.device)
    # Equal experts stand together and are dealt round, fewer of them than there are tokens
    # (McNaughton's wrap-around rule, 1959).
    every = torch.repeat_interleave(numbers, added, output_size=paddings * top_k)
    return every.reshape(top_k, paddings).T


def reroute(experts: Tensor, rows: Rows, count: int) -> Tensor:
    """Return the choices of a layer with those of padding moved to the least used experts.

    Args:
        experts: Choices, integers, shape [rows, k].
        rows: Which of them are padding.
        count: Experts of the layer.

    Returns:
        Shape and type of ``experts``: itself where there is no padding. Real tokens' rows are
        what they were.
    """
    if not rows.paddings:
        return experts
    top_k = experts.shape[1]
    real = expert_counts(experts.to(torch.int64), rows.is_real, count)
    new = dealt(filled(real, rows.paddings, top_k), rows.paddings, top_k)
    return experts.index_copy(0, rows.padding, new.to(experts.dtype))
