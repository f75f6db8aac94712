"""Markdown: tables as GitHub draws them, every text escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from nsysmoe.findings import Finding
    from nsysmoe.reports.document import Document, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+|~!$])")
# A sign or a parenthesis between words steers nothing; escaping it would only be noise.
_HARMLESS = re.compile(r"\\([()+#!])(?!\()")


def render(document: Document) -> str:
    """Return a heading, the lead, the tables, the notes and the findings."""
    parts = [f"# {_text(document.title)}", *_lead(document.lead)]
    parts += [_table(table) for table in document.tables]
    if document.notes:
        parts.append("\n".join(_text(note) for note in document.notes))
    if document.findings:
        parts.append("\n".join(_finding(finding) for finding in document.findings))
    return "\n\n".join(parts) + "\n"


def _lead(sentences: tuple[str, ...]) -> list[str]:
    """Return the first sentence as a paragraph of its own, the others as a list."""
    paragraphs = [f"**{_text(sentence)}**" for sentence in sentences[:1]]
    if len(sentences) > 1:
        paragraphs.append("\n".join(f"- {_text(sentence)}" for sentence in sentences[1:]))
    return paragraphs


def _table(table: Table) -> str:
    lines = [f"**{_text(table.caption)}**", ""] if table.caption else []
    lines.append(_line([_text(column.title) for column in table.columns]))
    lines.append(_line(["---:" if c.align == "right" else ":---" for c in table.columns]))
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            lines.append(_line([f"**{_text(group)}**"] + [""] * (len(table.columns) - 1)))
        lines.append(_line([_text(cell) for cell in row.cells]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _finding(finding: Finding) -> str:
    return f"- **{finding.severity}** `{finding.code}`: {_text(finding.message)}"


def _text(text: str) -> str:
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _HARMLESS.sub(r"\1", _SPECIAL.sub(r"\\\1", plain))
