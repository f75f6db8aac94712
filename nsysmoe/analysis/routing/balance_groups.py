"""Balance by what can be told apart: layers, steps, phases, domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

Group = Literal["layer", "step", "phase", "domain"]
# Groups whose columns counts must be kept apart by.
LABELS = ("phase", "domain")
# Steps of a log; more are no rows that anyone reads.
_MOST = 100_000


def grouped(
    counts: pl.DataFrame, experts: int, by: Group, top_k: int
) -> tuple[list[dict[str, Any]], int]:
    """Measure each group: its layers over all of it, and what a uniform router would show.

    Args:
        counts: ``run``, ``step``, ``layer``, ``expert``, ``tokens``, and ``by``.
        experts: Experts of a layer.
        by: What makes a group.
        top_k: Experts a token.

    Returns:
        Rows of ``group``, ``choices``, the mean over layers of each of ``load_balance.MEASURES``,
        ``max_over_mean_max`` (worst layer), ``worst_layer``, ``uniform_cv``; and of how many
        groups one was looked at.
    """
    names = counts[by].unique().sort().to_list()
    every = max(1, -(-len(names) // _MOST))
    rows = [
        {"group": "unknown" if name is None else name, **_measured(part, experts, top_k)}
        for name, part in _parts(counts, by, every)
    ]
    return rows, every


def _parts(counts: pl.DataFrame, by: Group, every: int) -> Iterator[tuple[Any, pl.DataFrame]]:
    ordered = counts.sort(by, maintain_order=True)
    for number, (key, part) in enumerate(ordered.group_by(by, maintain_order=True)):
        if number % every == 0:
            yield key[0], part


def _measured(part: pl.DataFrame, experts: int, top_k: int) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import MEASURES, max_over_mean, mean_known  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.routing_loads import run_loads  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.uniform_router import expected_cv  # noqa: PLC0415

    loads = run_loads(part, experts)
    ratios = np.nan_to_num(max_over_mean(loads))
    layers = np.sort(part["layer"].unique().to_numpy())
    chance = [expected_cv(tokens, top_k, experts) for tokens in loads.sum(axis=1) / top_k]
    return {
        "choices": int(loads.sum()),
        **{name: mean_known(measure(loads)) for name, measure in MEASURES.items()},
        "max_over_mean_max": float(ratios.max()),
        "worst_layer": int(layers[ratios.argmax()]),
        "uniform_cv": mean_known(np.array(chance, dtype=np.float64)),
    }


def worst_experts(
    loads: NDArray[np.float64], layers: list[int], count: int
) -> list[dict[str, Any]]:
    """Return the experts that carry most times a fair share of their layer.

    Args:
        loads: Shape [layers, experts].
        layers: Number of each layer.
        count: How many.

    Returns:
        ``layer``, ``expert``, ``tokens``, ``over_mean``, ``share`` (of the layer's choices).
    """
    import numpy as np  # noqa: PLC0415

    means = loads.mean(axis=1, keepdims=True)
    ratios = np.divide(loads, means, out=np.zeros_like(loads), where=means > 0)
    order = np.argsort(-ratios, axis=None, kind="stable")[:count]
    return [
        {
            "layer": int(layers[row]),
            "expert": int(expert),
            "tokens": int(loads[row, expert]),
            "over_mean": float(ratios[row, expert]),
            "share": float(ratios[row, expert] / loads.shape[1]),
        }
        for row, expert in zip(*np.unravel_index(order, loads.shape), strict=True)
    ]
