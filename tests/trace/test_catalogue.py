"""The SQL reference is complete, and plans name the columns that are read."""

from __future__ import annotations

import pytest

from nsysmoe.trace import catalogue


def test_every_view_states_grain_and_key() -> None:
    for view in catalogue().views(public_only=False):
        assert "Grain: " in view.comment, view.name
        if view.name != "export_info":
            assert "Key: " in view.comment, view.name


def test_every_column_of_a_public_view_is_documented() -> None:
    missing = [
        f"{view.name}.{column.name}"
        for view in catalogue().views()
        for column in view.columns
        if not column.comment
    ]
    assert missing == []


def test_units_stand_in_names() -> None:
    for view in catalogue().views():
        for column in view.columns:
            if column.name.endswith("_ns"):
                assert "ns" in column.comment, f"{view.name}.{column.name}"
            if "bytes" in column.comment:
                assert column.name.endswith("_bytes"), f"{view.name}.{column.name}"


def test_only_what_a_query_reads_is_demanded() -> None:
    demand = catalogue().demand("select dur_ns from moe_kernels")
    kernel = demand["nsys.CUPTI_ACTIVITY_KIND_KERNEL"]
    assert kernel == {"start", "end", "demangledName"}
    assert "nsys.TARGET_INFO_GPU" not in demand


@pytest.mark.parametrize(
    ("query", "column"),
    [
        ("select max(grid_x) from kernels", "gridX"),
        ("select 1 from kernels where grid_y = 2", "gridY"),
        ("with a as (select * from kernels) select count(stream_id) from a", "streamId"),
        ("select (select max(graph_node_id) from kernels)", "graphNodeId"),
        ("select name from kernels order by correlation_id limit 1", "correlationId"),
        ("select k.name from kernels k join collectives c on k.context_id = c.stream_id",
         "contextId"),
    ],
)  # fmt: skip
def test_columns_used_anywhere_are_demanded(query: str, column: str) -> None:
    assert column in catalogue().demand(query)["nsys.CUPTI_ACTIVITY_KIND_KERNEL"]
