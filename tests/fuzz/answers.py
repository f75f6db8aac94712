"""Whether an answer is right: each command's JSON against the oracle's on the same bytes."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from nsysmoe.classes import COLLECTIVE, MOE_GEMM, default_class_map
from tests.fuzz.oracle import cells, facts
from tests.oracle import statistics_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fuzz.oracle import Kernel

_ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "h1",
    "h2", "h3", "p", "ul", "ol", "li", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "figure", "figcaption", "link", "noscript",
    "div", "span", "strong", "em", "b", "code", "script", "details",
    "summary", "br", "small", "nav", "article", "dl", "dt", "dd", "colgroup", "col",
}  # fmt: skip


class WrongAnswerError(AssertionError):
    """An answer that the oracle does not give; the text says which."""


def check_trace(command: str, answer: str, trace: Path) -> None:
    """Compare what a command said of a trace with the oracle.

    Raises:
        WrongAnswerError: It differs, or nothing may be said of such a file.
    """
    if command == "report":
        check_page(answer)
        return
    document = parsed(answer)
    known = facts(trace, needs_ranks=command != "kernels")
    if known.damage:
        raise WrongAnswerError(f"an answer from damaged pages: {known.damage[:200]}")
    if command == "info" and document["kernels"] is None:
        return
    if known.kernels is None:
        raise WrongAnswerError(f"an answer though {known.reason[:200]}")
    if (check := _CHECKS.get(command)) is not None:
        check(document, known.kernels)


def check_comparison(answer: str, traces: tuple[Path, Path]) -> None:
    """Compare both sides of a comparison with the oracle, and the change with its definition."""
    document = parsed(answer)
    rows = {row["metric"]: row for row in document["metrics"]}
    for side, trace in zip(("baseline", "candidate"), traces, strict=True):
        known = facts(trace)
        if known.kernels is None:
            raise WrongAnswerError(f"an answer though {known.damage or known.reason}"[:300])
        _same_metrics({key: row[side] for key, row in rows.items()}, known.kernels)
    for key, row in rows.items():
        before, after = row["baseline"], row["candidate"]
        if row["change"] is not None and not math.isclose(
            row["change"], after / before - 1, rel_tol=1e-9, abs_tol=1e-12
        ):
            raise WrongAnswerError(f"{key}: change {row['change']} of {before} to {after}")


def check_page(page: str) -> None:
    """Refuse a page in which a text became markup.

    Raises:
        WrongAnswerError: A tag, an attribute or a link is none of the page's own.
    """
    _Page().feed(page)


class _Page(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ALLOWED:
            raise WrongAnswerError(f"the page has a tag <{tag}>")
        for name, value in attrs:
            is_link = name in {"href", "src"} and not (value or "").startswith(("#", "data:"))
            if name.startswith("on") or is_link:
                raise WrongAnswerError(f"the page has {name}={str(value)[:40]!r} in <{tag}>")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and data.strip().startswith("alert("):
            raise WrongAnswerError("a text of the trace became a script")


def parsed(answer: str) -> Any:
    """Return the JSON of an answer, which may hold finite numbers alone.

    Raises:
        WrongAnswerError: It is none.
    """
    try:
        return json.loads(answer, parse_constant=_no_number)
    except ValueError as error:
        raise WrongAnswerError(f"the answer is no JSON: {error}") from error


def _no_number(text: str) -> None:
    raise WrongAnswerError(f"the answer holds {text}")


def _of_class(kernels: list[Kernel], wanted: str) -> list[Kernel]:
    known = {name: default_class_map().classify(name) for name in {k.name for k in kernels}}
    return [kernel for kernel in kernels if known[kernel.name].name == wanted]


def _same(what: str, found: Any, expected: Any) -> None:
    if found is None or expected is None:
        is_same = found is expected
    else:
        is_same = math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)
    if not is_same:
        raise WrongAnswerError(f"{what} is {found}, not {expected}")


def _same_metrics(found: dict[str, Any], kernels: list[Kernel]) -> None:
    moe = [kernel.duration for kernel in _of_class(kernels, MOE_GEMM)]
    if moe:
        expected = statistics_of(moe)
        expected["total_time_ns"] = expected["total_ns"]
        for key in found.keys() & expected.keys():
            _same(key, found[key], expected[key])
    nccl = [
        k.duration
        for k in _of_class(kernels, COLLECTIVE)
        if default_class_map().classify(k.name).backend == "nccl"
    ]
    _same("nccl_total_ns", found["nccl_total_ns"], sum(nccl))


def _summary(document: Any, kernels: list[Kernel]) -> None:
    _same_metrics({row["metric"]: row["value"] for row in document["metrics"]}, kernels)


def _info(document: Any, kernels: list[Kernel]) -> None:
    found = document["kernels"]
    _same("launches", found["launches"], len(kernels))
    _same("start_ns", found["start_ns"], min(k.start for k in kernels))
    _same("end_ns", found["end_ns"], max(k.end for k in kernels))
    _same("classes", sum(row["total_ns"] for row in document["classes"]),
          sum(k.duration for k in kernels))  # fmt: skip


def _kernels(document: Any, kernels: list[Kernel]) -> None:
    by_name: dict[str, list[int]] = {}
    for kernel in kernels:
        by_name.setdefault(kernel.name, []).append(kernel.duration)
    if {row["name"] for row in document} != by_name.keys():
        raise WrongAnswerError("the names of kernels differ")
    for row in document:
        expected = statistics_of(by_name[row["name"]])
        for key in row.keys() & expected.keys():
            _same(f"{key} of {row['name'][:40]!r}", row[key], expected[key])


def _collectives(document: Any, kernels: list[Kernel]) -> None:
    events = _of_class(kernels, COLLECTIVE)
    _same("total_ns", sum(row["total_ns"] for row in document), sum(k.duration for k in events))
    _same("launches", sum(row["matched"] + row["unmatched"] for row in document), len(events))
    for row in document:
        parts = [row["transfer_ns"], row["wait_ns"]]
        if any(part is not None and not 0 <= part <= row["total_ns"] for part in parts):
            raise WrongAnswerError(f"a part beyond its whole: {row}")


def _imbalance(document: Any, kernels: list[Kernel]) -> None:
    found = cells(_of_class(kernels, MOE_GEMM))
    if found is None:
        raise WrongAnswerError("balance of ranks that cannot be paired")
    _same("cells", document["cells"], len(found))
    _same("critical_ns", document["critical_ns"], sum(map(max, found)))
    _same("mean_ns", document["mean_ns"], sum(sum(cell) / len(cell) for cell in found))


def _phases(document: Any, kernels: list[Kernel]) -> None:
    moe = _of_class(kernels, MOE_GEMM)
    _same("launches", sum(row["launches"] for row in document), len(moe))
    _same("time", sum(row["moe_total_ns"] for row in document), sum(k.duration for k in moe))


def _waits(document: Any, _kernels: list[Kernel]) -> None:
    _same("causes", sum(document["causes"].values()), document["wait_ns"])
    for phase in document["phases"].values():
        _same("causes of a phase", sum(phase["causes"].values()), phase["wait_ns"])
    parts = sum(phase["wait_ns"] for phase in document["phases"].values())
    _same("phases", parts, document["wait_ns"])


_CHECKS: dict[str, Callable[[Any, list[Kernel]], None]] = {
    "summary": _summary,
    "info": _info,
    "kernels": _kernels,
    "collectives": _collectives,
    "imbalance": _imbalance,
    "phases": _phases,
    "waits": _waits,
}
