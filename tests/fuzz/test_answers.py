"""The judge itself: what it has to call wrong, it calls wrong."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fixtures.builder import TraceBuilder
from tests.fuzz.answers import WrongAnswerError, check_page, check_trace
from tests.fuzz.judge import judge
from tests.fuzz.mutants import Mutant
from tests.fuzz.oracle import facts


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    build = TraceBuilder().kernel("fused_moe_kernel", 0, 10).kernel("fused_moe_kernel", 20, 30)
    return build.write(tmp_path / "a.sqlite")


def _kernels(**changes: object) -> str:
    row: dict[str, object] = {"name": "fused_moe_kernel", "launches": 2, "total_ns": 40}
    return json.dumps([row | changes])


def test_numbers_that_differ(trace: Path) -> None:
    check_trace("kernels", _kernels(), trace)
    for changes in ({"launches": 3}, {"total_ns": 41}, {"name": "another"}):
        with pytest.raises(WrongAnswerError):
            check_trace("kernels", _kernels(**changes), trace)
    with pytest.raises(WrongAnswerError, match="NaN"):
        check_trace("kernels", '[{"name": NaN}]', trace)


def test_answers_that_nobody_may_give(trace: Path) -> None:
    content = trace.read_bytes()
    trace.write_bytes(content[:-4096] + b"\xa5" * 4096)
    assert facts(trace).damage or facts(trace).reason
    with pytest.raises(WrongAnswerError):
        check_trace("kernels", _kernels(), trace)
    trace.write_bytes(content)
    with closing(sqlite3.connect(trace)) as database:
        database.execute('UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET "end" = start - 1')
        database.commit()
    with pytest.raises(WrongAnswerError, match="ends before"):
        check_trace("kernels", _kernels(), trace)


def test_numbers_by_name_need_no_process(trace: Path) -> None:
    with closing(sqlite3.connect(trace)) as database:
        database.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET globalPid = ''")
        database.commit()
    check_trace("kernels", _kernels(), trace)
    with pytest.raises(WrongAnswerError, match="no integer"):
        check_trace("collectives", "[]", trace)


@pytest.mark.parametrize(
    "page",
    [
        "<p><img src=x onerror=alert(1)></p>",
        "<p onclick='x'>",
        "<div><a href='https://example.org'></a></div>",
        "<script>alert(1)</script>",
        "<link href='https://example.org/x.css'>",
    ],
)
def test_pages_in_which_a_text_became_markup(page: str) -> None:
    check_page(
        "<p>&lt;img src=x onerror=alert(1)&gt;</p><script>var a = '\\u003cimg\\u003e'</script>"
    )
    with pytest.raises(WrongAnswerError):
        check_page(page)


def test_a_traceback_a_defect_and_a_half_written_file(trace: Path, tmp_path: Path) -> None:
    def asked(*arguments: str, output: Path = tmp_path / "none") -> str:
        mutant = Mutant(0, trace, "a", "nothing", arguments, (trace,), output)
        return judge(mutant).kind

    assert asked("kernels", str(trace), "--format", "json") == "answer"
    assert asked("kernels", str(tmp_path / "no.sqlite"), "--format", "json") == "refused"
    # What is there though the command was refused, the command is taken to have left.
    assert asked("kernels", str(tmp_path / "no.sqlite"), output=trace) == "defect"
    # Click's own line about wrong usage is several.
    assert asked("kernels", str(trace), "--format", "xml") == "defect"
