"""The table of a sweep: one row a run, in Parquet, CSV or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, MissingDataError, OutputError
from nsysmoe.sweep.results import MEASURED
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

# What the figures of the paper show, and what each is called.
MEASURES = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "requests_per_s": "Request throughput",
    "output_tokens_per_s": "Output throughput",
}
# Short names that a user may give a column.
SHORT = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "request_throughput": "requests_per_s",
    "throughput": "output_tokens_per_s",
    "output_throughput": "output_tokens_per_s",
}
EXPECTED_SCORE = "expected_score"
OBSERVED_CV = "observed_cv"
ROUTING = "routing"
UNKNOWN = "unknown"
POINT = "point"
RUNS = "runs"


def read_table(path: Path) -> pl.DataFrame:
    """Read a table by its suffix: ``.parquet``, ``.csv``, or ``.json`` with a list of objects.

    A ``routing`` that is null becomes ``unknown``.

    Raises:
        InputError: It cannot be read.
        MissingDataError: It has no row.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": _read_parquet,
        ".csv": pl.read_csv,
        ".json": pl.read_json,
    }
    if (reader := readers.get(path.suffix.lower())) is None:
        raise InputError(f"{path} is no table: it must end in .parquet, .csv or .json")
    try:
        frame = reader(path)
    except OSError as error:
        # Those of pyarrow and polars name no reason.
        unnamed = "not of that format" if path.exists() else "No such file or directory"
        reason = error.strerror or unnamed
        raise InputError(f"{path} cannot be read ({reason}); check the path") from error
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is no {path.suffix[1:]} that can be read ({reason})") from error
    if frame.is_empty():
        raise MissingDataError(f"{path} has no row")
    if ROUTING not in frame.columns:
        return frame
    # Results that do not tell are a group of their own, with a name.
    return frame.with_columns(pl.col(ROUTING).cast(pl.String).fill_null(UNKNOWN))


def _read_parquet(path: Path) -> pl.DataFrame:
    """Read through pyarrow: over some damaged files, polars ends the process."""
    import polars as pl  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        table = parquet.read_table(path)
        table.validate(full=True)
        # Without metadata: polars takes theirs for UTF-8 without looking.
        plain = [pl.Series(column) for column in table.columns]
        return pl.DataFrame(dict(zip(table.column_names, plain, strict=True)))
    # UnicodeDecodeError: the names of columns are read as they are.
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no parquet that can be read ({error})") from error


def numeric_column(frame: pl.DataFrame, asked: str, where: str) -> str:
    """Return the name of a column of numbers, by its own or a short name.

    Raises:
        MissingDataError: There is none.
    """
    name = asked if asked in frame.columns else SHORT.get(asked, asked)
    numeric = [column for column in frame.columns if frame[column].dtype.is_numeric()]
    if name not in frame.columns:
        raise MissingDataError(f"{where} has no column {asked}; numbers are in {_listed(numeric)}")
    if name not in numeric:
        raise MissingDataError(f"column {name} of {where} holds no number in any row")
    return name


def means_by_point(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a row a point: numbers as means over its repeats, other columns as in the first.

    A frame without ``point`` comes back as it is. Runs of one point share their settings and
    prompts: as rows of their own they would pretend to be more evidence than they are.
    """
    import polars as pl  # noqa: PLC0415
    import polars.selectors as cs  # noqa: PLC0415

    if POINT not in frame.columns:
        return frame
    keys = [POINT]
    # Ours takes the place of a column of that name.
    others = ~cs.by_name(*keys, RUNS, require_all=False)
    return frame.group_by(keys, maintain_order=True).agg(
        (others & ~cs.numeric()).first(), (others & cs.numeric()).mean(), pl.len().alias(RUNS)
    )


def varied_settings(frame: pl.DataFrame) -> list[str]:
    """Return the settings that differ between points of one routing, ``dataset`` among them."""
    import polars as pl  # noqa: PLC0415

    apart = {*MEASURED, EXPECTED_SCORE, OBSERVED_CV, ROUTING, POINT, RUNS, "repeat"}
    settings = [name for name in frame.columns if name not in apart]
    if not settings:
        return []
    most = frame.group_by(ROUTING).agg(pl.col(settings).n_unique()).select(pl.col(settings).max())
    return [name for name in settings if most[name].item() > 1 and not _is_measured(frame[name])]


def _is_measured(values: pl.Series) -> bool:
    """Tell fractions of which each point has its own: nobody set them."""
    # Means over repeats made decimals of whole numbers, too.
    if not values.dtype.is_float() or values.n_unique() < values.len():
        return False
    return bool((values != values.round()).any())


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all.

    Raises:
        OutputError: It cannot be written, or is not called so.
    """
    if path.suffix != ".parquet":
        raise OutputError(f"{path} must end in .parquet")
    try:
        with whole_file(path) as partial:
            frame.write_parquet(partial)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error
