"""What a model did with padding: the folder of ``nsysmoe padding run``, written and read.

``run.json`` tells the runs and their times; ``counts.npz`` holds choices by batch, layer and
expert; ``choices-RUN.npz`` those of each token. All of that is written with numpy alone, where
the model runs. ``routing/RUN.parquet`` is made of it where polars is installed: the form of
``routing load`` with a column ``padding``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.bounded_files import read_json
from nsysmoe.errors import InputError, OutputError
from nsysmoe.stopping import undone
from nsysmoe.whole_files import PARTIAL, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Level

    Counts = NDArray[np.int64]

SCHEMA_VERSION = 1
RECORD = "run.json"
COUNTS = "counts.npz"
ROUTING = "routing"
BASELINE = "baseline"
REROUTED = "rerouted"
REAL = "real"
PADDING = "padding"
_LARGEST_BYTES = 4 << 30
_NEEDED = ("model", "layers", "experts", "top_k", "runs")
_NEEDED_OF_RUN = ("setting", "sorted", "arms", "batches", "times")


@dataclass(frozen=True)
class Padded:
    """What was measured.

    Attributes:
        folder: Where it lies.
        record: ``run.json``: the model and its ``runs``, one a setting and order.
        counts: Choices, int64 [batches, layers, experts], by ``counts_name``.
    """

    folder: Path
    record: dict[str, Any]
    counts: Mapping[str, Counts]


@dataclass(frozen=True)
class ChoicesOfBatch:
    """Experts of every token of a batch.

    Attributes:
        prompts: Numbers of the prompts, shape [prompts].
        mask: 0 for padding, shape [prompts, tokens].
        experts: Shape [layers, prompts * tokens, k].
    """

    prompts: NDArray[np.integer]
    mask: NDArray[np.integer]
    experts: NDArray[np.integer]


def run_name(setting: str, *, is_sorted: bool) -> str:
    """Name a setting in an order: ``8x50-sorted``."""
    return f"{setting}-{'sorted' if is_sorted else 'unsorted'}"


def counts_name(run: str, arm: str, which: str) -> str:
    """Name the counts of a run's arm (``baseline``, ``rerouted``) over real tokens or padding."""
    return f"{run}-{arm}-{which}"


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``target`` when the block ends well.

    Raises:
        OutputError: The target holds something already, or cannot be made.
    """
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target} holds something already; name a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=PARTIAL))
    except OSError as error:
        raise OutputError(f"{target} cannot be a folder ({error.strerror})") from error
    try:
        with undone(lambda: shutil.rmtree(partial, ignore_errors=True)):
            yield partial
            partial.chmod(0o755)
            if target.exists():
                target.rmdir()
            partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_record(folder: Path, record: dict[str, Any], counts: Mapping[str, Counts]) -> None:
    """Write ``run.json`` and ``counts.npz``."""
    small: dict[str, Any] = {name: _small(value) for name, value in counts.items()}
    np.savez_compressed(folder / COUNTS, **small)
    text = json.dumps({"schema_version": SCHEMA_VERSION, **record}, indent=1)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def write_choices(folder: Path, name: str, batches: Sequence[ChoicesOfBatch]) -> None:
    """Write the choices of each token of a run's arm."""
    arrays: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        arrays[f"prompts{number}"] = batch.prompts
        arrays[f"mask{number}"] = batch.mask.astype(np.uint8)
        arrays[f"experts{number}"] = _small(batch.experts)
    np.savez_compressed(_choices_path(folder, name), **arrays)


def read_padded(folder: Path) -> Padded:
    """Read what was measured.

    Raises:
        InputError: The folder is not of ``nsysmoe padding run``, or damaged.
    """
    record = _record(folder / RECORD)
    counts = {name: value.astype(np.int64) for name, value in _arrays(folder / COUNTS).items()}
    shape = (record["layers"], record["experts"])
    for run in record["runs"]:
        for arm in run["arms"]:
            for which in (REAL, PADDING):
                name = counts_name(run_name(run["setting"], is_sorted=run["sorted"]), arm, which)
                found = counts.get(name)
                if found is None or found.shape != (len(run["batches"]), *shape):
                    raise InputError(f"{folder / COUNTS} does not hold {name} as {RECORD} tells it")
    return Padded(folder, record, counts)


