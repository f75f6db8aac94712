"""An engine on a Ray cluster that is there already and shares a file system (vLLM's own)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nsysmoe.engines.engine import RETRIES, Job, Result, outcome, results
from nsysmoe.errors import InputError, NsysmoeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class RayCluster:
    """Jobs on the nodes of a Ray cluster; Ray does those again whose worker was lost.

    Every node must have nsysmoe in the Python that its Ray runs, and see the files under the same
    paths.

    Args:
        address: As ``ray.init`` takes it: ``auto``, ``host:port`` or ``ray://host:port``.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray  # noqa: PLC0415 - takes seconds
        except ImportError as error:
            raise InputError(
                "--engine ray needs Ray; install it: pip install 'nsysmoe[ray]'"
            ) from error
        self._ray = ray
        if ray.is_initialized():
            return
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"no Ray cluster at {address} ({reason}); start one (ray start --head), or name "
                "its address with --ray-address"
            ) from error

    def threads(self, jobs: int) -> int:  # noqa: ARG002 - of the interface
        """Return how many threads each job may use: the one core that Ray sets aside for it."""
        return 1

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the task for every job, as ``Engine`` has it."""
        remote = self._ray.remote(max_retries=RETRIES, num_cpus=1)(outcome)
        waiting: list[Any] = [remote.remote(task, job) for job in jobs]
        try:
            found: list[Result | NsysmoeError] = self._ray.get(waiting)
        except self._ray.exceptions.RayError as error:
            for reference in waiting:
                self._ray.cancel(reference, force=False)
            raise InputError(
                f"Ray could not do the work ({_reason(error)}); see that every node has nsysmoe "
                "and memory for one file a core"
            ) from error
        return results(found)


def _reason(error: Exception) -> str:
    """Return the last line of an error: Ray puts the trace of the worker before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
