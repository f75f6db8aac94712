"""One step of one run: what ran on each rank, summed up, and each kernel in the records."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.pictures import step_timeline

if TYPE_CHECKING:
    from nsysmoe.analysis.comparing.portrait import Portrait

TIMELINE_NOTE = (
    "A row a rank: computing above, communicating and copying below. A collective is wait until "
    "its last rank has come, and transfer from then on. Drag to zoom, double-click to go back."
)
_TIMES_NOTE = "Times count from the first start in the step."
_COLUMNS = (
    Column("Rank"),
    Column("Kind", "left"),
    Column("Launches"),
    Column("Total (ms)"),
    Column("Longest (us)"),
    Column("First start (us)"),
    Column("Last end (us)"),
)


def timeline_page(portrait: Portrait) -> Document:
    """Return a step's kernels: summed by rank and kind in the table, each one in CSV and JSON."""
    choice = f" ({portrait.timeline_choice})" if portrait.timeline_choice else ""
    title = f"Step {numbers.as_is(portrait.timeline_step)}{choice} of {portrait.label}"
    return Document(
        title=title,
        tables=(Table(title, _COLUMNS, _rows(portrait)),),
        data={
            "source": portrait.source,
            "step": portrait.timeline_step,
            "choice": portrait.timeline_choice,
            "kernels": list(portrait.timeline),
        },
        records=portrait.timeline,
        notes=(
            _TIMES_NOTE,
            *portrait.reduced,
        ),
        pictures=(Picture("Kernel by kernel", partial(step_timeline, (portrait,)), TIMELINE_NOTE),),
    )


def _rows(portrait: Portrait) -> tuple[Row, ...]:
    if not portrait.timeline:
        return ()
    begin = min(row["start_ns"] for row in portrait.timeline)
    groups: dict[tuple[int | None, str], list[tuple[int, int]]] = {}
    for row in portrait.timeline:
        found = groups.setdefault((row["rank"], row["kind"]), [])
        found.append((row["start_ns"] - begin, row["dur_ns"]))
    # By rank, the kind that took longest first.
    order = sorted(
        groups.items(),
        key=lambda item: (item[0][0] is None, item[0][0] or 0, -sum(dur for _, dur in item[1])),
    )
    return tuple(
        Row(
            (
                numbers.as_is(rank),
                kind,
                numbers.count(len(kernels)),
                numbers.milliseconds(sum(dur for _, dur in kernels)),
                numbers.microseconds(max(dur for _, dur in kernels)),
                numbers.microseconds(min(start for start, _ in kernels)),
                numbers.microseconds(max(start + dur for start, dur in kernels)),
            )
        )
        for (rank, kind), kernels in order
    )
