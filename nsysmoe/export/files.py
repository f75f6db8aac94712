"""Telling inputs apart before anything reads them."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsysmoe.errors import InputError
from nsysmoe.export.tables import has_nsys_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Source = str | Path | Sequence[str | Path]

Kind = Literal["sqlite", "report", "csv", "parquetdir"]

_SQLITE_MAGIC = b"SQLite format 3\0"
_REPORT_SUFFIXES = {".nsys-rep", ".qdrep"}
PARQUET = ".parquet"
# How nsys calls the folder of a report where no other name is given.
_FOLDER_SUFFIX = "_pqtdir"
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"\x28\xb5": "unzstd", b"PK": "unzip"}


def identify(path: Path) -> Kind:
    """Tell what kind of input a file or folder is, by its content first and its suffix second.

    Raises:
        InputError: There is no such file, it cannot be read, or it is none of the kinds.
    """
    if is_parquetdir(path):
        return "parquetdir"
    head = _head(path)
    if head.startswith(_SQLITE_MAGIC):
        return "sqlite"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "csv"
    if path.suffix in _REPORT_SUFFIXES:
        return "report"
    if not head:
        raise InputError(f"{path} is empty; export the report again: {export_hint(path)}")
    if tool := _COMPRESSED.get(head[:2]):
        raise InputError(f"{path} is compressed; unpack it first: {tool} {path}")
    if path.suffix.lower() in {".csv", ".tsv", ".txt"} or _is_text(head):
        return "csv"
    raise InputError(f"{path} is not a SQLite database; export the report: {export_hint(path)}")


def is_parquetdir(path: Path) -> bool:
    """Tell whether a folder is what ``nsys export --type parquetdir`` wrote."""
    if not path.is_dir():
        return False
    return has_nsys_tables(file.name.removesuffix(PARQUET) for file in path.glob(f"*{PARQUET}"))


def runs_of(source: Source) -> list[Path]:
    """Return the files of an arm, a run each, in order of their names.

    Args:
        source: A file, or a folder of tables; a folder, whose exports and reports are the runs
            (those of its folders where it has none itself); a glob pattern of files and of
            folders; or a sequence of these.

    Raises:
        InputError: A folder or pattern holds no run.
    """
    if not isinstance(source, str | Path):
        return [path for one in source for path in runs_of(one)]
    path = Path(source)
    if path.is_dir() and not is_parquetdir(path):
        found = _traces(_listed(path)) or _traces(path.glob("*/*"))
        if not found:
            raise InputError(
                f"{path} is a directory without .sqlite exports, folders of nsys's Parquet tables "
                "or .nsys-rep reports; name a file"
            )
        return found
    if not path.exists() and glob.has_magic(str(source)):
        found = sorted(Path(name) for name in glob.glob(str(source), recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not found:
            raise InputError(f"{source} matches no file; check the pattern")
        # A pattern may match a folder and the traces in it.
        return list(dict.fromkeys(trace for path in found for trace in runs_of(path)))
    return [path]


def trace_of(source: str | Path) -> Path:
    """Return the one trace that a path names: a file, or what lies in the folder of a run.

    Raises:
        InputError: A folder or pattern holds no trace, or several.
    """
    found = runs_of(source)
    if len(found) > 1:
        raise InputError(
            f"{source} holds {len(found)} traces, and one is asked for; name it: {found[0]}, …"
        )
    return found[0]


def _traces(paths: Iterable[Path]) -> list[Path]:
    """Return exports and reports; a report beside its own export is left out.

    Of a report that was exported in both forms, the SQLite file stands for it.
    """
    found = {path: form for path in paths if (form := _form(path)) is not None}
    best: dict[Path, Path] = {}
    for path in sorted(found, key=lambda path: (_FORMS.index(found[path]), path)):
        best.setdefault(_report_of(path), path)
    return sorted(best.values())


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}); check the path and its rights"
        ) from error


_FORMS = ("sqlite", "parquetdir", "report")


def _form(path: Path) -> str | None:
    if path.is_dir():
        return "parquetdir" if is_parquetdir(path) else None
    if path.suffix == ".sqlite":
        return "sqlite"
    return "report" if path.suffix in _REPORT_SUFFIXES else None


def _report_of(path: Path) -> Path:
    """Return the name that the forms of one report share."""
    if path.suffix == ".sqlite" or path.suffix in _REPORT_SUFFIXES:
        return path.with_suffix("")
    return path.with_name(path.name.removesuffix(_FOLDER_SUFFIX))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files of a folder; 0 where there is none."""
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def export_hint(path: Path) -> str:
    """Return the command that makes a SQLite export for an input called ``path``."""
    report = path.name if path.suffix in _REPORT_SUFFIXES else f"{path.stem}.nsys-rep"
    return f"nsys export --type sqlite -o {path.stem}.sqlite {report}"


def _head(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory; name the .sqlite file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a regular file; name a file on disk")
        with path.open("rb") as file:
            return file.read(4096)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{path} cannot be read ({reason}); check the path and its rights"
        ) from error


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and b"," in head and b"Name" in head
