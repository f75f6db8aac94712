"""What stands beside a routing log and belongs to its rows: phase, domain, and padding.

Logs name requests in their own way. Arrays are in the order of the requests; elsewhere a name is
the id that the run's record holds, or ends in the request's number (``r7``).
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from nsysmoe.bounded_files import read_json, read_json_object, read_text
from nsysmoe.errors import InputError
from nsysmoe.routing.run import read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from nsysmoe.routing.forms import Source

Side = Literal["left", "right"]
_NUMBER = re.compile(r"\D*(\d{1,9})")
_ARRAYS = {".npz", ".npy", ".json"}
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Domains:
    """The domain of each request, by its name, or in the order of requests."""

    source: str
    by_name: Mapping[str, str]
    in_order: tuple[str, ...]

    def of(self, name: str, number: int | None) -> str:
        """Return a request's domain.

        Raises:
            InputError: The file does not name it.
        """
        if name in self.by_name:
            return self.by_name[name]
        if number is not None and number < len(self.in_order):
            return self.in_order[number]
        raise InputError(f"{self.source} names no domain for request {name!r} of the log")


@dataclass(frozen=True)
class Lengths:
    """Real tokens of the rows of padded batches.

    Attributes:
        source: The file.
        rows: ``batch``, ``row`` (in it, from 0), ``request`` (null where tokens are numbered over
            the batch), ``length``, and ``padded``, the longest of the batch.
        side: Where padding stands.
    """

    source: str
    rows: pl.DataFrame
    side: Side


@dataclass(frozen=True)
class Labels:
    """What ``labelled`` adds to a log.

    Attributes:
        prompts: Tokens of each request's prompt, in order; None where no record was given.
        ids: Number of each request by the id in the record.
        domains: None where not given.
        lengths: None where not given.
        record: Where the prompts are from.
        steps: Step of each token by request, in order, -1 where it ran in none; None where not
            known.
    """

    prompts: tuple[int, ...] | None = None
    ids: Mapping[str, int] | None = None
    domains: Domains | None = None
    lengths: Lengths | None = None
    record: str = ""
    steps: Sequence[NDArray[np.int64]] | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to add."""
        return self.prompts is None and self.domains is None and self.lengths is None

    def labelled(self, source: Source) -> Iterator[pl.DataFrame]:
        """Yield the batches of a log with what is known beside it; what the log tells stays.

        Raises:
            InputError: A request of the log is not known, or the log holds counts.
        """
        if self.is_empty:
            yield from source.batches
            return
        if source.level == "counts":
            raise InputError(f"{source.path} holds counts: no token has a phase, domain or padding")
        for batch in source.batches:
            rows = self._with_requests(batch, in_order=source.path.suffix in _ARRAYS)
            yield _marked(rows, self.lengths) if self.lengths else rows

    def _with_requests(self, batch: pl.DataFrame, *, in_order: bool) -> pl.DataFrame:
        if self.prompts is None and self.domains is None:
            return batch
        names = batch["request"].unique().to_list()
        if None in names:
            raise InputError("the log names no requests, so that nothing can be said of them")
        known = [self._known(name, in_order=in_order) for name in names]
        if self.steps is not None:
            batch = _with_steps(
                batch, self.steps, {n: row[2] for n, row in zip(names, known, strict=True)}
            )
        told = pl.DataFrame(
            {"request": names, "_prompt": [row[0] for row in known],
             "_domain": [row[1] for row in known]},
            schema={"request": pl.String, "_prompt": pl.Int64, "_domain": pl.String},
        )  # fmt: skip
        is_prompt = pl.col("token") < pl.col("_prompt")
        phase = pl.when(is_prompt).then(pl.lit("prefill")).otherwise(pl.lit("decode"))
        return (
            batch.join(told, on="request", how="left", maintain_order="left")
            .with_columns(
                pl.coalesce("phase", pl.when(pl.col("_prompt").is_not_null()).then(phase)),
                pl.coalesce("domain", "_domain").alias("domain"),
            )
            .drop("_prompt", "_domain")
        )

    def _known(self, name: str, *, in_order: bool) -> tuple[int | None, str | None, int | None]:
        """Return a request's prompt length, domain and number."""
        number = self._number(name, in_order=in_order)
        prompt = None
        if self.prompts is not None:
            if number is None or number >= len(self.prompts):
                raise InputError(f"{self.record} has no request {name!r}, which the log names")
            prompt = self.prompts[number]
        domain = None if self.domains is None else self.domains.of(name, number)
        return prompt, domain, number

    def _number(self, name: str, *, in_order: bool) -> int | None:
        if not in_order and self.ids and name in self.ids:
            return self.ids[name]
        found = _NUMBER.fullmatch(name)
        return int(found[1]) if found else None


