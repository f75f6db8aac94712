"""From any routing log to one Parquet file, in batches of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, OutputError
from nsysmoe.routing.documents import read_archive, read_array, read_document
from nsysmoe.routing.forms import SCHEMAS, Source, Tally
from nsysmoe.routing.jsonl import jsonl_level, read_counts, read_routes
from nsysmoe.routing.labels import Labels
from nsysmoe.routing.sglang import read_recorder
from nsysmoe.routing.tables import read_table, table_level
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from nsysmoe.routing.forms import Level

_NO_LABELS = Labels()
# What a captured run keeps; the first is made from the second.
PARQUET, ARRAYS = "routing.parquet", "routing.npz"
SUFFIXES = (".npz", ".npy", ".json", ".jsonl", ".pt", ".csv", ".parquet")


@dataclass(frozen=True)
class Converted:
    """What went into a Parquet file.

    Attributes:
        level: What a row is: a choice (``tokens``), or a count of them.
        files: Logs read.
        rows: Rows written.
        dummy_rows: Choices of the engine's dummy runs, dropped unless kept.
        dummy_tokens: Routes of them.
    """

    level: Level
    files: int
    rows: int
    dummy_rows: int
    dummy_tokens: int


def open_log(path: Path, *, keep_dummy: bool = False) -> Source:
    """Tell what a log is, by its suffix and its content; rows are read as they are taken.

    Raises:
        InputError: It is no routing log that we know.
    """
    tally = Tally()
    batches: Iterator[pl.DataFrame]
    level: Level = "tokens"
    if path.suffix == ".npz":
        batches = read_archive(path)
    elif path.suffix == ".npy":
        batches = read_array(path)
    elif path.suffix == ".json":
        level, batches = read_document(path)
    elif path.suffix == ".jsonl":
        level = jsonl_level(path)
        lines = read_routes(path, tally, keep_dummy=keep_dummy)
        batches = read_counts(path) if level == "counts" else lines
    elif path.suffix == ".pt":
        level, batches = read_recorder(path)
    elif path.suffix in {".csv", ".parquet"}:
        level = table_level(path)
        batches = read_table(path, level)
    else:
        raise _unknown(path)
    return Source(path, level, _named(path, batches), tally)


def _named(path: Path, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Call a run after its folder where its files are called as those of any other run."""
    import polars as pl  # noqa: PLC0415 - slow to import

    folder = path.absolute().parent
    run = folder.name if path.stem.startswith("gate_logs_") else None
    if path.name == ARRAYS:
        run = f"{folder.parent.name}/{folder.name}"
    for batch in batches:
        yield batch if run is None else batch.with_columns(run=pl.lit(run))


def _unknown(path: Path) -> InputError:
    return InputError(f"{path} is no routing log by its name: {', '.join(SUFFIXES)}")


def logs_of(paths: Sequence[Path]) -> list[Path]:
    """Return the logs, those of folders in the order of names.

    Of a captured run, or of a folder of such, the routing that it kept.

    Raises:
        InputError: A folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = _inside(path)
        if not inside:
            raise InputError(f"{path} holds no routing log ({', '.join(SUFFIXES)})")
        found += inside
    return found


def _inside(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    if kept := _kept(folder):
        return kept
    found = [each for each in entries if each.suffix in SUFFIXES]
    return found or [log for each in entries if each.is_dir() for log in _kept(each)]


def _kept(folder: Path) -> list[Path]:
    """Return the routing of a captured run."""
    there = (folder / name for name in (PARQUET, ARRAYS))
    return [path for path in there if path.is_file()][:1]


def convert(  # noqa: PLR0913 - what one file is made of, by keyword
    paths: Sequence[Path],
    output: Path,
    *,
    keep_dummy: bool = False,
    labels: Labels = _NO_LABELS,
    run: str | None = None,
    beside: Sequence[Path] = (),
) -> Converted:
    """Write the logs to one Parquet file, whole or not at all.

    Gate logs of one folder are layers of one run: the run is called after the folder.

    Args:
        paths: Logs, or folders of them; all of one level.
        output: The Parquet file.
        keep_dummy: Keep rows of the engine's dummy runs.
        labels: What stands beside the logs and belongs to their rows.
        run: What to call the run; None for what the logs or their names say.
        beside: Files that the labels are from, which are not written over either.

    Raises:
        InputError: A log cannot be used; nothing is written then.
        OutputError: The file cannot be written.
    """
    logs = logs_of(paths)
    inputs = [path for path in (*logs, *beside) if path.exists()]
    if output.exists() and any(output.samefile(path) for path in inputs):
        raise OutputError(f"{output} is an input of this command; choose another name for -o")
    try:
        with whole_file(output) as partial:
            sources = [open_log(log, keep_dummy=keep_dummy) for log in logs]
            return _write(sources, partial, labels, run)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror})") from error


def _write(sources: Sequence[Source], target: Path, labels: Labels, run: str | None) -> Converted:
    import polars as pl  # noqa: PLC0415 - slow to import
    from pyarrow import parquet  # noqa: PLC0415

    level = sources[0].level
    if odd := [source for source in sources if source.level != level]:
        raise InputError(
            f"{odd[0].path} holds {odd[0].level}, {sources[0].path} {level}: load them apart"
        )
    rows = 0
    schema = pl.DataFrame(schema=SCHEMAS[level]).to_arrow().schema
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for source in sources:
            for batch in labels.labelled(source):
                named = batch if run is None else batch.with_columns(run=pl.lit(run))
                writer.write_table(named.to_arrow().cast(schema))
                rows += batch.height
    return Converted(
        level,
        len(sources),
        rows,
        sum(source.tally.dummy_rows for source in sources),
        sum(source.tally.dummy_tokens for source in sources),
    )
