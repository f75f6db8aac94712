"""What is kept between calls."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.kept import KeptAnswers

SCHEMA_VERSION = 1
_COLUMNS = (
    Column("Trace", "left"),
    Column("What", "left"),
    Column("Size"),
    Column("Last used (UTC)", "left"),
)


def cache_page(kept: KeptAnswers) -> Document:
    """Return one row an answer, the most recently used first."""
    where = kept.folder or "no folder: nothing is kept"
    most = numbers.size(kept.most_bytes)
    records = tuple(_record(kept, number) for number in range(len(kept.answers)))
    total = sum(answer.size for answer in kept.answers)
    return Document(
        title=f"Answers kept in {where}",
        lead=(f"{len(kept.answers):,} answers, {numbers.size(total)} of at most {most}.",),
        tables=(
            Table(
                f"Answers kept in {where}",
                _COLUMNS,
                tuple(
                    Row((row["source"], row["what"], numbers.size(row["bytes"]), row["used"]))
                    for row in records
                ),
            ),
        ),
        data={
            "schema_version": SCHEMA_VERSION,
            "folder": kept.folder,
            "most_bytes": kept.most_bytes,
            "bytes": total,
            "answers": list(records),
        },
        records=records,
    )


def _record(kept: KeptAnswers, number: int) -> dict[str, Any]:
    answer = kept.answers[number]
    used = datetime.fromtimestamp(answer.used, timezone.utc).isoformat(timespec="seconds")
    return {
        "source": answer.source,
        "what": answer.what,
        "bytes": answer.size,
        "used": used.removesuffix("+00:00") + "Z",
    }
