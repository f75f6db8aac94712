"""From any routing log to one Parquet file, in batches of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, OutputError
from nsysmoe.routing.documents import read_archive, read_array, read_document
from nsysmoe.routing.forms import SCHEMAS, Source, Tally
from nsysmoe.routing.jsonl import jsonl_level, read_counts, read_routes
from nsysmoe.routing.sglang import read_recorder
from nsysmoe.routing.tables import read_table, table_level
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from nsysmoe.routing.forms import Level

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
        level, batches = "counts", read_recorder(path)
    elif path.suffix in {".csv", ".parquet"}:
        level = table_level(path)
        batches = read_table(path, level)
    else:
        raise _unknown(path)
    return Source(path, level, _named(path, batches), tally)


def _named(path: Path, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Call a run after the folder where its layers lie in files of their own."""
    import polars as pl  # noqa: PLC0415 - slow to import

    is_layer = path.stem.startswith("gate_logs_")
    run = path.absolute().parent.name
    for batch in batches:
        yield batch.with_columns(run=pl.lit(run)) if is_layer else batch


def _unknown(path: Path) -> InputError:
    return InputError(f"{path} is no routing log by its name: {', '.join(SUFFIXES)}")


def logs_of(paths: Sequence[Path]) -> list[Path]:
    """Return the logs, those of folders in the order of names.

    Raises:
        InputError: A folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
        if not inside:
            raise InputError(f"{path} holds no routing log ({', '.join(SUFFIXES)})")
        found += inside
    return found


def convert(paths: Sequence[Path], output: Path, *, keep_dummy: bool = False) -> Converted:
    """Write the logs to one Parquet file, whole or not at all.

    Gate logs of one folder are layers of one run: the run is called after the folder.

    Args:
        paths: Logs, or folders of them; all of one level.
        output: The Parquet file.
        keep_dummy: Keep rows of the engine's dummy runs.

    Raises:
        InputError: A log cannot be used; nothing is written then.
        OutputError: The file cannot be written.
    """
    logs = logs_of(paths)
    if any(output.exists() and log.exists() and output.samefile(log) for log in logs):
        raise OutputError(f"{output} is an input of this command; choose another name for -o")
    try:
        with whole_file(output) as partial:
            return _write(logs, partial, keep_dummy=keep_dummy)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror})") from error


def _write(logs: Sequence[Path], target: Path, *, keep_dummy: bool) -> Converted:
    import polars as pl  # noqa: PLC0415 - slow to import
    from pyarrow import parquet  # noqa: PLC0415

    sources = [open_log(log, keep_dummy=keep_dummy) for log in logs]
    level = sources[0].level
    if odd := [source for source in sources if source.level != level]:
        raise InputError(
            f"{odd[0].path} holds {odd[0].level}, {sources[0].path} {level}: load them apart"
        )
    rows = 0
    schema = pl.DataFrame(schema=SCHEMAS[level]).to_arrow().schema
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for source in sources:
            for batch in source.batches:
                writer.write_table(batch.to_arrow().cast(schema))
                rows += batch.height
    return Converted(
        level,
        len(sources),
        rows,
        sum(source.tally.dummy_rows for source in sources),
        sum(source.tally.dummy_tokens for source in sources),
    )
