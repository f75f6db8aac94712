"""A table is told column by column; rows of a group stand together."""

from __future__ import annotations

import pytest

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Row, Table
from nsysmoe.reports.tables import left, right, table

ROWS = ({"what": "a", "ns": 1e6, "part": 0.5}, {"what": "b", "ns": None, "part": None})


def test_columns_say_what_their_cells_are() -> None:
    columns = (
        left("What", "what", {"a": "first", "b": "second"}.__getitem__),
        right("Time (ms)", "ns", numbers.milliseconds),
        right("Part", lambda row: row["part"], numbers.share),
        right("Row", len, str),
    )
    assert table("All", ROWS, columns) == Table(
        "All",
        (Column("What", "left"), Column("Time (ms)"), Column("Part"), Column("Row")),
        (
            Row(("first", "1.00", "50.0%", "3")),
            Row(("second", numbers.UNKNOWN, numbers.UNKNOWN, "3")),
        ),
    )


def test_groups_are_a_key_or_made_of_the_row() -> None:
    columns = (left("What", "what"),)
    assert [row.group for row in table("", ROWS, columns, "what").rows] == ["a", "b"]
    made = table("", ROWS, columns, lambda row: f"part {row['part']}")
    assert [row.group for row in made.rows] == ["part 0.5", "part None"]
    assert table("", (), columns).rows == ()


def test_a_key_that_rows_lack_is_no_empty_cell() -> None:
    with pytest.raises(KeyError):
        table("", ROWS, (left("What", "nothing"),))
