"""Answers of views kept as Parquet between processes, so that the next one reads no trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsysmoe.cache import Cache, identify_content, open_cache, program_digest

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.cache import Identity

Question = tuple[str, tuple[str, ...] | None, tuple[int, int] | None]
"""View, columns (all where None), from and until when (ns; always where None)."""

_DATA = "frame.parquet"


@dataclass
class Oddities:
    """What was odd about what has been read of a trace so far.

    Attributes:
        repaired: Texts that had to be mended, as they were read.
        nameless: Kernels whose name ``StringIds`` lacks; None where names were not read.
    """

    repaired: set[bytes] = field(default_factory=set)
    nameless: int | None = None

    def add(self, notes: dict[str, Any]) -> None:
        """Add what ``to_notes`` returned for a kept answer."""
        self.repaired.update(bytes.fromhex(text) for text in notes["repaired"])
        if notes["nameless"] is not None:
            self.nameless = notes["nameless"]

    def to_notes(self) -> dict[str, Any]:
        """Return JSON values."""
        texts = sorted(text.hex() for text in self.repaired)
        return {"repaired": texts, "nameless": self.nameless}


class KeptFrames:
    """The kept answers of one file as it is now, under one class map.

    Answers are kept of a file that SQLite has checked, and that is what it was when it was
    opened: ``put`` is called with no others.
    """

    def __init__(self, cache: Cache, identity: Identity, classes: str, *more: str) -> None:
        self._cache = cache
        self._identity = identity
        self._parts = (identity.digest, program_digest(), classes, *more)

    def has(self, question: Question) -> bool:
        """Tell whether an answer is kept."""
        return self._cache.has(self._key(question))

    def get(self, question: Question) -> tuple[pl.DataFrame, dict[str, Any]] | None:
        """Return an answer and what was odd about the trace, None where it is not kept."""
        import polars as pl  # noqa: PLC0415

        if (entry := self._cache.get(self._key(question))) is None:
            return None
        try:
            # Read whole: the file may be removed as soon as this returns.
            return pl.read_parquet(entry.data, memory_map=False), entry.notes
        except (OSError, pl.exceptions.PolarsError):
            return None

    def put(self, question: Question, frame: pl.DataFrame, oddities: Oddities) -> None:
        """Keep an answer, where the file is still what it was."""
        if not (self._identity.is_settled and self._identity.is_unchanged()):
            return
        self._cache.put(
            self._key(question),
            _DATA,
            lambda path: _write(frame, path),
            source=str(self._identity.path),
            what=question[0],
            notes=oddities.to_notes(),
        )

    def _key(self, question: Question) -> str:
        return Cache.key("frame", *self._parts, *question)


def kept_frames(path: Path, classes: str, *more: str) -> KeptFrames | None:
    """Return the kept answers of a file; None where there is no cache or nothing to name it by.

    Args:
        path: The file or folder.
        classes: ``ClassMap.digest``.
        more: What else answers depend on.
    """
    if (cache := open_cache()) is None or (identity := identify_content(path)) is None:
        return None
    return KeptFrames(cache, identity, classes, *more)


def _write(frame: pl.DataFrame, path: Path) -> None:
    import polars as pl  # noqa: PLC0415

    try:
        frame.write_parquet(path, compression="lz4", statistics=False)
    except pl.exceptions.PolarsError as error:
        raise OSError(str(error)) from error
