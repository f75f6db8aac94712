"""A replay of requests: latencies, goodput, errors, and how well the sender kept time."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.experiments.traffic import Traffic

SCHEMA_VERSION = 1
_LONGEST = 80
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}
_SHARES = ("p50", "p90", "p95", "p99")
_NOTE = (
    "Latencies count from when a request was due, not from when it was sent: waiting for a place "
    "and the sender's own lateness are in them. TPOT: (last token - first token) / (tokens - 1)."
)


def traffic_page(found: Traffic) -> Document:
    """Return percentiles, errors, and the sender's timing."""
    tables = [_latencies(found), _sender(found)]
    if found.errors:
        tables.insert(1, _errors(found))
    return Document(
        title=f"Replay of {found.log['source']}",
        lead=tuple(_lead(found)),
        tables=tuple(tables),
        data={
            "schema_version": SCHEMA_VERSION,
            **{key: value for key, value in asdict(found).items() if key != "findings"},
            "findings": [finding.to_dict() for finding in found.findings],
        },
        records=tuple(_records(found)),
        findings=found.findings,
        notes=(_NOTE,),
    )


def _lead(found: Traffic) -> list[str]:
    counts, summary = found.requests, found.summary
    speed = numbers.decimal(summary["output_tok_per_s"])
    answered = (
        f"{counts['answered']:,} of {counts['in_log']:,} requests answered in "
        f"{summary['wall_s']:,.1f} s, {counts['failed']:,} failed, {speed} output tokens/s."
    )
    lines = [answered]
    if found.goodput is not None:
        limits = ", ".join(
            f"{_NAMES[name]} ≤ {limit:g} ms" for name, limit in found.goodput["limits_ms"].items()
        )
        lines.append(
            f"Goodput under {limits}: {numbers.decimal(found.goodput['requests_per_s'])} "
            f"requests/s, {numbers.share(found.goodput['ratio'])} of those sent."
        )
    return lines


def _latencies(found: Traffic) -> Table:
    columns = (Column("Latency (ms)", "left"), *map(Column, _SHARES))
    rows = tuple(
        Row(
            (
                title,
                *(numbers.seconds_as_ms(found.summary[f"{name}_{share}_s"]) for share in _SHARES),
            )
        )
        for name, title in _NAMES.items()
    )
    return Table("Requests that were answered", columns, rows)


def _errors(found: Traffic) -> Table:
    columns = (
        left("Error", "kind"),
        right("Attempts", "attempts", numbers.count),
        right("Requests", "requests", numbers.count),
        left("Said", lambda row: _cut(row["message"] or "")),
    )
    return table("Errors", found.errors, columns)


def _sender(found: Traffic) -> Table:
    columns = (Column("Sender (ms)", "left"), *map(Column, ("p50", "p99", "max")))
    rows = tuple(
        Row(
            (
                title,
                *(
                    numbers.seconds_as_ms(found.sender[f"{name}_{share}_s"])
                    for share in ("p50", "p99", "max")
                ),
            )
        )
        for name, title in (("late", "own lateness"), ("queued", "reading, waiting for a place"))
    )
    return Table("How requests were sent", columns, rows)


def _records(found: Traffic) -> list[dict[str, Any]]:
    return [
        {"measure": name, **{f"{share}_s": found.summary[f"{name}_{share}_s"] for share in _SHARES}}
        for name in _NAMES
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
