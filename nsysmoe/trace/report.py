"""A report as a trace: exported by nsys once, and the export kept."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nsysmoe.cache import Cache, identify_content, open_cache, own_folder
from nsysmoe.export.nsys import export_report, exporter
from nsysmoe.export.sqlite import open_export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nsysmoe.export.sqlite import SqliteExport

_DATA = "export.sqlite"


def report_export(report: Path, nsys: str | None) -> Callable[[], SqliteExport]:
    """Return what opens the export of a report; where none is kept, it is made here and now.

    Raises:
        InputError: There is no nsys, or it could not read the report.
    """
    cache, identity = open_cache(), identify_content(report)
    if cache is None or identity is None:
        export = _exported(report, nsys)
        return lambda: export
    key = Cache.key("export", identity.digest, exporter(nsys))
    if cache.has(key):
        return lambda: _kept(cache, key) or _exported(report, nsys)
    export = _exported(report, nsys)
    if identity.is_settled and identity.is_unchanged():
        cache.put(
            key,
            _DATA,
            lambda path: _copy(export.path, path),
            source=str(report),
            what="export",
            notes={},
        )
    return lambda: export


def _exported(report: Path, nsys: str | None) -> SqliteExport:
    with ExitStack() as failing:
        folder = failing.enter_context(own_folder("export"))
        export = open_export(export_report(report, folder, nsys))
        export.goes_with.push(failing.pop_all())
    return export


def _kept(cache: Cache, key: str) -> SqliteExport | None:
    """Open a kept export under a name of our own: another process may remove the entry."""
    if (entry := cache.get(key)) is None:
        return None
    with ExitStack() as failing:
        own = failing.enter_context(cache.workplace()) / _DATA
        _copy(entry.data, own)
        export = open_export(own)
        export.goes_with.push(failing.pop_all())
    return export


def _copy(source: Path, target: Path) -> None:
    """Link a file that nobody changes any more, or copy it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
