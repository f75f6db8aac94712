"""Routing logs of any form as one: written to Parquet, or counted by step, layer and expert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from nsysmoe.routing.convert import Converted
    from nsysmoe.routing.forms import Source

# Layers x experts; the largest models have 20,000.
_LARGEST = 1 << 22


@dataclass(frozen=True)
class Loading:
    """What ``load`` wrote, and what is odd about it."""

    output: str
    written: Converted
    is_kept: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Counted:
    """Counts of choices.

    Attributes:
        source: The logs.
        counts: ``run``, ``step`` (null where unknown), ``layer``, ``expert``, ``tokens``.
        experts: Logical experts of a layer.
        top_k: Experts a token; None where counts alone were logged.
        findings: What is odd about the logs.
    """

    source: str
    counts: pl.DataFrame
    experts: int
    top_k: int | None
    findings: tuple[Finding, ...]


def load(paths: Sequence[str | Path], output: str | Path, *, keep_dummy: bool = False) -> Loading:
    """Write logs of any form to one Parquet file.

    Raises:
        InputError: A log cannot be used; nothing is written then.
        OutputError: The file cannot be written.
    """
    from nsysmoe.routing.convert import convert  # noqa: PLC0415 - polars

    written = convert([Path(path) for path in paths], Path(output), keep_dummy=keep_dummy)
    findings = _dummies(written.dummy_rows, written.dummy_tokens, written.rows, is_kept=keep_dummy)
    return Loading(str(output), written, keep_dummy, findings)


def count_logs(
    paths: Sequence[str | Path],
    *,
    experts: int | None = None,
    keep_dummy: bool = False,
    by_request: bool = False,
) -> Counted:
    """Count the choices of logs of any form.

    Args:
        paths: Logs, or folders of them.
        experts: Logical experts of a layer; None for the highest of the logs plus one.
        keep_dummy: Count rows of the engine's dummy runs too.
        by_request: Let each request stand for a run of its own.

    Raises:
        InputError: A log cannot be used.
        MissingDataError: The logs hold no choice, or an expert beyond ``experts``.
    """
    from nsysmoe.metrics.routing_loads import count_choices  # noqa: PLC0415 - polars
    from nsysmoe.routing.convert import logs_of, open_log  # noqa: PLC0415

    sources = [
        open_log(log, keep_dummy=keep_dummy) for log in logs_of([Path(path) for path in paths])
    ]
    widest = _Widest(by_request=by_request)
    counts = count_choices(widest.watch(sources))
    name = ", ".join(str(path) for path in paths)
    total = int(counts["tokens"].sum())
    if not total:
        raise MissingDataError(f"{name} holds no choice of an expert")
    highest = int(counts["expert"].max()) + 1  # type: ignore[arg-type]
    if experts is not None and highest > experts:
        raise MissingDataError(f"{name} names expert {highest - 1}; --experts says {experts}")
    layers = int(counts["layer"].n_unique())
    if layers * highest > _LARGEST:
        raise InputError(f"{name} names {layers:,} layers and expert {highest - 1:,}: no model has")
    if (widest.top_k or 0) > (experts or highest):
        raise InputError(
            f"{name} has {widest.top_k:,} experts a token, and {experts or highest:,} a layer"
        )
    tallies = [source.tally for source in sources]
    findings = _dummies(
        sum(tally.dummy_rows for tally in tallies),
        sum(tally.dummy_tokens for tally in tallies),
        total,
        is_kept=keep_dummy,
    )
    return Counted(name, counts, experts or highest, widest.top_k, findings)


class _Widest:
    """The most experts of a token, seen while batches go by."""

    def __init__(self, *, by_request: bool) -> None:
        self.by_request = by_request
        self.top_k: int | None = None

    def watch(self, sources: Sequence[Source]) -> Iterator[pl.DataFrame]:
        for source in sources:
            for batch in source.batches:
                if source.level == "tokens" and batch.height:
                    highest = int(batch["k"].max()) + 1  # type: ignore[arg-type]
                    self.top_k = max(self.top_k or 1, highest)
                    if self.by_request:
                        yield _as_runs(batch)
                        continue
                names = ["run", "step", "layer", "expert"]
                yield batch.select(names + (["tokens"] if source.level == "counts" else []))


def _as_runs(batch: pl.DataFrame) -> pl.DataFrame:
    """Call each request a run; requests without a name stay together."""
    import polars as pl  # noqa: PLC0415 - slow to import

    run = pl.concat_str("run", pl.col("request").fill_null(""), separator="/")
    return batch.select(run.alias("run"), "step", "layer", "expert")


def _dummies(rows: int, tokens: int, kept: int, *, is_kept: bool) -> tuple[Finding, ...]:
    if not rows:
        return ()
    every = kept if is_kept else kept + rows
    verb = "kept" if is_kept else "dropped"
    return (
        Finding(
            "dummy_rows",
            "warning" if is_kept else "info",
            f"{tokens:,} routes ({rows / every:.1%} of all choices) are those of the engine's "
            f"dummy runs, equal from the start of a batch on: {verb}",
            {"routes": tokens, "choices": rows, "share": rows / every, "kept": is_kept},
        ),
    )
