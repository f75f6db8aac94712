"""Routing logs of any form as one: written to Parquet, or counted by step, layer and expert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

    from nsysmoe.routing.convert import Converted
    from nsysmoe.routing.forms import Source
    from nsysmoe.routing.labels import Labels, Side

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


@dataclass(frozen=True)
class Beside:
    """Files beside logs, whose content belongs to their rows.

    Attributes:
        run: Record of the run: prompts' lengths tell prefill from decode.
        domains: Domain of each request: JSON object, CSV, or JSON lines of prompts.
        lengths: CSV of the real tokens of rows of padded batches.
        side: Where padding stands in a row.
    """

    run: str | Path | None = None
    domains: str | Path | None = None
    lengths: str | Path | None = None
    side: Side = "left"

    def read(self) -> Labels:
        """Read the files.

        Raises:
            InputError: One cannot be used.
        """
        from nsysmoe.routing.labels import read_labels  # noqa: PLC0415 - polars

        run, domains, lengths = (None if path is None else Path(path) for path in self._paths)
        return read_labels(run, domains, lengths, self.side)

    def inputs(self) -> list[Path]:
        """Return the files that were given."""
        return [Path(path) for path in self._paths if path is not None]

    @property
    def _paths(self) -> tuple[str | Path | None, ...]:
        return (self.run, self.domains, self.lengths)


_NOTHING_BESIDE = Beside()


def load(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    keep_dummy: bool = False,
    beside: Beside = _NOTHING_BESIDE,
) -> Loading:
    """Write logs of any form to one Parquet file.

    Args:
        paths: Logs, or folders of them; all of one level.
        output: The Parquet file.
        keep_dummy: Keep rows of the engine's dummy runs; padding that ``beside`` marks looks like
            one, so that they are kept then.
        beside: Files whose content belongs to the rows.

    Raises:
        InputError: A log cannot be used; nothing is written then.
        OutputError: The file cannot be written.
    """
    from nsysmoe.routing.convert import convert  # noqa: PLC0415 - polars

    is_kept = keep_dummy or beside.lengths is not None
    written = convert(
        [Path(path) for path in paths],
        Path(output),
        keep_dummy=is_kept,
        labels=beside.read(),
        beside=beside.inputs(),
    )
    findings = _dummies(written.dummy_rows, written.dummy_tokens, written.rows, is_kept=is_kept)
    return Loading(str(output), written, is_kept, findings)


@dataclass
class TokenLogs:
    """Logs of choices, read once: each batch goes to everything that looks at it.

    Attributes:
        name: The logs.
        findings: What is odd about them; complete after ``feed``.
        top_k: Experts of a token at most; 0 before ``feed``.
        choices: Rows that were read.
    """

    paths: Sequence[str | Path]
    beside: Beside = _NOTHING_BESIDE
    keep_dummy: bool = False
    findings: tuple[Finding, ...] = ()
    top_k: int = 0
    choices: int = 0

    @property
    def name(self) -> str:
        """Return what the logs are called."""
        return ", ".join(str(path) for path in self.paths)

    def feed(self, *takers: Callable[[pl.DataFrame], None]) -> None:
        """Read the logs, and hand on every batch.

        Raises:
            InputError: A log cannot be used.
            MissingDataError: The logs hold counts, or nothing.
        """
        from nsysmoe.routing.convert import logs_of, open_log  # noqa: PLC0415 - polars

        labels = self.beside.read()
        is_kept = self.keep_dummy or self.beside.lengths is not None
        logs = logs_of([Path(path) for path in self.paths])
        sources = [open_log(log, keep_dummy=is_kept) for log in logs]
        if counted := [source for source in sources if source.level == "counts"]:
            raise MissingDataError(
                f"{counted[0].path} holds counts by expert: this needs a log of which token chose "
                "which expert"
            )
        for source in sources:
            for batch in labels.labelled(source):
                if batch.height:
                    self._note(batch)
                    for take in takers:
                        take(batch)
        if not self.choices:
            raise MissingDataError(f"{self.name} holds no choice of an expert")
        rows = sum(source.tally.dummy_rows for source in sources)
        tokens = sum(source.tally.dummy_tokens for source in sources)
        if self.beside.lengths is None:
            self.findings = _dummies(rows, tokens, self.choices, is_kept=is_kept)

    def _note(self, batch: pl.DataFrame) -> None:
        self.choices += batch.height
        self.top_k = max(self.top_k, int(batch["k"].max()) + 1)  # type: ignore[arg-type]


def count_logs(  # noqa: PLR0913 - how logs are counted, by keyword
    paths: Sequence[str | Path],
    *,
    experts: int | None = None,
    keep_dummy: bool = False,
    by_request: bool = False,
    window: int | None = None,
    by: str | None = None,
    beside: Beside = _NOTHING_BESIDE,
) -> Counted:
    """Count the choices of logs of any form.

    Args:
        paths: Logs, or folders of them.
        experts: Logical experts of a layer; None for the highest of the logs plus one.
        keep_dummy: Count rows of the engine's dummy runs too.
        by_request: Let each request stand for a run of its own.
        window: Let so many consecutive tokens of a request stand for a step.
        by: A column more to count by: ``phase`` or ``domain``.
        beside: Files that tell it where the logs do not.

    Raises:
        InputError: A log cannot be used.
        MissingDataError: The logs hold no choice, or an expert beyond ``experts``.
    """
    from nsysmoe.metrics.routed_load.routing_loads import KEY, count_choices  # noqa: PLC0415 - polars
    from nsysmoe.routing.convert import logs_of, open_log  # noqa: PLC0415

    sources = [
        open_log(log, keep_dummy=keep_dummy) for log in logs_of([Path(path) for path in paths])
    ]
    more = () if by is None else (by,)
    widest = _Widest(beside.read(), more, by_request=by_request, window=window)
    counts = count_choices(widest.watch(sources), (*KEY, *more))
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

    def __init__(
        self, labels: Labels, more: tuple[str, ...], *, by_request: bool, window: int | None
    ) -> None:
        self.labels = labels
        self.more = more
        self.by_request = by_request or window is not None
        self.window = window
        self.top_k: int | None = None

    def watch(self, sources: Sequence[Source]) -> Iterator[pl.DataFrame]:
        for source in sources:
            if source.level == "counts" and self.more:
                raise MissingDataError(f"{source.path} holds counts: no {self.more[0]} is told")
            for batch in self.labels.labelled(source):
                if source.level == "tokens" and batch.height:
                    highest = int(batch["k"].max()) + 1  # type: ignore[arg-type]
                    self.top_k = max(self.top_k or 1, highest)
                    if self.by_request:
                        yield _as_runs(batch, self.window)
                        continue
                names = ["run", "step", "layer", "expert", *self.more]
                yield batch.select(names + (["tokens"] if source.level == "counts" else []))


def _as_runs(batch: pl.DataFrame, window: int | None) -> pl.DataFrame:
    """Call each request a run, and windows of its tokens steps; those without a name are one."""
    import polars as pl  # noqa: PLC0415 - slow to import

    run = pl.concat_str("run", pl.col("request").fill_null(""), separator="/")
    step = pl.col("step") if window is None else pl.col("token") // window
    return batch.select(run.alias("run"), step.alias("step"), "layer", "expert")


def thinned_steps(every: int, rest: str = "; sums over the run are of all") -> tuple[Finding, ...]:
    """Say that only one in so many steps was looked at alone; nothing where all were."""
    if every == 1:
        return ()
    return (
        Finding(
            "thinned_steps",
            "info",
            f"one in {every:,} steps was looked at alone, evenly spaced{rest}",
            {"every": every},
        ),
    )


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
