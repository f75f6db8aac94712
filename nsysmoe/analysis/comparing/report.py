"""Everything about two arms: the comparison, a portrait of one run of each, and advice."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nsysmoe.analysis.comparing.compare import compare_arms
from nsysmoe.analysis.comparing.portrait import (
    Portrait,
    add_timeline,
    add_whatif,
    most_frequent_phase,
    portray,
    step_portrait,
    without_replay,
)
from nsysmoe.analysis.placing.advise import Advice, advise
from nsysmoe.analysis.reading.arm import read_arms
from nsysmoe.analysis.reading.run import OpenTraces
from nsysmoe.analysis.routing.balance import Balance, balance
from nsysmoe.errors import InputError
from nsysmoe.metrics.kernel_time.table1 import BASELINE_LABEL, CANDIDATE_LABEL
from nsysmoe.resources import resources
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.analysis.one_trace.timeline import Choice
    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.analysis.reading.run import Run
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.trace import Trace


class Routed(NamedTuple):
    """What the baseline's routing tells."""

    advice: Advice
    balance: Balance


@dataclass(frozen=True)
class Report:
    """A comparison and what its pictures are drawn from, baseline first.

    Attributes:
        comparison: As ``compare`` returns it.
        portraits: Of the representative run of each arm.
        routed: None where no routing log was given.
    """

    comparison: Comparison
    portraits: tuple[Portrait, Portrait]
    routed: Routed | None = None


def report(  # noqa: PLR0913 - what one report is made of, by keyword
    baseline: Source,
    candidate: Source,
    *,
    baseline_label: str = BASELINE_LABEL,
    candidate_label: str = CANDIDATE_LABEL,
    step: Choice = "median",
    routing: str | Path | None = None,
    run: str | Path | None = None,
    gpus: int | None = None,
    redundant: int = 0,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Report:
    """Compare two arms and draw up a portrait of the representative run of each.

    With the baseline's routing, say as well what ``advise`` and ``routing_balance`` say of it.

    Args:
        baseline: As ``compare`` takes it; events are needed, so no summary.
        candidate: The same for the other arm.
        baseline_label: How to call the first arm.
        candidate_label: How to call the second.
        step: The step whose timeline is drawn: a number, ``slowest`` or ``median``.
        routing: The baseline's routing log, of any form.
        run: The baseline's record; None for the one beside its trace.
        gpus: As ``advise`` takes it. Where it is given and no record is, the advice stands on the
            log alone, without the trace's times.
        redundant: Redundant experts of a layer, over all GPUs.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports reports; the one on PATH where left out.
        gathering: As ``compare`` takes it.

    Raises:
        NsysmoeError: An input cannot be used, has no such step, or goes with a routing log that
            was not given.
    """
    if routing is None and (run is not None or gpus is not None or redundant):
        raise InputError("run, gpus and redundant are about a routing log: give routing as well")
    with OpenTraces() as left_open:
        arms = read_arms(
            (baseline_label, candidate_label),
            (baseline, candidate),
            class_map=class_map,
            nsys=nsys,
            gathering=gathering,
            left_open=left_open,
        )
        first, second = _portraits(arms, left_open, step, class_map=class_map, nsys=nsys)
    routed = None
    if routing is not None:
        # Times are those of the run that stands for the baseline, on its own GPUs.
        trace = first.source if run is not None or gpus is None else None
        advice = advise(
            routing,
            trace=trace,
            run=run,
            gpus=gpus,
            redundant=redundant,
            class_map=class_map,
            nsys=nsys,
        )
        routed = Routed(advice, balance([routing]))
    return Report(compare_arms(*arms), (first, second), routed)


def _portraits(
    arms: Sequence[Arm],
    left_open: OpenTraces,
    step: Choice,
    *,
    class_map: ClassMap | None,
    nsys: str | None,
) -> Iterator[Portrait]:
    """Yield the portrait of each arm's run; of one file also what its replay and a step tell."""
    phase = most_frequent_phase([arm.representative for arm in arms])
    for arm in arms:
        run = arm.representative
        portrait = portray(arm.label, run)
        if run.files:
            yield without_replay(portrait)
            continue
        with _trace_of(run, left_open, class_map=class_map, nsys=nsys) as trace:
            portrait = add_whatif(portrait, run, trace)
            yield add_timeline(portrait, run, trace, step, phase=phase)


def _trace_of(
    run: Run, left_open: OpenTraces, *, class_map: ClassMap | None, nsys: str | None
) -> AbstractContextManager[Trace]:
    """Return the trace of a run: what has been read of it is there, where it was left open."""
    if (trace := left_open.trace_of(run)) is not None:
        return nullcontext(trace)
    # Of several runs, beside what was read of both arms: the share that each of them had.
    memory = resources().limits().shared(2).memory_bytes
    return open_trace(run.path, class_map=class_map, nsys=nsys, memory_bytes=memory)


def timeline(
    path: Path,
    step: Choice = "median",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Portrait:
    """Return the portrait of one step of one trace: its timeline, and nothing else.

    Raises:
        NsysmoeError: The input cannot be used, or has no such step.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        return step_portrait(trace, step)
