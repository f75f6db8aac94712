"""What balance costs where experts are spread over devices: a step waits for the busiest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Where experts live.

    Attributes:
        map: Logical expert of each slot, shape [layers, slots].
        gpus: Devices that share the slots in order.
        name: ``contiguous``, or the map's file.
    """

    map: NDArray[np.int64]
    gpus: int
    name: str


def spread_of(shape: tuple[int, int], gpus: int | None, map_: str | Path | None) -> Spread | None:
    """Return where experts live; None where neither GPUs nor a map are given.

    Args:
        shape: Layers and experts.
        gpus: Devices; None for those that the map tells.
        map_: A map of experts, as ``placement evaluate`` reads it; None for contiguous experts.

    Raises:
        InputError: The map cannot be read.
        PlacementError: It does not fit the layers, or tells no GPUs.
    """
    from nsysmoe.placement.simple import contiguous  # noqa: PLC0415
    from nsysmoe.routing.loads import read_map  # noqa: PLC0415

    layers, experts = shape
    if map_ is None:
        if gpus is None:
            return None
        return Spread(contiguous(layers, experts, experts), gpus, "contiguous")
    slots, told = read_map(Path(map_))
    if (gpus or told) is None:
        raise PlacementError(f"{map_} does not tell how many GPUs share it; give --gpus")
    if len(slots) != layers:
        raise PlacementError(f"the map has {len(slots)} layers, the log {layers}")
    return Spread(slots, int(gpus or told or 0), str(map_))


def devices(
    cells: Sequence[Floats], spread: Spread, *, top_k: int, shared: int, per: str
) -> dict[str, Any]:
    """Measure what devices carry, and what the busiest makes others wait for.

    Args:
        cells: Of each layer the loads of its cells, shape [cells, experts].
        spread: Where experts live.
        top_k: Experts a token.
        shared: Experts that every token visits besides, on its own device.
        per: What a cell is: a layer in a ``step``, or over the ``run``.

    Returns:
        ``gpus``, ``placement``, ``shared``, ``per``, ``critical`` (sum of the busiest device's
        choices), ``mean``, ``efficiency``, ``wasted_share``, ``uniform_wasted_share``; ``active``:
        ``mean``, ``p50``, ``p95``, ``max`` over cells of the experts with work on the device that
        has most of them, ``uniform``, and ``held``, experts of a device; ``loads``: choices by
        [layer][device] over the run.

    Raises:
        PlacementError: The map does not fit the experts or the GPUs.
    """
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.expert_parallel import step_cost  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import mean_known  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.load_balance import spread as percentiles  # noqa: PLC0415

    found = [
        _layer(loads, spread.map[row : row + 1], spread.gpus) for row, loads in enumerate(cells)
    ]
    carried, active = (np.concatenate(parts) for parts in zip(*found, strict=True))
    tokens = np.concatenate([loads.sum(axis=1) for loads in cells]) / top_k
    extra = shared * tokens / spread.gpus
    even = _by_chance(tokens, top_k, cells[0].shape[1], spread)
    most = active.max(axis=-1).astype(np.float64)
    mean = float((carried.mean(axis=-1) + extra).sum())
    critical = float(even["busiest"] + extra.sum())
    return {
        "gpus": spread.gpus,
        "placement": spread.name,
        "shared": shared,
        "per": per,
        **step_cost(carried + extra[:, None]),
        "uniform_wasted_share": 1 - mean / critical if critical else None,
        "active": {
            "mean": mean_known(most),
            **percentiles(most),
            "uniform": even["active"],
            "held": spread.map.shape[1] // spread.gpus,
        },
        "loads": [loads.sum(axis=0).tolist() for loads, _ in found],
    }


def _layer(loads: Floats, map_: NDArray[np.int64], gpus: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return loads and active experts of the devices in every cell of a layer."""
    from nsysmoe.metrics.routed_load.expert_parallel import active_experts  # noqa: PLC0415
    from nsysmoe.placement.loads import device_loads  # noqa: PLC0415

    cells = loads[:, None]
    return device_loads(map_, cells, gpus)[:, 0], active_experts(cells, map_, gpus)[:, 0]


def _by_chance(tokens: Floats, top_k: int, experts: int, spread: Spread) -> dict[str, Any]:
    """Return what a uniform router's tokens would give under the first layer's placement."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import mean_known  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.uniform_router import baseline  # noqa: PLC0415

    def busiest(loads: Floats) -> Floats:
        return np.asarray(_layer(loads, spread.map[:1], spread.gpus)[0].max(axis=-1))

    def active(loads: Floats) -> Floats:
        most = _layer(loads, spread.map[:1], spread.gpus)[1].max(axis=-1)
        return np.asarray(most, dtype=np.float64)

    batches = np.rint(tokens).astype(np.int64)
    k = min(top_k, experts)
    return {
        "busiest": float(np.nansum(baseline(batches, k, experts, busiest))),
        "active": mean_known(baseline(batches, k, experts, active)),
    }
