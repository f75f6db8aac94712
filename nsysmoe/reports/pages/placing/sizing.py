"""Layouts and limits of a batch for a replayed workload: steps, tails, and a device lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.placing.sizing import Sizing
    from nsysmoe.reports.tables import Values

SCHEMA_VERSION = 1
# Devices of a layout that are shown; JSON has all.
_MOST = 8
_ENDS = {"expected": "expected", "unmoved": "no part follows", "moved": "all follows"}
_NOTE = (
    "Rows are simulations of the replayed arrivals. No part follows: experts' loads change nothing "
    "of a step; all follows: base by active experts, the rest by tokens, of the busiest device. "
    "*: batches beyond those of the replay. Loads ratio: busiest device against now."
)


def sizing_page(found: Sizing) -> Document:
    """Return expected steps and tails, what a lost device does, and what is not known."""
    return Document(
        title=f"Sizing for {found.replay}",
        lead=(_lead(found),),
        tables=(_tails(found), _layouts(found), _lost(found), _others(found), _check(found)),
        data={
            "schema_version": SCHEMA_VERSION,
            **{key: value for key, value in asdict(found).items() if key != "findings"},
            "findings": [finding.to_dict() for finding in found.findings],
        },
        records=found.rows,
        findings=found.findings,
        notes=(_NOTE, *(f"Not known: {sentence}" for sentence in found.unknown)),
    )


def _lead(found: Sizing) -> str:
    model = found.model
    return (
        f"A step on {found.now} takes {numbers.seconds_as_ms(model['base_s'])} ms + "
        f"{numbers.microseconds(model['per_sequence_s'] * 1e9)} µs a sequence + "
        f"{numbers.microseconds(model['per_prompt_token_s'] * 1e9)} µs a prompt token "
        f"(off by {numbers.share(model['error_ratio'])} on requests left out of the fit)."
    )


def _tails(found: Sizing) -> Table:
    times = (f"{what} {part}" for what in ("Step", "TTFT", "TPOT") for part in ("p50", "p99"))
    columns = (
        left("Experts' part", "end", _ENDS.__getitem__),
        right("max_num_seqs", _most_sequences, str),
        *(
            right(title, f"{title.lower().replace(' ', '_')}_s", numbers.seconds_as_ms)
            for title in times
        ),
        right("Tokens/s", "output_tok_per_s"),
    )
    return table("Expected (ms)", found.rows, columns, lambda row: f"layout {row['layout']}")


def _most_sequences(row: Values) -> str:
    return f"{row['max_num_seqs']:,}{'*' if row['is_extrapolated'] else ''}"


def _layouts(found: Sizing) -> Table:
    columns = (
        left("Layout", "layout"),
        right("GPUs", "gpus", numbers.count),
        right("Slots", "slots", numbers.count),
        right("Balancedness", "balancedness"),
        right("Tokens", "load_ratio", numbers.times),
        right("Active experts", "active_ratio", numbers.times),
        right("Prompts", "prompt_load_ratio", numbers.times),
    )
    return table("Busiest device against now", found.layouts, columns)


def _lost(found: Sizing) -> Table:
    columns = (
        left("Layout", "layout"),
        right("Worst device", "worst_device", str),
        right("Experts without a home", _homeless, str),
        right("Of choices", "homeless_share", numbers.share),
        right("Busiest at once", "at_once_ratio", numbers.times),
        right("Slots a device", "slots_per_device", numbers.count),
        right("Then needed", "slots_needed", numbers.count),
        right("Busiest after", "load_ratio", numbers.times),
    )
    caption = "A device lost: at once, and after EPLB placed all experts anew"
    return table(caption, found.lost, columns)


def _homeless(row: Values) -> str:
    return f"{row['homeless_experts']:,} of {row['experts']:,}"


def _others(found: Sizing) -> Table:
    """Return what the devices that are left carry; of many the busiest."""
    rows = (
        {**one, "where": f"layout {row['layout']} without device {row['worst_device']}"}
        for row in found.lost
        for one in sorted(row["others"], key=lambda one: -(one["after"] or one["at_once"]))[:_MOST]
    )
    columns = (
        left("Device", "device"),
        right("Before", "before", numbers.times),
        right("At once", "at_once", numbers.times),
        right("After EPLB", "after", numbers.times),
    )
    return table("Load of the others, against the mean of all before", rows, columns, "where")


def _check(found: Sizing) -> Table:
    columns = (
        left("Replay itself (ms)", "measure"),
        right("Measured", "measured_s", numbers.seconds_as_ms),
        right("Simulated", "simulated_s", numbers.seconds_as_ms),
    )
    return table("How well the simulation knows what was measured", found.check, columns)
