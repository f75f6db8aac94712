"""Layouts and limits of a batch for a replayed workload: steps, tails, and a device lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.placing.sizing import Sizing

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
    heads = (
        "max_num_seqs", "Step p50", "Step p99", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99",
        "Tokens/s",
    )  # fmt: skip
    columns = (Column("Experts' part", "left"), *map(Column, heads))
    keys = ("step_p50_s", "step_p99_s", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s")
    rows = tuple(
        Row(
            (
                _ENDS[row["end"]],
                f"{row['max_num_seqs']:,}{'*' if row['is_extrapolated'] else ''}",
                *(numbers.seconds_as_ms(row[key]) for key in keys),
                numbers.decimal(row["output_tok_per_s"]),
            ),
            f"layout {row['layout']}",
        )
        for row in found.rows
    )
    return Table("Expected (ms)", columns, rows)


def _layouts(found: Sizing) -> Table:
    columns = (
        Column("Layout", "left"),
        *map(Column, ("GPUs", "Slots", "Balancedness", "Tokens", "Active experts", "Prompts")),
    )
    keys = ("load_ratio", "active_ratio", "prompt_load_ratio")
    rows = tuple(
        Row(
            (
                row["layout"],
                numbers.count(row["gpus"]),
                numbers.count(row["slots"]),
                numbers.decimal(row["balancedness"]),
                *(numbers.times(row[key]) for key in keys),
            )
        )
        for row in found.layouts
    )
    return Table("Busiest device against now", columns, rows)


def _lost(found: Sizing) -> Table:
    columns = (
        Column("Layout", "left"),
        *map(Column, ("Worst device", "Experts without a home", "Of choices", "Busiest at once",
                      "Slots a device", "Then needed", "Busiest after")),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                row["layout"],
                str(row["worst_device"]),
                f"{row['homeless_experts']:,} of {row['experts']:,}",
                numbers.share(row["homeless_share"]),
                numbers.times(row["at_once_ratio"]),
                numbers.count(row["slots_per_device"]),
                numbers.count(row["slots_needed"]),
                numbers.times(row["load_ratio"]),
            )
        )
        for row in found.lost
    )
    return Table("A device lost: at once, and after EPLB placed all experts anew", columns, rows)


def _others(found: Sizing) -> Table:
    """Return what the devices that are left carry; of many the busiest."""
    heads = ("Before", "At once", "After EPLB")
    columns = (Column("Device", "left"), *map(Column, heads))
    rows = tuple(
        Row(
            (
                str(one["device"]),
                *(numbers.times(one[key]) for key in ("before", "at_once", "after")),
            ),
            f"layout {row['layout']} without device {row['worst_device']}",
        )
        for row in found.lost
        for one in sorted(row["others"], key=lambda one: -(one["after"] or one["at_once"]))[:_MOST]
    )
    return Table("Load of the others, against the mean of all before", columns, rows)


def _check(found: Sizing) -> Table:
    columns = (Column("Replay itself (ms)", "left"), Column("Measured"), Column("Simulated"))
    rows = tuple(
        Row(
            (
                row["measure"],
                numbers.seconds_as_ms(row["measured_s"]),
                numbers.seconds_as_ms(row["simulated_s"]),
            )
        )
        for row in found.check
    )
    return Table("How well the simulation knows what was measured", columns, rows)
