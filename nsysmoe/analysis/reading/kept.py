"""Whole answers kept between processes as JSON: asked again, they take no reading at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.cache import Cache, identify_content, open_cache, program_digest
from nsysmoe.classes import ClassMap, default_class_map
from nsysmoe.export.nsys import exporter
from nsysmoe.export.sqlite import has_write_ahead_log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nsysmoe.cache import Identity, Stored

_DATA = "answer.json"
# A run may have thousands of files.
_SHOWN = 4


@dataclass(frozen=True)
class KeptAnswers:
    """What the cache holds.

    Attributes:
        folder: Where; None where nothing is kept.
        most_bytes: How much at most.
        answers: The most recently used first.
    """

    folder: str | None
    most_bytes: int
    answers: tuple[Stored, ...]


def kept_answers() -> KeptAnswers:
    """Return what the cache of this user holds."""
    if (cache := open_cache()) is None:
        return KeptAnswers(None, 0, ())
    return KeptAnswers(str(cache.folder), cache.most_bytes, tuple(cache.entries()))


class KeptAnswer:
    """One answer about some files as they are now."""

    def __init__(self, cache: Cache, what: str, identities: Sequence[Identity], key: str) -> None:
        self._cache = cache
        self._what = what
        self._identities = identities
        self._key = key

    def get(self) -> Any:
        """Return the JSON values that were kept, None where there are none."""
        if (entry := self._cache.get(self._key)) is None:
            return None
        try:
            return json.loads(entry.data.read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, values: Any) -> None:
        """Keep JSON values, where the files are still what they were."""
        if not all(one.is_settled and one.is_unchanged() for one in self._identities):
            return
        text = json.dumps(values)
        self._cache.put(
            self._key,
            _DATA,
            lambda path: _write(text, path),
            source=_shown([one.path for one in self._identities]),
            what=self._what,
            notes={},
        )


def kept_answer(
    what: str,
    paths: Sequence[Path],
    *options: Any,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> KeptAnswer | None:
    """Return where an answer is kept; None without a cache, or where a file cannot be read.

    Args:
        what: The question.
        paths: The files that it is asked of, as they were named: answers quote them.
        options: What else the answer depends on, JSON values.
        class_map: As the question takes it.
        nsys: As the question takes it.
    """
    if (cache := open_cache()) is None:
        return None
    found = [identify_content(path) for path in paths]
    identities = [one for one in found if one is not None]
    if len(identities) < len(found):
        return None
    files = [
        (str(path), one.digest, has_write_ahead_log(path))
        for path, one in zip(paths, identities, strict=True)
    ]
    classes = (class_map or default_class_map()).digest
    key = Cache.key("answer", what, program_digest(), classes, exporter(nsys), files, options)
    return KeptAnswer(cache, what, identities, key)


def _shown(paths: Sequence[Path]) -> str:
    """Return the files, some of them where there are many."""
    shown = ", ".join(map(str, paths[:_SHOWN]))
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN:,} more"


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
