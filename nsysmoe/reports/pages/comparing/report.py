"""The report: the verdict, Table 1, what to know before believing it, and the pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.table1 import BESIDE, TABLE_1
from nsysmoe.reports import numbers, pictures
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.pages.comparing.comparison import (
    cause_tables,
    counted_note,
    hidden_tables,
    latency_tables,
    metrics_table,
    records,
)
from nsysmoe.reports.pages.comparing.runs import runs_pictures
from nsysmoe.reports.pages.one_trace.timeline import TIMELINE_NOTE
from nsysmoe.reports.pages.one_trace.waits import WAIT_CAUSES
from nsysmoe.reports.pages.one_trace.whatif import REMOVAL_COLUMNS, removal_row
from nsysmoe.reports.pages.placing.advise import (
    advice_data,
    advice_note,
    advice_pictures,
    advice_tables,
)
from nsysmoe.reports.pages.routing.balance import sweep_picture
from nsysmoe.reports.pictures.look import place
from nsysmoe.reports.pictures.stacks import PHASE_PARTS, WINDOW_PARTS, Part, mean_time_use

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.analysis.comparing.portrait import Portrait
    from nsysmoe.analysis.placing.advise import Advice
    from nsysmoe.analysis.routing.balance import Balance


@dataclass(frozen=True)
class _Drawn:
    """A picture of both portraits: how it is drawn, its caption, and how to read it."""

    draw: Callable[[Sequence[Portrait]], Any]
    caption: str
    note: str


# In the order of the page.
_PICTURES = (
    _Drawn(
        pictures.where_time_went,
        "Where the time went",
        "Each bar is a GPU's whole window, from the first kernel to the last. Transfer and wait "
        "are what communication took while nothing was computed; idle is when nothing ran.",
    ),
    _Drawn(
        pictures.critical_by_phase,
        "Critical MoE time by phase",
        "A step waits for its slowest rank. The left part is what MoE would cost if all ranks "
        "were equally fast, the right part is what imbalance adds.",
    ),
    _Drawn(
        pictures.duration_distributions,
        "How long MoE launches took",
        "How many launches took how long. Both axes are logarithmic: what stands far right is "
        "rare, and still decides the maximum and the standard deviation.",
    ),
    _Drawn(
        pictures.wait_and_transfer,
        "Waiting and transferring in collectives",
        "Wait is from a rank's own start to the last rank's, so the fastest rank waits longest. "
        "Unmatched kernels have no partner on other ranks: their wait is unknown.",
    ),
    _Drawn(
        pictures.layer_heatmap,
        "MoE time by layer and rank",
        "A rank's time in a layer over the mean of all ranks: orange is slower than the mean, "
        "blue is faster, and with perfect balance all is pale. One scale for both arms.",
    ),
    _Drawn(
        pictures.cells_over_time,
        "Balance over time",
        "The slowest rank over the mean of ranks in each step: 1 is perfect balance. A band marks "
        "a rearrangement of experts, a cross a step that something else distorted. "
        "Drag to zoom, double-click to go back.",
    ),
    _Drawn(
        pictures.step_timeline,
        "One step, kernel by kernel",
        TIMELINE_NOTE,
    ),
)
_CHANGES_NOTE = (
    "Each metric's change, and the interval that it lies in where one is known. An interval that "
    "crosses 0 may be no change at all."
)


_WATERFALL_NOTE = (
    "What the change of wall time is made of, on the GPU whose window is longest: green saves, "
    "red costs. Waiting counts to what made the other rank late, idle time to what the host did. "
    "Of several runs, means; ± is the 95 % interval over runs, and what is within it may be noise."
)


def report_page(
    comparison: Comparison,
    portraits: tuple[Portrait, Portrait],
    routing: tuple[Advice, Balance] | None = None,
) -> Document:
    """Return the whole report of two arms, with advice where the baseline's routing is known."""
    page = _two_arms(comparison, portraits)
    return page if routing is None else _with_routing(page, *routing)


def _with_routing(page: Document, advice: Advice, balance: Balance) -> Document:
    """Put the advice after what was measured: its verdict, tables and pictures."""
    said = Table(
        "Advice by the baseline's routing",
        (Column("What it stands on", "left"),),
        tuple(Row((sentence,)) for sentence in (*advice.sentences[1:], balance.sentence)),
    )
    return replace(
        page,
        lead=(*page.lead, f"By the baseline's routing: {advice.sentences[0]}"),
        tables=(*page.tables, said, *advice_tables(advice)),
        data={**page.data, "advice": advice_data(advice)},
        findings=(*page.findings, *advice.findings),
        notes=(*page.notes, advice_note(advice)),
        pictures=(*page.pictures, *advice_pictures(advice), sweep_picture(balance)),
    )


