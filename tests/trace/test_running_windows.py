"""Windows that take rows as they come: the order must reach them, whatever DuckDB plans.

A running sum without an ORDER BY of its own is right only over rows that come sorted: above the
sort may stand projections, filters and other such windows, and no join, which may turn rows round.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nsysmoe.resources import using
from nsysmoe.trace import open_trace
from nsysmoe.trace.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

FIXTURE = Path(__file__).parents[2] / "fixtures" / "dp2" / "eplb_on.sqlite"
RUNNING = re.compile(r"window \w+ as \(rows|\b(?:lag|lead|row_number)\([^)]*\) over \(\)")
AS_THEY_COME = re.compile(
    r"OVER \(ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW\)"
    r"|(?:lag|lead|row_number)\([^()]*(?:\([^()]*\)[^()]*)*\) OVER \(\)"
)
KEEP_ORDER = {"PROJECTION", "FILTER", "STREAMING_WINDOW"}


def running_scripts() -> list[str]:
    return [name for name, script in catalogue().scripts.items() if RUNNING.search(script.text)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan["children"]:
        yield from nodes(child)


def below(node: dict[str, Any]) -> str:
    """Return the first operator below a window that is not sure to keep the order."""
    (child,) = node["children"]
    while child["name"].strip() in KEEP_ORDER:
        (child,) = child["children"]
    return str(child["name"].strip())


def plan_of(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    (plan,) = json.loads(connection.execute(f"explain (format json) {query}").fetchall()[0][1])
    assert isinstance(plan, dict)
    return plan


def test_there_are_such_windows() -> None:
    assert "staging.stg_calls" in running_scripts()


@pytest.fixture(scope="module")
def filled() -> Iterator[duckdb.DuckDBPyConnection]:
    """All tables that the windows stand on, which kept answers would do without."""
    with using(has_cache=False):
        trace = open_trace(FIXTURE)
    with trace:
        for view in (
            "gpu_work",
            "idle_gaps",
            "device_time",
            "wait_ledger",
            "host_steps",
            "arrival_turns",
        ):
            trace.frame(view)
        yield trace._store.connection


@pytest.mark.parametrize("name", running_scripts())
def test_rows_reach_running_windows_in_order(name: str, filled: duckdb.DuckDBPyConnection) -> None:
    text = catalogue().scripts[name].text
    query = text[text.index(" as\n") + 4 : text.index(";\n")]
    plan = plan_of(filled, query)
    windows = [
        node
        for node in nodes(plan)
        if node["name"].strip() in {"WINDOW", "STREAMING_WINDOW"}
        and AS_THEY_COME.search(str(node["extra_info"]))
    ]
    assert windows
    for window in windows:
        assert window["name"].strip() == "STREAMING_WINDOW"
        assert below(window) == "ORDER_BY"
