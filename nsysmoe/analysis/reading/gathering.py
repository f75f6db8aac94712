"""How several files become runs: ranks of one run that were captured apart, or repeated runs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsysmoe.cache import cache_folder
from nsysmoe.classes import default_class_map
from nsysmoe.engines import Here, engine_named
from nsysmoe.errors import InputError
from nsysmoe.export.files import identify, runs_of, size_of
from nsysmoe.findings import Finding
from nsysmoe.resources import resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nsysmoe.classes import ClassMap
    from nsysmoe.engines import Engine
    from nsysmoe.export.files import Source
    from nsysmoe.trace import Trace
    from nsysmoe.trace.member import Member

# Starting processes takes a second, which smaller files do not.
_WORTH_PROCESSES = 256 << 20


@dataclass(frozen=True)
class Gathering:
    """How several files are read.

    Attributes:
        reading: ``one-run`` (each file holds ranks of one run), ``runs`` (each is a run), or None
            to tell by the data.
        engine: Where the work on each file is done: ``here``, ``processes``, ``ray``, or None for
            processes where the files are large.
        workers: Processes at once; one for each thread that may be used where left out.
        ray_address: Where the Ray cluster is.
        scratch: Where parts of files lie while they are put together; a temporary folder where
            left out, for Ray one in the user's cache, which nodes share as a rule.
    """

    reading: Literal["one-run", "runs"] | None = None
    engine: Literal["here", "processes", "ray"] | None = "here"
    workers: int | None = None
    ray_address: str | None = None
    scratch: Path | None = None

    def engine_for(self, paths: Sequence[Path]) -> Engine:
        """Return the engine for some files.

        Raises:
            NsysmoeError: Ray is not installed, or there is no cluster.
        """
        name = self.engine
        if name is None:
            size = sum(map(size_of, paths))
            name = "processes" if size >= _WORTH_PROCESSES else "here"
        return engine_named(name, workers=self.workers, ray_address=self.ray_address)

    @property
    def folder(self) -> Path | None:
        """Where parts are written; None for the system's temporary folder."""
        if self.scratch is not None or self.engine != "ray":
            return self.scratch
        cache = cache_folder()
        return None if cache is None else cache / "scratch"


@dataclass(frozen=True)
class RunFiles:
    """The file of a run, or its files.

    Attributes:
        path: The file; of several, what the user named, or the first one with their number.
        members: What was found in each of several files; empty for one.
        engine: Where they are worked on.
        folder: Where their parts lie meanwhile.
        findings: How they were read, and why.
    """

    path: Path
    members: tuple[Member, ...] = ()
    engine: Engine | None = None
    folder: Path | None = None
    findings: tuple[Finding, ...] = ()

    @contextmanager
    def opened(
        self,
        *,
        class_map: ClassMap | None = None,
        nsys: str | None = None,
        **limits: int | None,
    ) -> Iterator[Trace]:
        """Open the run as one trace.

        Takes what ``open_trace`` does.

        Raises:
            NsysmoeError: A file cannot be used.
        """
        # DuckDB takes longer to import than a kept answer does to read.
        from nsysmoe.trace import open_trace  # noqa: PLC0415

        if not self.members:
            with open_trace(self.path, class_map=class_map, nsys=nsys, **limits) as trace:
                yield trace
            return
        from nsysmoe.trace.merged import MergedTrace  # noqa: PLC0415

        with MergedTrace(
            self.path,
            self.members,
            engine=self.engine or Here(),
            class_map=class_map or default_class_map(),
            limits=resources().limits(**limits),
            nsys=nsys,
            scratch=self.folder,
            said=self.findings,
        ) as merged:
            yield merged


