"""Communicators that NCCL's own ranges name, against the program that was captured and by hand."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from shutil import copy
from typing import TYPE_CHECKING, Any

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from tests.conftest import FOUR_GPUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Open = Callable[[TraceBuilder], nsysmoe.Trace]

REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"


@pytest.fixture
def opened(written: Callable[[TraceBuilder], Path]) -> Iterator[Open]:
    with ExitStack() as traces:
        yield lambda build: traces.enter_context(nsysmoe.open(written(build)))


def payload(communicator: int) -> str:
    return json.dumps({"NCCL communicator ID": communicator, "Message size [bytes]": 64})


def groups(trace: nsysmoe.Trace) -> dict[tuple[str, tuple[int, ...]], int]:
    """Return how many kernels each collective ran on each set of devices that met."""
    frame = trace.frame("matched_collectives").filter("is_matched")
    found: dict[tuple[str, tuple[int, ...]], int] = {}
    for part in frame.partition_by("collective", "communicator"):
        devices = tuple(sorted(part["device_id"].unique()))
        found[part["collective"][0], devices] = part.height
    return found


# What the program of fixtures/groups did in its twelve steps.
CAPTURED = {
    ("all_gather", (0, 1, 2, 3)): 12 * 4,
    ("all_reduce", (0, 1)): (12 + 6) * 2,
    ("all_reduce", (2, 3)): 12 * 2,
    ("all_reduce", (0, 2)): 12 * 2,
    ("all_reduce", (1, 3)): 12 * 2,
    ("all_reduce", (0, 1, 2, 3)): 4 * 4,
}


def test_three_communicators_a_rank_are_told_apart() -> None:
    with nsysmoe.open(FOUR_GPUS) as trace:
        assert groups(trace) == CAPTURED
        found = trace.frame("matched_collectives")
    assert found["is_matched"].all()
    assert set(found["communicator_source"]) == {"nvtx"}
    assert found.select("name_id", "communicator", "ordinal", "device_id").is_unique().all()
    # All that meet overlap: had they been paired wrongly, some would not.
    assert (found["wait_ns"] + found["transfer_ns"] <= found["dur_ns"]).all()
    assert (found["transfer_ns"] > 0).all()


def test_without_payloads_nothing_is_guessed(tmp_path: Path) -> None:
    path = copy(FOUR_GPUS, tmp_path / "plain.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE NVTX_EVENTS SET jsonText = NULL")
        database.commit()
    with nsysmoe.open(path) as trace:
        assert groups(trace) == {("all_gather", (0, 1, 2, 3)): 48}
        # NCCL's ranges say nothing then: neither they nor the API calls are read.
        assert not trace._store.has_read("nsys.CUPTI_ACTIVITY_KIND_RUNTIME")


@pytest.mark.parametrize(
    "text", ["not json", "[1]", "{}", '{"NCCL communicator ID": null}', "[" * 100_000]
)
def test_a_payload_that_says_nothing_leaves_the_overlap(opened: Open, text: str) -> None:
    build = two_ranks(lambda _: text)
    (source,) = {row["communicator_source"] for row in opened(build).rows("matched_collectives")}
    assert source == "overlap"


def two_ranks(said: Callable[[int], str | None], *, launched_after: int = 1) -> TraceBuilder:
    """Four all-reduces of two ranks, each launched inside a range that says its payload."""
    build = TraceBuilder()
    for device in (0, 1):
        pid = 1000 + device
        for number in range(4):
            at = 1000 * number
            build.nccl_range("ncclAllReduce", at, 20, pid=pid, payload=said(number))
            build.call(at + launched_after, 5, pid=pid, correlation=number)
            build.kernel(REDUCE, at + 50, 100, device=device, pid=pid, correlation=number)
    return build


def sources(trace: nsysmoe.Trace) -> list[Any]:
    return trace.frame("matched_collectives").sort("start_ns")["communicator_source"].to_list()


def test_kernels_of_one_name_are_ordered_by_communicator(opened: Open) -> None:
    trace = opened(two_ranks(lambda number: payload(2**63 + number % 2)))
    found = trace.frame("matched_collectives").sort("device_id", "start_ns")
    assert found["ordinal"].to_list() == [0, 0, 1, 1] * 2
    assert found["communicator"].to_list() == [0, 1, 0, 1] * 2


def test_one_launch_outside_any_range_leaves_the_overlap_for_its_name(opened: Open) -> None:
    build = two_ranks(lambda _: payload(5))
    for device in (0, 1):
        build.kernel(REDUCE, 9000, 100, device=device, pid=1000 + device, correlation=77)
        build.call(8000, 5, pid=1000 + device, correlation=77)
    assert set(sources(opened(build))) == {"overlap"}


def test_replayed_kernels_keep_an_order_of_their_own(opened: Open) -> None:
    build = two_ranks(lambda _: payload(5))
    for device in (0, 1):
        build.kernel(
            REDUCE, 9000, 100, device=device, pid=1000 + device, correlation=77, graph_node=3
        )
    trace = opened(build)
    assert sources(trace) == ["nvtx"] * 8 + ["overlap"] * 2
    assert trace.frame("matched_collectives").sort("start_ns")["ordinal"].to_list()[-2:] == [0, 0]


@pytest.mark.parametrize(("second", "expected"), [(5, "nvtx"), (6, "overlap")])
def test_a_group_launches_on_the_communicator_of_its_operations(
    opened: Open, second: int, expected: str
) -> None:
    build = TraceBuilder()
    for device in (0, 1):
        pid = 1000 + device
        for number in range(2):
            at = 1000 * number
            build.nccl_range("ncclGroupStart", at, 2, pid=pid)
            build.nccl_range("ncclGroupStart", at + 3, 2, pid=pid)
            build.nccl_range("ncclBroadcast", at + 10, 5, pid=pid, payload=payload(5))
            build.nccl_range("ncclBroadcast", at + 20, 5, pid=pid, payload=payload(second))
            build.nccl_range("ncclGroupEnd", at + 30, 2, pid=pid)
            build.nccl_range("ncclGroupEnd", at + 40, 20, pid=pid)
            build.call(at + 45, 5, pid=pid, correlation=number)
            build.kernel(
                "ncclDevKernel_Broadcast_RING_LL(x)", at + 70, 100, device=device, pid=pid,
                correlation=number,
            )  # fmt: skip
    assert set(sources(opened(build))) == {expected}
