"""Every format holds the table, and no text of a trace steers a reader's program."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.reports import TEXT_FORMATS, Column, Document, Table, encode, numbers, render
from nsysmoe.reports.escape import visible
from nsysmoe.reports.formats.as_table import _print
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from nsysmoe.reports.pages.one_trace.kernels import kernels_page
from nsysmoe.reports.pages.one_trace.query import views_page
from nsysmoe.trace import catalogue
from tests.conftest import TABLE1

HOSTILE = (
    "<img src=x onerror=alert(1)></script><script>alert(2)</script>|`**_[x](javascript:a)_**"
    "\\input{/etc/passwd}$\\write18{ls}$%&#~^{}\x1b]0;title\x07\x1b[2J\r\n\u202e\u2028=cmd()"
)

PUBLISHED = """\
Table 1: EPLB OFF against EPLB ON
Metric                       EPLB OFF  EPLB ON  Change  Verdict
MoE Kernel Performance
fused_moe Total Time (ms)     102,664  108,419   +5.6%  Worse
fused_moe Avg Duration (us)    383.68   398.68   +3.9%  Worse
fused_moe Max Duration (us)   239,809  225,736   -5.9%  Better
fused_moe StdDev (us)           2,472    2,446   -1.1%  Better
fused_moe CV (σ/μ)               6.44     6.14   -4.8%  Better
fused_moe Max/Min Ratio       92,519×  86,027×   -7.0%  Better
Communication Overhead
NCCL Total Time (ms)           85,965   92,534   +7.6%  Worse
AllReduce Total Time (ms)       1,272    1,928  +51.5%  Worse
"""


@pytest.fixture(scope="module")
def published() -> nsysmoe.Comparison:
    return nsysmoe.compare(TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = TraceBuilder().kernel("fused_moe_kernel", 0, 5)
    build.kernel(HOSTILE, 10, 5)
    # A hostile name that reaches the comparison's breakdown, its findings and its picture.
    build.kernel(f"ncclDevKernel_AllReduce_Sum_u32_RING_LL({HOSTILE})", 20, 5)
    return build.write(tmp_path_factory.mktemp("hostile") / "hostile.sqlite")


@pytest.fixture(scope="module")
def hostile_pages(hostile: Path) -> list[Document]:
    comparison = nsysmoe.compare(hostile, hostile, baseline_label=HOSTILE)
    return [comparison_page(comparison, full=True), kernels_page(nsysmoe.kernel_table(hostile))]


def test_plain_table(published: nsysmoe.Comparison) -> None:
    assert PUBLISHED in render(comparison_page(published), "table")


@pytest.mark.parametrize("width", [20, 60, 200])
def test_no_digit_is_cut_off_on_a_narrow_terminal(off: Path, width: int) -> None:
    page = kernels_page(nsysmoe.kernel_table(off))
    stream = io.StringIO()
    _print(page, Console(file=stream, width=width, color_system=None), plain=False)
    for row in page.tables[0].rows[:40]:
        for cell in row.cells[1:-1]:
            assert re.search(rf"(?<![\d.,]){re.escape(cell)}(?![\d.,])", stream.getvalue()), cell


def test_markdown(published: nsysmoe.Comparison) -> None:
    text = render(comparison_page(published), "markdown")
    assert "| fused\\_moe Total Time (ms) | 102,664 | 108,419 | +5.6% | Worse |" in text
    assert "| **MoE Kernel Performance** |  |  |  |  |" in text


def test_csv_is_exact(published: nsysmoe.Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(render(comparison_page(published), "csv"))))
    assert rows[0] == {
        "group": "moe_kernel",
        "metric": "total_time_ns",
        "baseline": "102664000000",
        "candidate": "108419000000",
        "change": "0.05605665082209921",
        "verdict": "worse",
        "interval_low": "",
        "interval_high": "",
    }
    assert next(row for row in rows if row["metric"] == "p95_ns")["baseline"] == ""


def test_json_is_the_value(published: nsysmoe.Comparison) -> None:
    assert json.loads(render(comparison_page(published), "json")) == published.to_dict()


def test_latex(published: nsysmoe.Comparison) -> None:
    text = render(comparison_page(published), "latex")
    for part in (
        r"\toprule",
        r"\bottomrule",
        r"\multicolumn{5}{l}{\emph{MoE Kernel Performance}} \\",
        r"fused\_moe Max Duration (us) & 239,809 & 225,736 & $-$5.9\% & Better \\",
        r"fused\_moe Max/Min Ratio & 92,519$\times$ & 86,027$\times$ & $-$7.0\% & Better \\",
    ):
        assert part in text
    table = text.partition(r"\end{table}")[0]
    assert not re.search(r"[^\x00-\x7f]", table)


def test_html_asks_nobody(published: nsysmoe.Comparison) -> None:
    text = render(comparison_page(published), "html")
    page = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "<td" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_hostile_names_are_escaped(hostile_pages: list[Document], name: str) -> None:
    for page in hostile_pages:
        text = render(page, name)
        for char in ("\x1b", "\x07", "\r", "\u202e", "\u2028"):
            if name == "html":
                text = re.sub(r"<script type=\"text/javascript\">/\*\*.*?</script>", "", text,
                              flags=re.DOTALL)  # fmt: skip
            assert char not in text, repr(char)
        if name == "html":
            assert "<img" not in text
            assert "<script>alert" not in text
        if name == "markdown":
            assert "<img" not in text
            assert not re.search(r"(?<!\\)\]\(", text)
        if name == "latex":
            assert r"\input{" not in text.replace(r"\textbackslash{}input\{", "")
            assert r"\write18" not in text.partition("% ")[0]


def _told(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e[-+]\d+)?", text) is not None


def test_parquet_holds_what_csv_does_with_types(
    published: nsysmoe.Comparison, hostile: Path
) -> None:
    for page in (comparison_page(published), kernels_page(nsysmoe.kernel_table(hostile))):
        frame = pl.read_parquet(io.BytesIO(encode(page, "parquet")))
        rows = list(csv.reader(io.StringIO(render(page, "csv"))))
        assert frame.columns == rows[0]
        # Whole numbers among decimal ones are decimal, too.
        told = [
            [cell if isinstance(cell, str) else _told(cell) for cell in row] for row in frame.rows()
        ]
        assert told == [
            [_told(float(cell)) if _is_number(cell) else cell for cell in row] for row in rows[1:]
        ]
    assert frame.schema["launches"] == pl.Int64


def test_parquet_without_rows_has_the_columns_of_the_table() -> None:
    empty = Document("none", (Table("", (Column("a"), Column("b")), ()),), {}, ())
    frame = pl.read_parquet(io.BytesIO(encode(empty, "parquet")))
    assert (frame.columns, frame.height) == (["a", "b"], 0)


def test_csv_and_parquet_hold_lists_and_objects_as_json() -> None:
    """Another program reads them; of numbers that JSON lacks, as the JSON output has them."""
    values: list[Any] = [
        [1, 2], "text", {}, {"a": [None, "\u202e"]}, (), 1, None,
        [True, "it's", float("nan"), Decimal("1.50"), Decimal(7), date(2026, 1, 2)],
    ]  # fmt: skip
    records = tuple({"n": number, "value": value} for number, value in enumerate(values))
    page = Document("mixed", (Table("", (Column("n"), Column("value")), ()),), {}, records)
    frame = pl.read_parquet(io.BytesIO(encode(page, "parquet")))
    assert frame["value"].to_list() == [
        "[1, 2]", "text", "{}", '{"a": [null, "\\u202e"]}', "[]", "1", None,
        '[true, "it\'s", null, 1.5, 7, "2026-01-02"]',
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(render(page, "csv"))))
    assert [row["value"] or None for row in rows] == frame["value"].to_list()
    alone = Document("lists", page.tables, {}, ({"n": 0, "value": {}},))
    assert pl.read_parquet(io.BytesIO(encode(alone, "parquet"))).rows() == [(0, "{}")]


def test_json_holds_hostile_names_exactly(hostile: Path) -> None:
    rows = json.loads(render(kernels_page(nsysmoe.kernel_table(hostile)), "json"))
    assert HOSTILE in {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fused_moe", "fused_moe"),
        ("σ × é 漢", "σ × é 漢"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\0", "a\\x0ab\\x09c\\x00"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
    ],
)
def test_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "n/a"), (0, "0"), (0.0123456, "0.0123"), (1, "1.00"), (383.682, "383.68"),
        (999.999, "1,000.00"), (1000, "1,000"), (102664.0, "102,664"), (-5.5, "-5.50"),
    ],
)  # fmt: skip
def test_decimal(value: float | None, expected: str) -> None:
    assert numbers.decimal(value) == expected


@pytest.mark.parametrize(
    ("ns", "expected"),
    [(1_234_567, "1.23"), (250, "0.000250"), (-0.5, "-5.00e-07"), (2.4e-7, "0"), (None, "n/a")],
)
def test_milliseconds_of_rounding_are_nothing(ns: float | None, expected: str) -> None:
    assert numbers.milliseconds(ns) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.056, "+5.6%"), (-0.0587, "-5.9%"), (0.0004, "0.0%"), (-0.0004, "0.0%"), (None, "n/a")],
)
def test_change(ratio: float | None, expected: str) -> None:
    assert numbers.change(ratio) == expected


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_the_reference_of_views_in_every_format(name: str) -> None:
    assert "moe_kernels" in render(views_page(catalogue().views()), name).replace("\\_", "_")
