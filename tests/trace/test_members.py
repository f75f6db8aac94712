"""Which files of a folder are one run, by where and when they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.builder import TraceBuilder
from nsysmoe.classes import default_class_map
from nsysmoe.errors import InputError
from nsysmoe.resources import resources
from nsysmoe.trace.member import Member, natural
from nsysmoe.trace.members import (
    MemberJob,
    grouped,
    in_order,
    labelled,
    look_at,
    one_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UTC = 1_790_000_000_000_000_000


def member(path: str, **more: Any) -> Member:
    values: dict[str, Any] = {
        "host": "n1", "gpus": (), "utc_ns": UTC, "ranks": (((1 << 48) | (5 << 24), 0),),
        "launches": 3, "first_ns": 0, "last_ns": 1000,
    }  # fmt: skip
    return Member(path, **{**values, **more})


def paths(groups: list[list[Member]]) -> list[list[str]]:
    return [[one.path for one in group] for group in groups]


def test_a_file_tells_where_and_when_it_was_made(written: Callable[[TraceBuilder], Path]) -> None:
    build = TraceBuilder().captured("n7", UTC).gpu(0)
    build.kernel("k", 100, 50, pid=9).kernel("k", 400, 50, pid=9, device=1)
    found = look_at(MemberJob(str(written(build)), default_class_map(), None, resources().limits()))
    assert (found.host, found.utc_ns, found.launches) == ("n7", UTC, 2)
    assert found.window_ns == (UTC + 100, UTC + 450)
    assert [(rank[0] or 0) >> 24 & 0xFFFFFF for rank in found.ranks] == [9, 9]
    assert found.missing is None


def test_a_file_without_kernels_says_why(written: Callable[[TraceBuilder], Path]) -> None:
    found = look_at(
        MemberJob(str(written(TraceBuilder())), default_class_map(), None, resources().limits())
    )
    assert found.missing is not None
    assert "no GPU kernels" in found.missing
    assert found.ranks == ()


def test_different_ranks_at_one_time_are_one_run() -> None:
    second = member("b", host="n2", utc_ns=UTC + 500)
    groups, why = grouped([second, member("a")])
    assert paths(groups) == [["a", "b"]]
    assert "at one time" in why


def test_one_process_id_on_two_hosts_is_two_ranks() -> None:
    groups, _ = grouped([member("a"), member("b", host="n2")])
    assert paths(groups) == [["a", "b"]]
    # Two hosts of one name have GPUs of their own.
    same = [member("a", gpus=("u1",)), member("b", gpus=("u2",))]
    assert paths(grouped(same)[0]) == [["a", "b"]]
    assert labelled(same) == ["n1 #1", "n1 #2"]


def test_one_after_the_other_are_several_runs() -> None:
    later = member("b", host="n2", utc_ns=UTC + 10**10)
    groups, why = grouped([later, member("a")])
    assert paths(groups) == [["a"], ["b"]]
    assert "one after the other" in why


def test_repeated_runs_of_two_nodes_are_told_apart() -> None:
    files = [
        member(f"{node}{turn}", host=node, utc_ns=UTC + turn * 10**10)
        for turn in (1, 0)
        for node in ("n2", "n1")
    ]
    assert paths(grouped(files)[0]) == [["n10", "n20"], ["n11", "n21"]]


def test_copies_are_not_ranks() -> None:
    groups, why = grouped([member("a"), member("copy")])
    assert paths(groups) == [["a"], ["copy"]]
    assert "copies" in why
    with pytest.raises(InputError, match="a and copy cannot be one run: both hold process 5"):
        one_run([member("a"), member("copy")])


def test_without_utc_nothing_is_guessed() -> None:
    files = [member("a"), member("b", host="n2", utc_ns=None)]
    groups, why = grouped(files)
    assert len(groups) == 2
    assert "UTC" in why
    assert paths([one_run(files)]) == [["a", "b"]]


def test_order_is_of_what_files_hold() -> None:
    ranks = [(((1 << 48) | (pid << 24), device),) for pid, device in ((9, 0), (4, 1))]
    files = [
        member("z", host="n2", ranks=ranks[0]), member("y", host="n10", ranks=ranks[0]),
        member("x", host="n2", ranks=ranks[1]),
    ]  # fmt: skip
    assert [one.path for one in in_order(files)] == ["z", "x", "y"]
    assert [one.path for one in in_order(reversed(files))] == ["z", "x", "y"]
    assert natural("node2") < natural("node10") < natural("nodes1")
