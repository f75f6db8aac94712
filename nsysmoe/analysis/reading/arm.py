"""An arm of an experiment: the runs of one configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.gathering import gathered, how_read
from nsysmoe.analysis.reading.run import OpenTraces, Run, read_run, require_moe_kernels
from nsysmoe.engines.processes import kept_workers
from nsysmoe.findings import Finding
from nsysmoe.resources import resources
from nsysmoe.stopping import Threads, results

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from nsysmoe.analysis.reading.gathering import Gathering, RunFiles
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.metrics.kernel_time.table1 import Value


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, in the order given; at least one.

    ``findings`` say how several files were read.
    """

    label: str
    runs: tuple[Run, ...]
    findings: tuple[Finding, ...] = ()

    @functools.cached_property
    def representative(self) -> Run:
        """The run in the middle by ``ranked_by``: what one trace alone can show is shown of it."""
        key = self.ranked_by
        ranked = sorted(self.runs, key=lambda run: run.values[key] or 0)
        return ranked[(len(ranked) - 1) // 2]

    @functools.cached_property
    def ranked_by(self) -> str:
        """The metric that the runs are ranked by: wall time, the MoE total where it is not known.

        A run's MoE total says nothing about how long the run took.
        """
        is_timed = all(values["wall_time_ns"] is not None for values in self.values)
        return "wall_time_ns" if is_timed else "total_time_ns"

    @property
    def time_causes(self) -> list[pl.DataFrame]:
        """Where each run's time went (``Run.time_causes``); empty where a run does not tell."""
        found = [run.time_causes for run in self.runs]
        known = [causes for causes in found if causes is not None]
        return known if len(known) == len(found) else []

    @property
    def sources(self) -> tuple[str, ...]:
        """The files, in the order given."""
        return tuple(str(run.path) for run in self.runs)

    @property
    def values(self) -> list[dict[str, Value]]:
        """Every metric of every run, by key."""
        return [run.values for run in self.runs]


def read_arm(
    label: str,
    sources: Sequence[RunFiles],
    *,
    is_quick: bool,
    left_open: OpenTraces | None = None,
    **options: Any,
) -> Arm:
    """Read the runs of an arm, one after the other: memory is that of one at a time.

    Args:
        label: How to call the arm.
        sources: The files of each run.
        is_quick: Whether to leave API calls and ranges unread, and steps and phases unknown.
        left_open: Where the trace stays open, of a single run of one file.
        options: ``class_map``, ``nsys`` and limits, as ``read_run`` takes them.

    Raises:
        NsysmoeError: A run cannot be used, or holds no MoE kernel.
    """
    runs = []
    is_single = len(sources) == 1 and not sources[0].members
    for source in sources:
        run = read_run(
            source,
            with_schedule=not is_quick,
            left_open=left_open if is_single else None,
            **options,
        )
        require_moe_kernels(run)
        runs.append(run)
    return Arm(label, tuple(runs), how_read(sources))


def one_of_runs(source: Source, shown: Path, runs: int) -> list[Finding]:
    """Say which run of a folder is shown, where it holds several."""
    if runs == 1:
        return []
    return [
        Finding(
            "one_of_runs",
            "info",
            f"{source} holds {runs} runs; this is {shown}. compare sees them all",
            {"source": str(shown), "runs": runs},
        )
    ]


def read_arms(  # noqa: PLR0913 - what two arms are read with, by keyword
    labels: tuple[str, str],
    sources: tuple[Source, Source],
    *,
    is_quick: bool = False,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
    left_open: OpenTraces | None = None,
) -> tuple[Arm, Arm]:
    """Read two arms side by side, a thread each; where one is refused the other is stopped.

    Takes and raises what ``read_arm`` does; ``sources`` and ``gathering`` are those of
    ``gathered``.
    """
    with kept_workers(), Threads(3) as threads:
        files = [gathered(source, gathering, class_map=class_map, nsys=nsys) for source in sources]
        # Importing takes a fifth of a second of one core, which loading leaves idle at first.
        threads.submit(_import_frames)
        share = resources().limits().shared(2)
        reading = [
            threads.submit(
                read_arm,
                label,
                runs,
                is_quick=is_quick,
                left_open=left_open,
                class_map=class_map,
                nsys=nsys,
                **vars(share),
            )
            for label, runs in zip(labels, files, strict=True)
        ]
        first, second = results(reading)
        return first, second


def _import_frames() -> None:
    for module in ("polars", "pyarrow"):
        import_module(module)
