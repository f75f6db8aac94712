"""A command that would not end: ``python -m tests.cli.stuck WAY ARGUMENTS``; says when it waits.

READY   a file that is made as soon as it does (environment)
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.comparing import compare as comparing
from nsysmoe.cache import own_folder
from nsysmoe.cli import main
from nsysmoe.engines.on_ray import RayCluster
from nsysmoe.export.sqlite import SqliteExport
from nsysmoe.trace.store import Store
from tests.engines.tasks import Marked, sleeping

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAYS = (
    "select sum(a.range * b.range) from range(100000000) as a, range(100000000) as b "
    "where (a.range + b.range) % 7 = 3"
)
_DAYS_OF_SQLITE = (
    "with recursive n(i) as (select 1 union all select i + 1 from n) "
    "select count(*) from n where i < 0"
)


def _ready() -> None:
    Path(os.environ["READY"]).touch()


def _in_duckdb(store: Store, *_: Any) -> Any:
    _ready()
    return store.connection.execute(_DAYS).fetchall()


def _in_sqlite(export: SqliteExport, *_: Any) -> None:
    with export._connection() as connection:
        _ready()
        connection.execute(_DAYS_OF_SQLITE).fetchall()


def _deaf(*_: Any, **__: Any) -> Any:
    """Wait in the main thread where nobody can be told, with a folder that must not stay."""
    with own_folder("trace"), closing(sqlite3.connect(":memory:")) as connection:
        _ready()
        return connection.execute(_DAYS_OF_SQLITE).fetchall()


_map = RayCluster.map


def _on_ray(cluster: RayCluster, _task: Any, jobs: Sequence[Any]) -> list[Any]:
    """Wait in workers of the cluster, each of which says so by ``begun`` beside READY."""
    place = str(Path(os.environ["READY"]).parent)
    return _map(cluster, sleeping, [Marked(place, number) for number, _ in enumerate(jobs)])


if __name__ == "__main__":
    way = sys.argv.pop(1)
    owner: Any
    owner, name, stuck = {
        "duckdb": (Store, "relation", _in_duckdb),
        "sqlite": (SqliteExport, "check", _in_sqlite),
        "ray": (RayCluster, "map", _on_ray),
        "deaf": (comparing, "runs_of", _deaf),
    }[way]
    setattr(owner, name, stuck)
    main()