def write_routing(padded: Padded) -> list[Path]:
    """Write a Parquet file for each run and arm that has none yet, in the form of routing logs.

    A row is a choice where choices were kept (those files are removed then), else a count.

    Returns:
        What was written.

    Raises:
        InputError: Choices are damaged.
        OutputError: A file cannot be written.
    """
    target = padded.folder / ROUTING
    written = []
    try:
        target.mkdir(exist_ok=True)
        for run in padded.record["runs"]:
            for arm in run["arms"]:
                name = f"{run_name(run['setting'], is_sorted=run['sorted'])}-{arm}"
                path = target / f"{name}.parquet"
                if not path.exists():
                    _write_parquet(padded, run, arm, path)
                    written.append(path)
                _choices_path(padded.folder, name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror})") from error
    return written


def _write_parquet(padded: Padded, run: dict[str, Any], arm: str, path: Path) -> None:
    import polars as pl  # noqa: PLC0415 - not where the model runs
    from pyarrow import parquet  # noqa: PLC0415

    from nsysmoe.routing.forms import SCHEMAS  # noqa: PLC0415

    name = path.stem
    source = _choices_path(padded.folder, name)
    level: Level = "tokens" if source.exists() else "counts"
    frames = _choice_frames(source, name) if source.exists() else _count_frames(padded, run, arm)
    kinds = pl.Schema({**SCHEMAS[level], "padding": pl.Boolean})
    schema = pl.DataFrame(schema=kinds).to_arrow().schema
    with (
        whole_file(path) as partial,
        parquet.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        for frame in frames:
            whole = frame.select(
                (pl.col(each) if each in frame.columns else pl.lit(None)).cast(kind).alias(each)
                for each, kind in kinds.items()
            )
            writer.write_table(whole.to_arrow().cast(schema))


def _count_frames(padded: Padded, run: dict[str, Any], arm: str) -> Iterator[pl.DataFrame]:
    import polars as pl  # noqa: PLC0415

    name = run_name(run["setting"], is_sorted=run["sorted"])
    for which in (REAL, PADDING):
        counts = padded.counts[counts_name(name, arm, which)]
        step, layer, expert = np.nonzero(counts)
        yield pl.DataFrame(
            {
                "run": np.full(step.size, f"{name}-{arm}"),
                "step": step,
                "layer": layer,
                "expert": expert,
                "tokens": counts[step, layer, expert],
                "padding": np.full(step.size, which == PADDING),
            }
        )


def _choice_frames(path: Path, run: str) -> Iterator[pl.DataFrame]:
    import polars as pl  # noqa: PLC0415

    arrays = _arrays(path)
    for number in range(len(arrays) // 3):
        try:
            prompts, mask, experts = (
                arrays[f"{part}{number}"] for part in ("prompts", "mask", "experts")
            )
            layer, row, k = np.indices(experts.shape).reshape(3, -1)
            request, token = np.divmod(row, mask.shape[1])
            frame = {
                "request": prompts[request].astype(str),
                "layer": layer,
                "token": token,
                "k": k,
                "expert": experts.reshape(-1),
                "padding": mask.reshape(-1)[row] == 0,
            }
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(f"{path} does not hold batch {number} whole") from error
        yield pl.DataFrame(frame).with_columns(
            run=pl.lit(run), phase=pl.lit("prefill"), step=pl.lit(number)
        )


def _choices_path(folder: Path, name: str) -> Path:
    return folder / f"choices-{name}.npz"


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Return the smallest type that holds the values: experts fit a byte, counts two or four."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_BYTES:
                raise InputError(f"{path} unpacks to more than {_LARGEST_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as numpy arrays ({reason})") from error
    if any(value.dtype.kind not in "iu" for value in arrays.values()):
        raise InputError(f"{path} holds something else than integers")
    return arrays


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path, fix="give the folder of nsysmoe padding run")
    if not isinstance(record, dict) or any(key not in record for key in _NEEDED):
        raise InputError(f"{path} is not of nsysmoe padding run: it needs {', '.join(_NEEDED)}")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is of another version of nsysmoe padding run")
    runs = record["runs"]
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise InputError(f"{path} tells no runs")
    if lacking := [key for run in runs for key in _NEEDED_OF_RUN if key not in run]:
        raise InputError(f"{path}: a run has no `{lacking[0]}`")
    return record
