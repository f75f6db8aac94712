"""Ways of getting a kernel table from SQLite into DuckDB, a process each.

The ways that are not installed are left out: `pip install connectorx pandas` adds theirs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from benchmarks.compare import traces
from benchmarks.measure import side_by_side

_SIX = 'rowid, start, "end", deviceId, globalPid, demangledName'
_TABLE = "CUPTI_ACTIVITY_KIND_KERNEL"
_ALL = (
    f"{_SIX}, contextId, streamId, correlationId, shortName, gridX, gridY, gridZ, blockX, blockY, "
    "blockZ, registersPerThread, staticSharedMemory, dynamicSharedMemory, graphNodeId"
)
_WAYS = {
    "adbc": (
        "adbc_driver_sqlite",
        """
from pathlib import Path
from nsysmoe.export.sqlite import open_export
stream = open_export(Path(path)).integers(table, [c.strip(' "') for c in columns.split(",")])
connection.register("incoming", stream)
connection.execute("create table k as select * from incoming")
""",
    ),
    "connectorx": (
        "connectorx",
        """
import connectorx
incoming = connectorx.read_sql(f"sqlite://{path}", f"select {columns} from {table}",
                               return_type="arrow")
connection.execute("create table k as select * from incoming")
""",
    ),
    "sqlite3 fetchmany, pyarrow": (
        "pyarrow",
        """
import sqlite3, pyarrow
cursor = sqlite3.connect(path).execute(f"select {columns} from {table}")
names = [c[0] for c in cursor.description]
first = True
while rows := cursor.fetchmany(100_000):
    incoming = pyarrow.table([pyarrow.array(c, pyarrow.int64()) for c in zip(*rows)], names)
    connection.execute("create table k as select * from incoming" if first
                       else "insert into k select * from incoming")
    first = False
""",
    ),
    "pandas": (
        "pandas",
        """
import sqlite3, pandas
incoming = pandas.read_sql(f"select {columns} from {table}", sqlite3.connect(path))
connection.execute("create table k as select * from incoming")
""",
    ),
}


def _command(body: str, path: str, columns: str) -> list[list[str]]:
    script = (
        f"path, table, columns = {path!r}, {_TABLE!r}, {columns!r}\n"
        f"import duckdb\nconnection = duckdb.connect()\n{body}\n"
        "assert connection.execute('select count(*) from k').fetchone()[0] > 0"
    )
    return [[sys.executable, "-c", script]]


def main() -> None:
    """Run and print: six columns, then twenty."""
    path = traces(1_000_000)[0]
    ways = {name: body for name, (module, body) in _WAYS.items() if find_spec(module)}
    for columns in (_SIX, _ALL):
        print(f"\n{columns.count(',') + 1} columns of 1,000,000 rows")
        order = [name for name in ways if name != "adbc"] + ["adbc"]
        side_by_side({name: _command(ways[name], path, columns) for name in order}, rounds=3)


if __name__ == "__main__":
    main()
