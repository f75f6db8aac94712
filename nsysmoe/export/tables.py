"""What every form of an export has in common: tables, their columns, and texts to be mended."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_REPLACEMENT = "\ufffd"
# Any of these says that nsys made the file: some lack one, none lacks all.
_NSYS_TABLES = (
    "stringids",
    "target_info_session_start_time",
    "analysis_details",
    "meta_data_export",
    "export_meta_data",
)


class Stream(Protocol):
    """Arrow record batches that are read once, by any consumer of Arrow's C stream interface."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the stream out."""

    def close(self) -> None:
        """Free what it reads from."""


class Export(Protocol):
    """What a trace asks an export, whatever form it has.

    Attributes:
        path: The file or folder.
        tables: Table name to its columns, both spelt as in the export.
        repaired: The texts that held NUL bytes or invalid UTF-8 and were mended so far, as read.
    """

    path: Path
    tables: dict[str, tuple[str, ...]]
    repaired: set[bytes]

    @property
    def size(self) -> int:
        """Bytes that a SQLite file of it has, roughly."""

    def has_table(self, table: str) -> bool:
        """Tell whether the export holds a table (it may still have no rows)."""

    def has_column(self, table: str, column: str) -> bool:
        """Tell whether a table has a column; every table has ``rowid``."""

    def count_rows(self, table: str) -> int:
        """Return the number of rows of a table, 0 where there is none."""

    def has_rows(self, table: str) -> bool:
        """Tell whether a table exists and has a row."""

    def integers(self, table: str, columns: Sequence[str]) -> Stream:
        """Return integer columns of a table; a value that is no integer ends it with an error."""

    def rows(
        self, table: str, columns: Sequence[str], condition: str = "1"
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a table for which a condition of ours (SQLite's SQL) holds."""

    def strings(self, ids: Iterable[int]) -> dict[int, str]:
        """Return the texts of ``StringIds`` for some ids; an id that it lacks is left out."""

    def check(self, tables: Iterable[str]) -> None:
        """Refuse an export whose pages do not hold together."""

    def close(self) -> None:
        """Remove what was made for this export alone."""


@dataclass
class Tables:
    """The tables of one export.

    Attributes:
        path: As ``Export`` has it.
        tables: The same.
        repaired: The same.
        goes_with: What is closed with the export: a folder, where it was made for this alone.
    """

    path: Path
    tables: dict[str, tuple[str, ...]]
    repaired: set[bytes] = field(default_factory=set, init=False)
    goes_with: ExitStack = field(default_factory=ExitStack, init=False)

    def close(self) -> None:
        """Remove what was made for this export alone."""
        self.goes_with.close()

    @cached_property
    def _columns(self) -> dict[str, frozenset[str]]:
        """Lower-case names, since SQLite does not tell cases apart."""
        return {
            table.lower(): frozenset(column.lower() for column in columns)
            for table, columns in self.tables.items()
        }

    def has_table(self, table: str) -> bool:
        """Tell whether the export holds a table (it may still have no rows)."""
        return table.lower() in self._columns

    def has_column(self, table: str, column: str) -> bool:
        """Tell whether a table has a column; every table has ``rowid``."""
        return column == "rowid" or self._has_own(table, column)

    def _has_own(self, table: str, column: str) -> bool:
        """Tell whether the table itself holds a column of the name."""
        return column.lower() in self._columns.get(table.lower(), frozenset())

    @property
    def is_nsys(self) -> bool:
        """Whether the tables are nsys's."""
        return has_nsys_tables(self._columns)

    def _mended(self, value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        text = value.decode("utf-8", "replace").replace("\0", _REPLACEMENT)
        if text.encode() != value:
            self.repaired.add(value)
        return text

    def _add_text(self, found: dict[int, str], key: int, value: Any, hint: str) -> None:
        """Add a text of ``StringIds``; one that an id has twice must be the same.

        Raises:
            InputError: It is another one.
        """
        text = str(self._mended(value))
        if found.setdefault(key, text) != text:
            raise InputError(
                f"{self.path}: StringIds has the id {key} with two texts; export the report "
                f"again: {hint}"
            )


def has_nsys_tables(names: Iterable[str]) -> bool:
    """Tell whether any of some names is that of a table of nsys's, in any case."""
    return any(
        name.lower() in _NSYS_TABLES or name.lower().startswith("cupti_activity_kind_")
        for name in names
    )
