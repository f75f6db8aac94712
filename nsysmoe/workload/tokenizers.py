"""Tokenizers by name or file, all without network and without marks of begin or end."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nsysmoe.errors import InputError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

MIXTRAL = "mixtral"
WHITESPACE = "whitespace"
# Python's integers of so many prompts at a time; the stream itself is an array.
_BATCH = 1024
_EXTRA = "pip install 'nsysmoe[workload]'"


@dataclass(frozen=True)
class Tokens:
    """Token ids of prompts, one after the other, and how many each prompt has."""

    stream: Ints
    lengths: Ints


class Tokenizer(Protocol):
    """What turns prompts into tokens; ``name`` is what a result says about it."""

    @property
    def name(self) -> str:
        """``mixtral``, ``whitespace``, or the file."""

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Return the tokens of the prompts."""


@dataclass(frozen=True)
class _Batched:
    """A tokenizer of a library that takes a list of texts."""

    name: str
    encode_batch: Callable[[list[str]], list[list[int]]]

    def encode(self, prompts: Sequence[str]) -> Tokens:
        streams, lengths = [], []
        for start in range(0, len(prompts), _BATCH):
            ids = self.encode_batch(list(prompts[start : start + _BATCH]))
            lengths += [len(one) for one in ids]
            streams.append(np.array([token for one in ids for token in one], dtype=np.int64))
        empty = np.zeros(0, dtype=np.int64)
        return Tokens(np.concatenate([empty, *streams]), np.array(lengths, dtype=np.int64))


def tokenizer_of(asked: str) -> Tokenizer:
    """Return a tokenizer.

    Args:
        asked: ``mixtral`` (Mixtral-8x7B's, 32,000 entries, from the package mistral-common),
            ``whitespace`` (words between spaces), or a file: SentencePiece's ``.model``, or the
            ``tokenizer.json`` of the library ``tokenizers``, also by its folder.

    Raises:
        MissingDataError: The package that it takes is not installed.
        InputError: The file cannot be read.
    """
    if asked == WHITESPACE:
        return _whitespace()
    if asked == MIXTRAL:
        return _sentencepiece(MIXTRAL, _mixtral_file())
    path = Path(asked)
    if path.is_dir():
        path /= "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"there is no tokenizer {asked}: neither {MIXTRAL} nor {WHITESPACE} nor a file"
        )
    return _sentencepiece(asked, path) if path.suffix == ".model" else _tokenizers(asked, path)


def has_mixtral() -> bool:
    """Tell whether the packages that hold and run Mixtral's tokenizer are installed."""
    return all(find_spec(name) for name in ("mistral_common", "sentencepiece"))


def _whitespace() -> Tokenizer:
    numbers: dict[str, int] = {}

    def encode(prompts: list[str]) -> list[list[int]]:
        return [
            [numbers.setdefault(word, len(numbers)) for word in text.split()] for text in prompts
        ]

    return _Batched(WHITESPACE, encode)


def _mixtral_file() -> Path:
    # Importing the package would load pydantic and more: only its data is needed.
    found = find_spec("mistral_common")
    if found is None or not found.submodule_search_locations:
        raise MissingDataError(
            f"Mixtral's tokenizer needs mistral-common; {_EXTRA}, or use --tokenizer {WHITESPACE}"
        )
    path = Path(found.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"
    if not path.is_file():
        raise MissingDataError(
            f"this version of mistral-common holds no tokenizer.model.v1; {_EXTRA}, "
            f"or use --tokenizer {WHITESPACE}"
        )
    return path


def _sentencepiece(name: str, path: Path) -> Tokenizer:
    try:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingDataError(f"{path.name} needs sentencepiece; {_EXTRA}") from error
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is no SentencePiece model; check --tokenizer") from error
    return _Batched(name, model.encode)


def _tokenizers(name: str, path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer as Library  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingDataError(f"{path.name} needs tokenizers; {_EXTRA}") from error
    try:
        library = Library.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise InputError(f"{path} is no file of the library tokenizers ({error})") from error
    # Files that were saved for training cut and fill up texts.
    library.no_truncation()
    library.no_padding()

    def encode(prompts: list[str]) -> list[list[int]]:
        found = library.encode_batch(prompts, add_special_tokens=False)
        return [one.ids for one in found]

    return _Batched(name, encode)
