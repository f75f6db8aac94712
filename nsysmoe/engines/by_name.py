"""Which engine a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.engines.here import Here
from nsysmoe.engines.processes import Processes

if TYPE_CHECKING:
    from nsysmoe.engines.engine import Engine, EngineName


def engine_named(
    name: EngineName, *, workers: int | None = None, ray_address: str | None = None
) -> Engine:
    """Return an engine.

    Args:
        name: ``here``, ``processes`` or ``ray``.
        workers: Processes at once; one for each thread that this process may use where left
            out. Ray decides itself.
        ray_address: Where the Ray cluster is; ``auto`` for the one of this machine.

    Raises:
        NsysmoeError: Ray is asked for and not installed, or there is no such cluster.
    """
    if name == "ray":
        from nsysmoe.engines.on_ray import RayCluster  # noqa: PLC0415 - takes seconds to import

        return RayCluster(ray_address or "auto")
    return Processes(workers) if name == "processes" else Here()
