"""The routing of a captured run in the form of all logs, beside the arrays that vLLM returned."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import InputError
from nsysmoe.routing.convert import ARRAYS, PARQUET, convert
from nsysmoe.routing.labels import read_labels
from nsysmoe.routing.run import read_run

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.routing.run import RunRecord

RECORD = "run.json"


def write_routing(folder: Path, run: str, slices: pl.DataFrame | None = None) -> Path | None:
    """Write ``routing.parquet`` from ``routing.npz`` and ``run.json``, whole or not at all.

    Args:
        folder: Of the run.
        run: What to call the run in it.
        slices: Which tokens ran in which step, as ``replay`` returns them; None where that is not
            known, and ``step`` is null then.

    Returns:
        The file; None where vLLM returned no experts.

    Raises:
        InputError: Arrays or record are damaged, or are not of one run.
        OutputError: The file cannot be written.
    """
    arrays = folder / ARRAYS
    if not arrays.is_file():
        return None
    record = read_run(folder / RECORD)
    _check_requests(arrays, record)
    steps = None if slices is None else _steps(slices, record)
    labels = read_labels(folder / RECORD, steps=steps)
    convert([arrays], folder / PARQUET, labels=labels, run=run)
    return folder / PARQUET


def _check_requests(arrays: Path, record: RunRecord) -> None:
    try:
        with zipfile.ZipFile(arrays) as archive:
            count = len(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{arrays} cannot be read as numpy arrays: {error}") from error
    if count != len(record.prompt_tokens):
        raise InputError(
            f"{arrays} holds {count:,} requests, {record.source} {len(record.prompt_tokens):,}"
        )


def _steps(slices: pl.DataFrame, record: RunRecord) -> list[NDArray[np.int64]]:
    """Return the step of each token by request, -1 where it ran in none."""
    lengths = zip(record.prompt_tokens, record.output_tokens, strict=True)
    # The last output is never fed.
    steps = [np.full(prompt + output - 1, -1, dtype=np.int64) for prompt, output in lengths]
    for step, request, first, tokens in slices.select(
        "step", "request", "first", "tokens"
    ).iter_rows():
        steps[request][first : first + tokens] = step
    return steps
