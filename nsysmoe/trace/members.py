"""The files of a folder: where each was captured and when, and which of them are one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError
from nsysmoe.trace.member import Member
from nsysmoe.trace.trace import open_trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nsysmoe.classes import ClassMap
    from nsysmoe.resources import Limits


@dataclass(frozen=True)
class MemberJob:
    """Which file to look at, and how."""

    path: str
    class_map: ClassMap
    nsys: str | None
    limits: Limits
    with_tables: bool = False


def look_at(job: MemberJob) -> Member:
    """Return a file's place among others.

    Raises:
        NsysmoeError: The file cannot be used.
    """
    with open_trace(job.path, class_map=job.class_map, nsys=job.nsys, **vars(job.limits)) as trace:
        export, gpus = trace.row("export_info"), trace.rows("gpus")
        devices = trace.rows("devices") if trace.has_kernels() else []
        tables = trace.source_rows() if job.with_tables else {}
        return Member(
            path=job.path,
            host=export["host"],
            gpus=tuple(sorted(gpu["uuid"] for gpu in gpus if gpu["uuid"])),
            utc_ns=_utc(export),
            ranks=tuple(
                sorted(
                    ((row["global_pid"], row["device_id"]) for row in devices),
                    key=lambda rank: (rank[0] is not None, rank),
                )
            ),
            launches=sum(row["launches"] for row in devices),
            first_ns=min((row["first_start_ns"] for row in devices), default=0),
            last_ns=max((row["last_end_ns"] for row in devices), default=0),
            missing=None if devices else str(trace.no_kernels()),
            tables=tables,
            other_tables=len(trace.table_names()) - len(tables),
            export=export,
        )


def _utc(export: dict[str, Any]) -> int | None:
    """Return what an export's times are short of UTC."""
    shift = export["time_shift_ns"] or 0
    if export["is_time_normalized"]:
        return -int(shift)
    zero = export["utc_zero_ns"]
    return None if zero is None else int(zero) - int(shift)


def in_order(members: Iterable[Member]) -> list[Member]:
    """Return files in the order of what they hold: names and the order given mean nothing."""
    return sorted(
        members,
        key=lambda member: (
            member.machine,
            tuple((rank[1], rank[0] or 0) for rank in member.ranks),
            member.utc_ns or 0,
            member.first_ns,
            member.launches,
        ),
    )


def shared_rank(members: Sequence[Member]) -> tuple[Member, Member] | None:
    """Return two files that hold one rank (the same process and device of one machine)."""
    seen: dict[Any, Member] = {}
    for member in members:
        for rank in member.ranks:
            # Old exports name no process: then the file is one.
            key = (member.machine, rank) if rank[0] is not None else (member.path, rank)
            if key in seen and seen[key] is not member:
                return seen[key], member
            seen[key] = member
    return None


def one_run(members: Sequence[Member]) -> list[Member]:
    """Return files as one run, in order; hosts that only their order tells apart are numbered.

    Raises:
        InputError: Two files hold one rank at the same time.
    """
    if (twice := shared_rank(members)) is not None:
        first, second = twice
        process = next(rank for rank in first.ranks if rank in second.ranks)
        pid = "-" if process[0] is None else (process[0] >> 24) & 0xFFFFFF
        raise InputError(
            f"{first.path} and {second.path} cannot be one run: both hold process {pid} on device "
            f"{process[1]} of {first.host or 'one host'}; leave one out, or read them as --runs"
        )
    return in_order(members)


def grouped(members: Sequence[Member]) -> tuple[list[list[Member]], str]:
    """Tell which files are one run and which are repeated ones, and why.

    Files whose kernels ran at the same time (UTC) on different ranks are one run. A rank runs one
    thing at a time: files that share one are different runs, or copies.

    Returns:
        Groups of files, a run each, in order of time; why they are so.
    """
    alone = [[member] for member in members]
    if any(member.window_ns is None for member in members):
        return alone, "the exports do not tell when (UTC) they were made"
    groups = _overlapping(members)
    if len(groups) == len(members):
        return groups, "made one after the other"
    if any(shared_rank(group) for group in groups):
        return alone, "some hold the same rank at the same time (copies?)"
    return [in_order(group) for group in groups], "made at one time (UTC), on different ranks"


def _overlapping(members: Sequence[Member]) -> list[list[Member]]:
    """Return the files whose windows overlap, those that do so through others included."""
    groups: list[list[Member]] = []
    until = 0
    for member in sorted(members, key=lambda member: member.window_ns or (0, 0)):
        start, end = member.window_ns or (0, 0)
        if groups and start < until:
            groups[-1].append(member)
            until = max(until, end)
        else:
            groups.append([member])
            until = end
    return groups


def labelled(members: Sequence[Member]) -> list[str]:
    """Return the name of each file's machine; machines of one name get a number."""
    machines = list(dict.fromkeys(member.machine for member in members))
    names = {member.machine: member.host or "unnamed host" for member in members}
    plain = [names[machine] for machine in machines]
    told = {
        machine: name if plain.count(name) == 1 else f"{name} #{plain[: place + 1].count(name)}"
        for place, (machine, name) in enumerate(zip(machines, plain, strict=True))
    }
    return [told[member.machine] for member in members]
