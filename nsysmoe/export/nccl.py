"""NCCL's own ranges in an export, and the communicators that their payloads name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsysmoe.export.tables import Export

_TABLE = "NVTX_EVENTS"
_COLUMNS = ("start", "end", "globalTid", "textId", "jsonText", "jsonTextId")
_NAMES = "value glob 'nccl[A-Z]*' and value not glob '*Kernel*'"
_RANGES = (
    'eventType in (59, 60) and "end" >= start and textId in '
    "(select id from StringIds where value glob 'nccl[A-Z]*' and value not glob '*Kernel*')"
)
_FIRST_OPERATION = (
    'eventType in (59, 60) and "end" >= start and textId in (select id from StringIds where '
    "value glob 'nccl[A-Z]*' and value not glob '*Kernel*' and value not glob 'ncclGroup*') limit 1"
)
_KEY = "NCCL communicator ID"

NcclRange = tuple[int, int, int | None, str, str | None]
"""Start and end (ns), thread, operation, communicator (None where none is named)."""


def nccl_ranges(export: Export) -> list[NcclRange]:
    """Return the ranges of NCCL's NVTX domain with their communicators.

    Payloads are in an export that was made with ``--include-json=true`` (nsys 2025.3; NCCL 2.19
    and later write them). Where the first operation has none, no other row is read.
    """
    columns = [name for name in _COLUMNS if export.has_column(_TABLE, name)]
    needed = {"start", "end", "globalTid", "textId"}
    if not (needed < set(columns) and export.has_column(_TABLE, "eventType")):
        return []
    if not export.has_column("StringIds", "value"):
        return []
    names = dict(export.rows("StringIds", ("id", "value"), _NAMES))
    if not (names and _has_payloads(export, columns)):
        return []
    found = [dict(zip(columns, row, strict=True)) for row in export.rows(_TABLE, columns, _RANGES)]
    texts = export.strings(
        row["jsonTextId"] for row in found if isinstance(row.get("jsonTextId"), int)
    )
    return [
        (
            row["start"],
            row["end"],
            row["globalTid"],
            names[row["textId"]],
            _communicator(row, texts),
        )
        for row in found
    ]


def _has_payloads(export: Export, columns: list[str]) -> bool:
    """Tell by the first operation: all of a capture have a payload, or none has."""
    payloads = [name for name in ("jsonText", "jsonTextId") if name in columns]
    if not payloads:
        return False
    rows = export.rows(_TABLE, payloads, _FIRST_OPERATION)
    return any(value is not None for row in rows for value in row)


def _communicator(row: dict[str, Any], texts: dict[int, str]) -> str | None:
    text = row.get("jsonText") or texts.get(row.get("jsonTextId") or 0)
    # SQLite keeps any value in any column.
    if not isinstance(text, str):
        return None
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = payload.get(_KEY) if isinstance(payload, dict) else None
    return None if value is None else str(value)
