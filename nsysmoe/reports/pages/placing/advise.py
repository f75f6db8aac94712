"""Is EPLB worth it: the verdict, and what it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Picture, Table
from nsysmoe.reports.tables import INTERVAL, left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.placing.advise import Advice

SCHEMA_VERSION = 1
_NAMES = {
    "measured": "now, as measured",
    "now": "now",
    "eplb": "EPLB's plan",
    "eplb_plain": "EPLB's, not redundant",
    "best": "best plan by loads",
    "active": "best plan by cost",
    "perfect_balance": "perfect balance",
    "uniform_router": "a uniform router",
}
_NOTE = (
    "Plans are made from one half of the {unit}s and judged on the other, both ways round. "
    "Critical: the busiest GPU of each layer and {unit}, added up; a replicated expert's load is "
    "split evenly. Intervals resample {unit}s of this one run: other runs vary more. The "
    "memory of redundant experts is not in these numbers."
)


def advice_page(advice: Advice) -> Document:
    """Return the verdict, loads and times on held-out steps."""
    return Document(
        title=f"EPLB for {advice.source}",
        lead=advice.sentences,
        tables=advice_tables(advice),
        data=advice_data(advice),
        records=advice.times or advice.loads,
        findings=advice.findings,
        notes=(advice_note(advice),),
        pictures=advice_pictures(advice),
    )


def advice_tables(advice: Advice) -> tuple[Table, ...]:
    """Return times where they are known, loads, and when EPLB would not help."""
    times = [_times(advice)] if advice.times else []
    return (*times, _loads(advice), _limits(advice))


def advice_note(advice: Advice) -> str:
    """Return how to read the tables."""
    return _NOTE.format(unit=advice.shape["unit"])


def advice_data(advice: Advice) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": advice.source,
        "worth": advice.is_worth,
        "verdict": list(advice.sentences),
        **advice.shape,
        "loads": list(advice.loads),
        "times": list(advice.times),
        "bound": list(advice.bound),
        "single_runs": advice.single_runs,
        "tax": advice.tax,
        "rearrangements": list(advice.rearrangements),
        "moves": advice.moves,
        "limits": list(advice.limits),
        "device_loads": advice.device_loads,
        "physical_to_logical_map": [list(row) for row in advice.map],
        "findings": [finding.to_dict() for finding in advice.findings],
    }


def advice_pictures(advice: Advice) -> tuple[Picture, ...]:
    """Return the pictures of an advice: work, times where known, and device loads."""
    times = Picture(
        "Expected critical MoE time by placement",
        lambda: _draw_times(advice),
        "What the slowest GPUs take on held-out steps, by the fit on the trace; the part that "
        "imbalance adds is what a placement can take away.",
    )
    return (
        Picture(
            "Choices of each expert by layer",
            lambda: _draw_experts(advice),
            "Relative to the mean of the layer: which experts are hot, and where.",
        ),
        Picture(
            "Work of the busiest GPUs on held-out steps",
            lambda: _draw(advice),
            "Relative to perfect balance: 1 is as good as any placement can be.",
        ),
        *([times] if advice.times else []),
        Picture(
            "Load of each device by layer, before and after",
            lambda: _draw_devices(advice),
            "Choices on held-out steps, relative to the mean of the layer, on one scale.",
        ),
    )


_APPLIES = {True: "yes", False: "no", None: "unknown"}


def _limits(advice: Advice) -> Table:
    """Return when EPLB would not help, and whether that is so here."""
    columns = (left("Here", "applies", _APPLIES.__getitem__), left("If", "sentence"))
    return table("When EPLB would not help", advice.limits, columns)


def _loads(advice: Advice) -> Table:
    return table(
        "Loads on held-out steps",
        advice.loads,
        (
            left("Placement", "what", _NAMES.__getitem__),
            right("Critical (choices)", "critical"),
            right("Wasted share", "wasted_share", numbers.share),
            right("Saved", "saved", numbers.share),
            INTERVAL,
            right("Active experts", "active"),
        ),
    )


def _times(advice: Advice) -> Table:
    return table(
        "MoE time on held-out steps, by a fit on the trace",
        advice.times,
        (
            left("Placement", "what", _NAMES.__getitem__),
            right("Critical (ms)", "critical_ns", numbers.milliseconds),
            right("Excess (ms)", "excess_ns", numbers.milliseconds),
            right("Saved (ms)", "saved_ns", numbers.milliseconds),
            right("Saved", "saved", numbers.share),
            INTERVAL,
        ),
        "phase",
    )


def _draw(advice: Advice) -> Any:
    from nsysmoe.reports.pictures.loads import bars  # noqa: PLC0415 - plotly

    ideal = next(row for row in advice.loads if row["what"] == "perfect_balance")["critical"]
    return bars([(_NAMES[row["what"]], row["critical"] / ideal) for row in advice.loads])


def _draw_times(advice: Advice) -> Any:
    from nsysmoe.reports.pictures.placement import critical_bars  # noqa: PLC0415 - plotly

    return critical_bars(
        [
            (
                row["phase"],
                _NAMES[row["what"]],
                (row["critical_ns"] - row["excess_ns"]) / 1e6,
                row["excess_ns"] / 1e6,
            )
            for row in advice.times
        ]
    )


def _draw_experts(advice: Advice) -> Any:
    from nsysmoe.reports.pictures.loads import heatmap  # noqa: PLC0415 - plotly

    return heatmap(advice.expert_loads, "expert", "layer")


def _draw_devices(advice: Advice) -> Any:
    from nsysmoe.reports.pictures.placement import heatmaps  # noqa: PLC0415 - plotly

    return heatmaps(
        {_NAMES[name]: rows for name, rows in advice.device_loads.items()}, "GPU", "layer"
    )
