"""Everything about two arms: the comparison, and a portrait of one run of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.analysis.comparing.compare import compare_arms
from nsysmoe.analysis.comparing.portrait import (
    Choice,
    Portrait,
    add_timeline,
    add_whatif,
    most_frequent_phase,
    portray,
    without_replay,
)
from nsysmoe.analysis.reading.arm import read_arms
from nsysmoe.analysis.reading.run import read_run
from nsysmoe.metrics.kernel_time.table1 import BASELINE_LABEL, CANDIDATE_LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source


@dataclass(frozen=True)
class Report:
    """A comparison and what its pictures are drawn from, baseline first."""

    comparison: Comparison
    portraits: tuple[Portrait, Portrait]


def report(  # noqa: PLR0913 - what one report is made of, by keyword
    baseline: Source,
    candidate: Source,
    *,
    baseline_label: str = BASELINE_LABEL,
    candidate_label: str = CANDIDATE_LABEL,
    step: Choice = "median",
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Report:
    """Compare two arms and draw up a portrait of the representative run of each.

    Args:
        baseline: As ``compare`` takes it; events are needed, so no summary.
        candidate: The same for the other arm.
        baseline_label: How to call the first arm.
        candidate_label: How to call the second.
        step: The step whose timeline is drawn: a number, ``slowest`` or ``median``.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports reports; the one on PATH where left out.
        gathering: As ``compare`` takes it.

    Raises:
        NsysmoeError: An input cannot be used, or has no such step.
    """
    arms = read_arms(
        (baseline_label, candidate_label),
        (baseline, candidate),
        class_map=class_map,
        nsys=nsys,
        gathering=gathering,
    )
    phase = most_frequent_phase([arm.representative for arm in arms])
    drawn = []
    for arm in arms:
        run = arm.representative
        portrait = portray(arm.label, run)
        if run.files:
            drawn.append(without_replay(portrait))
            continue
        portrait = add_whatif(portrait, run, class_map=class_map, nsys=nsys)
        drawn.append(add_timeline(portrait, run, step, phase=phase, class_map=class_map, nsys=nsys))
    return Report(compare_arms(*arms), (drawn[0], drawn[1]))


def timeline(
    path: Path,
    step: Choice = "median",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Portrait:
    """Return the portrait of one trace, with the timeline of a step.

    Raises:
        NsysmoeError: The input cannot be used, or has no such step.
    """
    run = read_run(path, class_map=class_map, nsys=nsys, with_schedule=True)
    portrait = portray(str(run.path), run)
    return add_timeline(portrait, run, step, class_map=class_map, nsys=nsys)
