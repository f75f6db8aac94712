"""LaTeX: booktabs tables, as in the paper; the preamble has to load the package booktabs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.reports.document import Document, Table

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "σ": r"$\sigma$",
    "μ": r"$\mu$",
    "×": r"$\times$",
}
_SIGNED = re.compile(r"^-(?=[\d.])")


def render(document: Document) -> str:
    """Return one table environment a table; lead, notes and findings stand as comments.

    A paper has its own text around its tables: only tables are set.
    """
    parts = [_table(table, document.title) for table in document.tables]
    remarks = [*document.notes, *(f"{f.code}: {f.message}" for f in document.findings)]
    lead, comments = _comments(document.lead), _comments(remarks)
    return (lead + "\n" if lead else "") + "\n".join(parts) + ("\n" + comments if comments else "")


def _comments(remarks: Sequence[str]) -> str:
    # A line break in a remark would leave the comment: visible() has none.
    return "".join(f"% {_text(remark)}\n" for remark in remarks)


def _table(table: Table, title: str) -> str:
    alignment = "".join("r" if column.align == "right" else "l" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_text(table.caption or title)}}}",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        f"    {_line([column.title for column in table.columns])}",
    ]
    group = None
    for row in table.rows:
        if row.group != group:
            group = row.group
            lines.append(r"    \midrule")
            if group:
                width = len(table.columns)
                lines.append(rf"    \multicolumn{{{width}}}{{l}}{{\emph{{{_text(group)}}}}} \\")
        lines.append(f"    {_line(row.cells)}")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _line(cells: list[str] | tuple[str, ...]) -> str:
    line = " & ".join(_text(cell) for cell in cells)
    # After the line before, "[" and "*" would be arguments of its line break.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"


def _text(text: str) -> str:
    plain = _SIGNED.sub("\N{MINUS SIGN}", visible(text))
    escaped = "".join(_COMMANDS.get(char, char) for char in plain)
    return escaped.replace("\N{MINUS SIGN}", "$-$")
