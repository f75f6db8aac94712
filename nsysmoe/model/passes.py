"""One batch through a model: seen layer by layer, or timed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.model.clock import Stopwatch
from nsysmoe.model.extra import torch
from nsysmoe.model.reroute import expert_counts, rows_of
from nsysmoe.model.routers import rerouted, watched
from nsysmoe.routing.padded import PADDING, REAL, ChoicesOfBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nsysmoe.model.batches import Batch
    from nsysmoe.model.build import Loaded
    from nsysmoe.model.questions import Question


@dataclass(frozen=True)
class Seen:
    """What a pass did.

    Attributes:
        batch: Its batch.
        experts: Choices, after rerouting where there was any; shape [layers, rows, k].
        hidden: The last layer's output, shape [rows, hidden size].
    """

    batch: Batch
    experts: Any
    hidden: Any

    @property
    def is_real(self) -> Any:
        """Which rows are no padding, on the device."""
        return torch.as_tensor(self.batch.mask.reshape(-1) != 0, device=self.hidden.device)


def see(loaded: Loaded, batch: Batch, *, reroutes: bool) -> Seen:
    """Run a batch and keep what its routers chose."""
    experts: list[Any] = []
    tokens, mask = _tensors(loaded, batch)
    hooks = rerouted(loaded.routers, rows_of(mask)) if reroutes else nullcontext()
    # What one hook returns is what the next one sees.
    with hooks, watched(loaded.routers, experts.append):
        hidden = _forward(loaded, tokens, mask)
    return Seen(batch, torch.stack(experts), hidden.flatten(0, 1))


def timed(loaded: Loaded, batch: Batch, *, reroutes: bool, inner: Stopwatch | None = None) -> int:
    """Return what a batch takes on the device, ns; telling its rows apart belongs to rerouting.

    Args:
        loaded: The model.
        batch: The batch, brought to the device before.
        reroutes: Whether padding is rerouted.
        inner: Measures the rerouting by itself, which costs a little more time.
    """
    tokens, mask = _tensors(loaded, batch)
    whole = Stopwatch(loaded.device)
    with whole.running():
        hooks: Any = nullcontext()
        if reroutes:
            with (inner or Stopwatch(loaded.device)).running():
                rows = rows_of(mask)
            hooks = rerouted(loaded.routers, rows, inner)
        with hooks:
            _forward(loaded, tokens, mask)
    return whole.elapsed_ns()


def counts_of(seen: Seen, experts: int) -> dict[str, NDArray[np.int64]]:
    """Count choices of real tokens and of padding, each [layers, experts]."""
    real = seen.is_real.to(torch.int64)
    return {
        which: np.stack(
            [expert_counts(layer, weights, experts).cpu().numpy() for layer in seen.experts]
        )
        for which, weights in ((REAL, real), (PADDING, 1 - real))
    }


def choices_of(seen: Seen) -> ChoicesOfBatch:
    """Bring the choices of every token to the host."""
    experts = seen.experts.to(torch.int32).cpu().numpy()
    return ChoicesOfBatch(np.array(seen.batch.prompts), seen.batch.mask, experts)


def answers_of(
    loaded: Loaded, seen: Seen, questions: Sequence[Question], letters: Sequence[int]
) -> list[int]:
    """Return the number of the choice that each question of a batch gets."""
    batch = seen.batch
    last = np.arange(len(batch.prompts)) * batch.mask.shape[1] + batch.mask.sum(axis=1) - 1
    hidden = seen.hidden[torch.as_tensor(last, device=seen.hidden.device)]
    logits = loaded.model.get_output_embeddings()(hidden)[:, list(letters)]
    return [
        int(row[: questions[number].choices].argmax())
        for row, number in zip(logits, batch.prompts, strict=True)
    ]


def difference(before: Seen, after: Seen) -> dict[str, Any]:
    """Compare outputs and routes at real tokens.

    Returns:
        ``equal`` bit for bit, ``finite``, ``largest`` absolute difference, ``scale`` (largest
        absolute output), ``routes`` (tokens times layers) and how many of them ``changed``.
    """
    real = before.is_real
    one, other = before.hidden[real], after.hidden[real]
    routes = (before.experts[:, real] != after.experts[:, real]).any(-1)
    return {
        "equal": bool(torch.equal(one, other)),
        "finite": bool(torch.isfinite(one).all() and torch.isfinite(other).all()),
        "largest": float((one.float() - other.float()).abs().max()),
        "scale": float(one.float().abs().max()),
        "routes": int(routes.numel()),
        "routes_changed": int(routes.sum()),
    }


def differences_together(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Put the batches' differences together; None where there are none."""
    if not found:
        return None
    is_finite = all(one["finite"] for one in found)
    return {
        "equal": all(one["equal"] for one in found),
        "finite": is_finite,
        "largest": max(one["largest"] for one in found) if is_finite else None,
        "scale": max(one["scale"] for one in found) if is_finite else None,
        "routes": sum(one["routes"] for one in found),
        "routes_changed": sum(one["routes_changed"] for one in found),
    }


def _tensors(loaded: Loaded, batch: Batch) -> tuple[Any, Any]:
    device = loaded.device
    tokens = torch.as_tensor(batch.tokens, device=device)
    return tokens, torch.as_tensor(batch.mask, device=device)


def _forward(loaded: Loaded, tokens: Any, mask: Any) -> Any:
    """Return the last layer's output; logits of every token would take more than it."""
    decoder = loaded.model.get_decoder()
    return decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
