"""The simplest engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.engines.engine import Job, Result
    from nsysmoe.resources import Limits


class Here:
    """One job after the other, in this process."""

    def share(self, jobs: int, limits: Limits) -> Limits:  # noqa: ARG002 - of the interface
        """Return what each job may use: all, since jobs run one by one."""
        return limits

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the task for every job, as ``Engine`` has it."""
        return [task(job) for job in jobs]
