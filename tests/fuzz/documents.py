"""Whether an answer about a routing log, a set of prompts or a table of loads is right."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow import parquet

from tests.fuzz.answers import WrongAnswerError, parsed
from tests.workload.oracle import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fuzz.mutants import Mutant

_CHOICES = ("topk_ids", "topk_experts", "topk_indices", "experts", "indices")
_MOST_TOKENS = 2_000


def check_document(mutant: Mutant, answer: str) -> None:
    """Compare an answer with plain Python's on the same bytes, where the command has a check.

    Raises:
        WrongAnswerError: It differs, or is no JSON.
    """
    document = parsed(answer) if "json" in mutant.arguments else None
    if mutant.command == "routing load" and "--keep-dummy" in mutant.arguments:
        _loaded(mutant)
    elif mutant.command == "placement plan":
        _placed(mutant.path, document)
    elif mutant.command == "workload score":
        _scored(mutant.path, document)
    elif mutant.command == "summary" and mutant.path.name == "stats.csv":
        _summed(mutant.path, document)


def _loaded(mutant: Mutant) -> None:
    """Every choice is in the Parquet file as often as in the log."""
    if (read := _READERS.get(mutant.path.name)) is None:
        return
    table = parquet.read_table(mutant.output)
    found = Counter(table.column("expert").to_pylist())
    expected = Counter(read(mutant.path))
    if found != expected:
        raise WrongAnswerError(f"experts are {dict(found)}, not {dict(expected)}"[:500])


def _of_lines(path: Path) -> Iterator[int]:
    for line in path.read_bytes().split(b"\n"):
        row = json.loads(line) if line.strip() else {}
        chosen: Any = next((row[name] for name in _CHOICES if row.get(name) is not None), [])
        yield from _flat(chosen)


def _of_json(path: Path) -> Iterator[int]:
    yield from _routed(json.loads(path.read_bytes()))


def _routed(document: Any) -> Iterator[int]:
    if isinstance(document, dict):
        if document.get("routed_experts") is not None:
            yield from _flat(document["routed_experts"])
        else:
            yield from (expert for value in document.values() for expert in _routed(value))
    elif isinstance(document, list):
        yield from (expert for value in document for expert in _routed(value))


def _of_arrays(path: Path) -> Iterator[int]:
    with np.load(path) as arrays:
        for name in arrays.files:
            yield from arrays[name].reshape(-1).tolist()


def _of_array(path: Path) -> Iterator[int]:
    yield from np.load(path).reshape(-1).tolist()


def _of_csv(path: Path) -> Iterator[int]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from (int(row["expert"]) for row in csv.DictReader(file))


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        yield from (expert for inner in value for expert in _flat(inner))
    else:
        yield value


_READERS: dict[str, Callable[[Path], Iterator[int]]] = {
    "routes.jsonl": _of_lines,
    "batches.jsonl": _of_lines,
    "answer.json": _of_json,
    "routed.npz": _of_arrays,
    "plain.npz": _of_arrays,
    "routed.npy": _of_array,
    "choices.csv": _of_csv,
}


def _placed(path: Path, document: Any) -> None:
    """No load is lost: devices carry what the layer has."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [list(map(float, row)) for row in csv.reader(file) if any(row)]
    for row, layer in zip(rows, document["layers"], strict=True):
        carried = layer["device_loads"]
        if not math.isclose(sum(carried), sum(row), rel_tol=1e-9):
            raise WrongAnswerError(f"devices carry {sum(carried)} of {sum(row)}")
        if layer["max_load"] != max(carried):
            raise WrongAnswerError(f"the largest of {carried} is not {layer['max_load']}")


def _scored(path: Path, document: Any) -> None:
    if path.suffix != ".jsonl" or document["tokens"] > _MOST_TOKENS:
        return
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = predict([text for line in lines if (text := _prompt(line)).strip()])
    for key, value in {**document["features"], "score": document["score"]}.items():
        wanted = expected[key]
        is_same = value is wanted is None or (
            None not in {value, wanted} and math.isclose(value, wanted or 0.0, abs_tol=1e-6)
        )
        if not is_same:
            raise WrongAnswerError(f"{key} is {value}, not {wanted}")


def _prompt(line: bytes) -> str:
    """Return the prompt of a line; nothing where it holds none."""
    try:
        text: str = json.loads(line.decode())["prompt"]
        text.encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return text


def _summed(path: Path, document: Any) -> None:
    """The total of MoE kernels is that of their rows; a time in the summary is in ns."""
    text = path.read_bytes().decode("utf-8-sig", "replace")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if not {"Name", "Total Time (ns)"} <= rows[0].keys():
        # Units and titles of other kinds are the business of the reader's own tests.
        return
    expected = sum(int(row["Total Time (ns)"]) for row in rows if row["Name"] == "fused_moe_kernel")
    found = next(m["value"] for m in document["metrics"] if m["metric"] == "total_time_ns")
    if expected and found != expected:
        raise WrongAnswerError(f"total_time_ns is {found}, not {expected}")