def _with_steps(
    batch: pl.DataFrame, steps: Sequence[NDArray[np.int64]], numbers: Mapping[str, int | None]
) -> pl.DataFrame:
    """Say in which step each token ran.

    Raises:
        InputError: A request has more tokens than the record says.
    """
    lengths = np.array([len(each) for each in steps])
    starts = np.cumsum(lengths) - lengths
    number = batch["request"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    token = batch["token"].to_numpy()
    if (beyond := token >= lengths[number]).any():
        place = int(beyond.argmax())
        raise InputError(
            f"request {number[place]} of the log has token {token[place]:,}; by the record it fed "
            f"{lengths[number[place]]:,} tokens"
        )
    step = np.concatenate(list(steps))[starts[number] + token]
    return batch.with_columns(
        pl.coalesce("step", pl.when(pl.Series(step) >= 0).then(pl.Series(step)))
    )


def read_labels(
    run: Path | None = None,
    domains: Path | None = None,
    lengths: Path | None = None,
    side: Side = "left",
    steps: Sequence[NDArray[np.int64]] | None = None,
) -> Labels:
    """Read what stands beside a log.

    Args:
        run: Record of the run: prompts' lengths tell prefill from decode.
        domains: JSON object of request to domain, CSV with ``request`` and ``domain``, or JSON
            lines with ``domain`` in the order of requests (a file of prompts).
        lengths: CSV with ``batch`` and ``length``, a line a row of a padded batch, and
            ``request`` where the log numbers tokens by request.
        side: Where padding stands.
        steps: Step of each token by request, in the order of the record.

    Raises:
        InputError: A file cannot be used.
    """
    prompts, ids = (None, None) if run is None else (read_run(run).prompt_tokens, _ids(run))
    return Labels(
        prompts,
        ids,
        None if domains is None else _domains(domains),
        None if lengths is None else _lengths(lengths, side),
        "" if run is None else str(run),
        steps,
    )


def _ids(run: Path) -> dict[str, int]:
    requests = read_json_object(run)["runs"][-1]["requests"]
    named = [(row.get("id"), number) for number, row in enumerate(requests)]
    return {str(name): number for name, number in named if isinstance(name, (str, int))}


def _domains(path: Path) -> Domains:
    if path.suffix == ".jsonl":
        return Domains(str(path), {}, tuple(_domain_of(*line, path) for line in _objects(path)))
    if path.suffix == ".csv":
        rows = _table(path, ("request", "domain"))
        return Domains(str(path), {row["request"]: row["domain"] for row in rows}, ())
    document = read_json(path)
    if not isinstance(document, dict) or not all(
        isinstance(domain, str) for domain in document.values()
    ):
        raise InputError(f"{path} must hold a JSON object of request to domain")
    return Domains(str(path), document, ())


def _domain_of(number: int, line: Any, path: Path) -> str:
    domain = line.get("domain") if isinstance(line, dict) else None
    if not isinstance(domain, str):
        raise InputError(f"{path}, line {number} has no text `domain`")
    return domain


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    # By line feeds alone: a text may hold what Unicode calls a line's end.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is not JSON") from error


def _lengths(path: Path, side: Side) -> Lengths:
    rows = _table(path, ("batch", "length"))
    for number, row in enumerate(rows, start=2):
        if not row["length"].isdecimal() or not 0 < int(row["length"]) <= _LONGEST:
            raise InputError(f"{path}, line {number}: `length` must be a number above 0")
    frame = pl.DataFrame(
        {
            "batch": [row["batch"] for row in rows],
            "request": [row.get("request") or None for row in rows],
            "length": [int(row["length"]) for row in rows],
        },
        schema={"batch": pl.String, "request": pl.String, "length": pl.Int64},
    )
    if frame["request"].null_count() not in {0, frame.height}:
        raise InputError(f"{path}: some lines name a request and some do not")
    if frame["request"].is_not_null().all() and not frame["request"].is_unique().all():
        raise InputError(f"{path} names a request twice")
    return Lengths(
        str(path),
        frame.with_columns(
            row=pl.int_range(pl.len()).over("batch"), padded=pl.col("length").max().over("batch")
        ),
        side,
    )


def _marked(batch: pl.DataFrame, lengths: Lengths) -> pl.DataFrame:
    """Mark padding where the log does not."""
    by_request = lengths.rows["request"].null_count() == 0
    rows = _by_request(batch, lengths) if by_request else _by_batch(batch, lengths)
    if rows["_length"].null_count():
        odd = rows.filter(pl.col("_length").is_null()).row(0, named=True)
        where = f"request {odd['request']!r}" if by_request else f"token {odd['token']}"
        raise InputError(
            f"{lengths.source} has no length for {where} (step {odd['step']}) of the log"
        )
    place, length, padded = pl.col("_place"), pl.col("_length"), pl.col("_padded")
    if lengths.side == "left":
        is_padding = place < padded - length
    else:
        is_padding = (place >= length) & (place < padded)
    return rows.with_columns(padding=pl.coalesce("padding", is_padding)).select(batch.columns)


def _by_request(batch: pl.DataFrame, lengths: Lengths) -> pl.DataFrame:
    number = pl.col("batch").rank("dense").cast(pl.Int64) - 1
    known = lengths.rows.select("request", _length="length", _padded="padded", _batch=number)
    return batch.join(known, on="request", how="left", maintain_order="left").with_columns(
        pl.coalesce("step", "_batch"), _place=pl.col("token")
    )


def _by_batch(batch: pl.DataFrame, lengths: Lengths) -> pl.DataFrame:
    """Find the row of each token, which are numbered over the batch."""
    wide = lengths.rows.group_by("batch").agg(_padded=pl.col("padded").first())
    known = lengths.rows.select(_batch="batch", _row=pl.col("row").cast(pl.Int64), _length="length")
    return (
        batch.with_columns(_batch=pl.col("step").fill_null(0).cast(pl.String))
        .join(wide.rename({"batch": "_batch"}), on="_batch", how="left", maintain_order="left")
        .with_columns(_row=pl.col("token") // pl.col("_padded"))
        .with_columns(_place=pl.col("token") % pl.col("_padded"))
        .join(known, on=["_batch", "_row"], how="left", maintain_order="left")
    )


def _table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read a small CSV with a header.

    Raises:
        InputError: It is unreadable, lacks a column, or a cell of one is empty.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error
    if not rows or not set(needed) <= set(rows[0]):
        raise InputError(f"{path} needs a header and lines with {' and '.join(needed)}")
    for number, row in enumerate(rows, start=2):
        if not all(row[name] for name in needed):
            raise InputError(f"{path}, line {number} lacks {' or '.join(needed)}")
    return rows
