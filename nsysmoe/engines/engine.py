"""The one interface of all engines, and how results and errors come back from a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from nsysmoe.errors import NsysmoeError
from nsysmoe.resources import using

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.resources import Limits, Resources

Job = TypeVar("Job")
Result = TypeVar("Result")
EngineName = Literal["here", "processes", "ray"]

# How often a job is done again whose worker was lost, before it is given up.
RETRIES = 3


class Engine(Protocol):
    """Does one task for each of many jobs, and returns the results in the order of the jobs.

    A task is a function of a module, without effects but files that appear whole and under a name
    of their own: it may be done twice, where a worker was lost, and only the result that is
    returned counts.
    """

    def share(self, jobs: int, limits: Limits) -> Limits:
        """Return what each of so many jobs may use where all together may use ``limits``."""
        ...

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the task for every job.

        Raises:
            NsysmoeError: A task raised it, or a job lost its worker again and again.
        """
        ...


def outcome(task: Callable[[Job], Result], job: Job, asked: Resources) -> Result | NsysmoeError:
    """Do a task in a process of its own: an error comes back as a value, and whole.

    Args:
        task: The task.
        job: What it is done for.
        asked: What the process that asked may use; without it a worker would know no
            ``--no-cache``.
    """
    try:
        with using(**vars(asked)):
            return task(job)
    except NsysmoeError as error:
        return type(error)(str(error))


def results(outcomes: Sequence[Result | NsysmoeError]) -> list[Result]:
    """Return what tasks returned; raise the first error in the order of the jobs."""
    for found in outcomes:
        if isinstance(found, NsysmoeError):
            raise found
    return [found for found in outcomes if not isinstance(found, NsysmoeError)]
