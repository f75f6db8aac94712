"""What is worked out of each file of a run by itself, wherever that is done.

A part is a view that knows nothing of other files. The views that look across ranks stand on parts
alone (``merged.py``), so that only they need all files at once.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError
from nsysmoe.trace.trace import open_trace

if TYPE_CHECKING:
    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding
    from nsysmoe.resources import Limits

# Worked out of each file before the others are known.
FIRST = frozenset(
    {
        "staging.stg_kernel_totals",
        "staging.stg_collective_events",
        "staging.stg_collective_progress",
        "staging.stg_moe_around",
        "staging.stg_moe_places",
        "staging.stg_rank_periods",
        "staging.stg_stepping_processes",
        "staging.stg_processes",
        "main.code_loads",
        "main.collective_steps",
        "main.devices",
        "main.diagnostics",
        "main.gpus",
        "main.graph_launches",
        "main.host_gaps",
        "main.moe_kernels",
        "main.steps",
    }
)
# Worked out of each file once it is known which collectives met, and which phase MoE kernels are
# in: both take all ranks.
SECOND = frozenset(
    {
        "main.device_steps",
        "main.device_time",
        "main.idle_causes",
        "main.idle_gaps",
        "main.silent_gaps",
    }
)
GIVEN = ("main.moe_launches", "main.matched_collectives")
# Parts whose names and communicators are numbered file by file.
NAMED = frozenset({"staging.stg_collective_events", "main.moe_kernels"})
# Parts that tell of a host: files of one host tell the same.
OF_A_HOST = frozenset({"staging.stg_processes", "main.gpus"})

_FUNCTIONS = "nsysmoe.kernel_functions"
_COMMUNICATORS = "staging.stg_communicators"


@dataclass(frozen=True)
class PartJob:
    """What is to be worked out of one file.

    Attributes:
        path: The file.
        folder: Where the parts are written; every worker and the one who asks see it.
        wanted: Views and their columns.
        given: Kept tables that were worked out over all files, as Parquet of this file's rows.
        class_map: What each kernel is for.
        nsys: The ``nsys`` that exports a report.
        limits: What the work on it may use.
    """

    path: str
    folder: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    given: tuple[tuple[str, str], ...]
    class_map: ClassMap
    nsys: str | None
    limits: Limits


@dataclass(frozen=True)
class Parts:
    """What was worked out of one file.

    Attributes:
        files: View to the Parquet file that holds its rows.
        functions: Rows of ``kernel_functions``, where a part refers to names.
        communicators: Number to text, where a part refers to communicators.
        findings: What was odd about the file.
        cpu_s: What it took of all cores, s.
    """

    files: dict[str, str]
    functions: tuple[tuple[Any, ...], ...] = ()
    communicators: tuple[tuple[int, str], ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    cpu_s: float = 0.0


def make_parts(job: PartJob) -> Parts:
    """Work the parts of one file out; what is written has a name that no other attempt has.

    Raises:
        NsysmoeError: The file cannot be used.
    """
    begin = time.process_time()
    with open_trace(job.path, class_map=job.class_map, nsys=job.nsys, **vars(job.limits)) as trace:
        for table, given in job.given:
            trace.give(table, given)
        trace.read_views(job.wanted)
        files = {
            view: _written(trace.view_batches(view, columns), Path(job.folder))
            for view, columns in job.wanted
        }
        views = {view for view, _ in job.wanted}
        named, met = views & NAMED, "staging.stg_collective_events" in views
        return Parts(
            files,
            tuple(trace.view_rows(_FUNCTIONS)) if named else (),
            tuple(
                (number, text) for text, number in (trace.view_rows(_COMMUNICATORS) if met else ())
            ),
            tuple(trace.findings()),
            time.process_time() - begin,
        )


def _written(reader: Any, folder: Path) -> str:
    """Write batches as Parquet under a name that nobody learns before the file is whole."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - with what needs it

    target = folder / f"{uuid.uuid4().hex}.parquet"
    try:
        with pq.ParquetWriter(target, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({os.strerror(error.errno or errno.EIO)}); name another "
            "folder with --scratch"
        ) from error
    return str(target)