def gathered(
    source: Source,
    gathering: Gathering | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    with_tables: bool = False,
) -> list[RunFiles]:
    """Return the runs that a file, folder, pattern or list of them holds.

    Args:
        source: As ``export.files.runs_of`` takes it.
        gathering: How several files are read.
        class_map: As ``read_run`` takes it.
        nsys: As ``read_run`` takes it.
        with_tables: Whether to count rows of tables.

    Raises:
        NsysmoeError: A file cannot be used, or files cannot be read as asked.
    """
    how = gathering or Gathering()
    paths = runs_of(source)
    is_alone = len(paths) == 1 or how.reading == "runs"
    if is_alone or any(identify(path) == "csv" for path in paths):
        return [RunFiles(path) for path in paths]
    from nsysmoe.trace.members import MemberJob, grouped, look_at, one_run  # noqa: PLC0415

    engine = how.engine_for(paths)
    share = engine.share(len(paths), resources().limits())
    jobs = [
        MemberJob(
            str(path.absolute()),
            class_map or default_class_map(),
            nsys,
            share,
            with_tables,
        )
        for path in paths
    ]
    members = engine.map(look_at, jobs)
    named = {str(path.absolute()): str(path) for path in paths}
    full = [member for member in members if member.missing is None]
    if how.reading == "one-run":
        if not full:
            raise InputError(members[0].missing or "")
        groups, why = [one_run(full)], "as asked (--one-run)"
    else:
        groups, why = grouped(full) if full else ([], "")
    if all(len(group) == 1 for group in groups) and how.reading != "one-run":
        # An empty one is refused where it is read.
        said = _read_as_runs(source, len(paths), why)
        return [RunFiles(path, findings=said) for path in paths]
    empty = [named[member.path] for member in members if member.missing is not None]
    return [
        _run(source, group, engine, how.folder, len(groups), (why, empty), named)
        for group in groups
    ]


def how_read(runs: Sequence[RunFiles]) -> tuple[Finding, ...]:
    """Return what to say of several runs: a run of several files says it where it is read."""
    return () if runs[0].members else runs[0].findings


def only_run(
    source: Source,
    gathering: Gathering | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> RunFiles:
    """Return the one run that a source holds; takes what ``gathered`` does.

    Raises:
        InputError: It holds several.
    """
    runs = gathered(source, gathering, class_map=class_map, nsys=nsys)
    if len(runs) > 1:
        raise InputError(
            f"{source} holds {len(runs)} runs; name one ({runs[0].path}, …), or say --one-run if "
            "they are ranks of one"
        )
    return runs[0]


def _run(  # noqa: PLR0913, PLR0917 - what one finding tells
    source: Source,
    group: list[Member],
    engine: Engine,
    folder: Path | None,
    runs: int,
    told: tuple[str, list[str]],
    named: dict[str, str],
) -> RunFiles:
    why, empty = told
    first = Path(named[group[0].path])
    if len(group) == 1:
        return RunFiles(first)
    is_whole = runs == 1 and isinstance(source, str | Path)
    path = Path(source) if is_whole else first.with_name(f"{first.name} (+{len(group) - 1})")  # type: ignore[arg-type]
    hosts = len({member.machine for member in group})
    ranks = sum(len(member.ranks) for member in group)
    left = f"; {len(empty)} without kernels left out ({empty[0]})" if empty else ""
    return RunFiles(
        path,
        tuple(group),
        engine,
        folder,
        (
            Finding(
                "files_of_one_run",
                "info",
                f"{path}: {len(group)} files read as one run of {ranks} ranks on {hosts} "
                f"{'host' if hosts == 1 else 'hosts'} ({why}; --runs reads each as a run){left}",
                {
                    "files": [named[member.path] for member in group],
                    "ranks": ranks,
                    "hosts": hosts,
                    "left_out": empty,
                },
            ),
        ),
    )


def _read_as_runs(source: Source, files: int, why: str) -> tuple[Finding, ...]:
    shown = source if isinstance(source, str | Path) else "the list"
    return (
        Finding(
            "files_of_several_runs",
            "info",
            f"{shown}: {files} files read as {files} runs ({why}); --one-run reads them as ranks "
            "of one",
            {"files": files},
        ),
    )
