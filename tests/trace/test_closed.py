"""A pasted query can read the views and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import nsysmoe
from nsysmoe.errors import QueryError


def test_any_select_over_the_views(small: Path) -> None:
    with nsysmoe.open(small) as trace:
        answer = trace.ask(
            "with a as (select device_id, sum(dur_ns)::bigint as total from moe_kernels group by 1)"
            " select * from a order by total"
        )
    assert answer.rows() == [(0, 40), (1, 41)]


@pytest.mark.parametrize(
    "query",
    [
        "from kernels",
        "describe kernels",
        "summarize moe_kernels",
        "show tables",
        "values (1), (2)",
        "select * from range(3)",
        "select unnest([1, 2])",
        "unpivot (select kernel_id, dur_ns from kernels) on dur_ns",
    ],
)
def test_the_shapes_of_select(small: Path, query: str) -> None:
    with nsysmoe.open(small) as trace:
        assert trace.ask(query).height > 0


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select 'infinity'::date", "infinity"),
        ("select date '290000-01-01'", "290000-01-01"),
        ("select '-infinity'::timestamptz", "-infinity"),
        ("select [interval 1 day]", "[1 day]"),
        ('select timestamp \'2026-01-02 03:04:05\' as "a""b";', "2026-01-02 03:04:05"),
    ],
)
def test_times_come_as_text(small: Path, query: str, expected: str) -> None:
    with nsysmoe.open(small) as trace:
        assert trace.ask(query).item() == expected


def test_columns_beside_times_keep_their_type(small: Path) -> None:
    with nsysmoe.open(small) as trace:
        found = trace.ask('select 1 as "a""b", interval 2 day as i, true as t, 1.5::double as d')
    assert found.row(0) == (1, "2 days", True, 1.5)


@pytest.mark.parametrize(
    "query",
    [
        "copy kernels to '{file}'",
        "copy (select 1) to '{file}'",
        "attach '{file}' as x",
        "install httpfs",
        "load httpfs",
        "set threads = 1",
        "pragma threads = 1",
        "reset threads",
        "create table x as select 1",
        "drop view kernels",
        "delete from loaded.StringIds",
        "insert into loaded.StringIds values (1, 'x')",
        "call enable_logging()",
        "export database '{file}'",
        "select 1; copy kernels to '{file}'",
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{file}*')",
        "select * from enable_logging(storage = 'file', storage_path = '{file}')",
        "with a as (select * from disable_logging()) select * from a",
        "select * from duckdb_settings()",
        "select * from query('select 1')",
        "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
        "select content from read_text('.tmp/x.txt')",
        "select * from kernels where dur_ns in (select count(*) from read_text('{file}'))",
        "pivot kernels on name using sum(dur_ns)",
        "select * from sniff_csv('{file}')",
        "",
        "-- nothing",
        "select",
        "select * from no_such_view",
        "select 1 as a, 2 as a",
        "select no_such_column from kernels",
    ],
)
def test_nothing_else(small: Path, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nhunter2,1\n")
    before = sorted(tmp_path.iterdir())
    with nsysmoe.open(small) as trace:
        with pytest.raises(QueryError) as error:
            trace.ask(query.format(file=secret))
        assert "hunter2" not in str(error.value)
        assert trace.frame("moe_kernels").height == 4
    assert secret.read_text() == "a,b\nhunter2,1\n"
    assert sorted(tmp_path.iterdir()) == before


def test_python_variables_are_not_tables(small: Path) -> None:
    hidden = [1, 2, 3]
    with nsysmoe.open(small) as trace, pytest.raises(QueryError):
        trace.ask("select * from hidden")
    assert hidden