def _two_arms(comparison: Comparison, portraits: tuple[Portrait, Portrait]) -> Document:
    baseline, candidate = comparison.baseline, comparison.candidate
    return Document(
        title=f"{baseline.label} against {candidate.label}",
        lead=tuple(part.sentence for part in comparison.verdict),
        tables=(
            metrics_table(comparison, TABLE_1, "Table 1: "),
            *hidden_tables(comparison),
            *cause_tables(comparison),
            *latency_tables(comparison),
            metrics_table(comparison, BESIDE, "Beside Table 1: "),
            _time_use_table(portraits),
            _phases_table(portraits),
            *_waits_tables(portraits),
            *_whatif_tables(portraits),
        ),
        # A comparison that can be loaded again, with the portraits beside it.
        data={**comparison.to_dict(), "portraits": [asdict(portrait) for portrait in portraits]},
        records=records(comparison),
        findings=comparison.findings,
        notes=(
            counted_note(comparison),
            *(
                f"{portrait.label}: {reduced}"
                for portrait in portraits
                for reduced in portrait.reduced
            ),
        ),
        pictures=(
            Picture(
                "Changes of Table 1",
                partial(pictures.change_intervals, comparison.metrics),
                _CHANGES_NOTE,
            ),
            *runs_pictures(comparison),
            Picture(
                "From one wall time to the other",
                partial(
                    pictures.wall_time_waterfall, comparison.causes, baseline.label, candidate.label
                ),
                _WATERFALL_NOTE,
            ),
            *(
                Picture(drawn.caption, partial(drawn.draw, portraits), drawn.note)
                for drawn in _PICTURES
            ),
        ),
    )


def _time_use_table(portraits: Sequence[Portrait]) -> Table:
    columns = (
        Column("GPU", "left"),
        *map(_time_column, WINDOW_PARTS),
        Column("Window (ms)"),
    )
    keys = (*(part.key for part in WINDOW_PARTS), "window_ns")
    rows = []
    for arm in portraits:
        rows += [_times_row(place(row), row, keys, arm.label) for row in arm.time_use]
        if len(arm.time_use) > 1:
            rows.append(_times_row("mean", mean_time_use(arm.time_use), keys, arm.label))
    return Table("Where the time went", columns, tuple(rows))


def _phases_table(portraits: Sequence[Portrait]) -> Table:
    columns = (
        Column("Phase", "left"),
        Column("Cells"),
        *map(_time_column, PHASE_PARTS),
        Column("Critical (ms)"),
    )
    keys = (*(part.key for part in PHASE_PARTS), "critical_ns")
    rows = []
    for arm in portraits:
        for row in arm.phases:
            times = _times_row(str(row["phase"]), row, keys, arm.label)
            name, *rest = times.cells
            rows.append(Row((name, numbers.count(row["cells"]), *rest), times.group))
    return Table("Critical MoE time by phase", columns, tuple(rows))


def _waits_tables(portraits: Sequence[Portrait]) -> list[Table]:
    """Return why ranks waited, by phase; none where no collective could be paired."""
    if not any(arm.waits for arm in portraits):
        return []
    columns = (
        Column("Phase", "left"),
        Column("Waiting (ms)"),
        *(Column(f"{name} (ms)") for name in WAIT_CAUSES.values()),
    )
    rows = [
        _times_row(row["phase"] or "all", row, ("wait_ns", *WAIT_CAUSES), arm.label)
        for arm in portraits
        for row in arm.waits
    ]
    return [Table("Why ranks waited for the last one", columns, tuple(rows))]


def _whatif_tables(portraits: Sequence[Portrait]) -> list[Table]:
    """Return what each removal alone and in order would save; none where nothing was replayed."""
    tables = []
    for kind, caption in (
        ("alone", "What if: each alone"),
        ("order", "What if: in the order in which bottlenecks fall"),
    ):
        rows = [
            removal_row(row, arm.replayed_ns, arm.label)
            for arm in portraits
            if arm.replayed_ns
            for row in arm.removals
            if row["kind"] == kind
        ]
        if rows:
            tables.append(Table(caption, REMOVAL_COLUMNS, tuple(rows)))
    return tables


def _time_column(part: Part) -> Column:
    return Column(f"{part.name[0].upper()}{part.name[1:]} (ms)")


def _times_row(name: str, row: dict[str, Any], keys: Sequence[str], group: str) -> Row:
    return Row((name, *(numbers.milliseconds(row.get(key)) for key in keys)), group)
