"""The expected imbalance of a file of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.workload.features import Features
    from nsysmoe.workload.tokenizers import Tokenizer


@dataclass(frozen=True)
class WorkloadScore:
    """What ImbalancePredictor says of a workload (section 5.3.2 of the paper).

    Attributes:
        source: The file.
        score: 0 to 1; higher is more concentrated.
        prompts: How many were read.
        tokens: Of all prompts.
        shortest: Tokens of the shortest prompt.
        longest: Tokens of the longest.
        tokenizer: Its name or file.
        features: What the score is made of.
        findings: What to know before believing it.
    """

    source: str
    score: float
    prompts: int
    tokens: int
    shortest: int
    longest: int
    tokenizer: str
    features: Features
    findings: tuple[Finding, ...] = ()


def workload_score(
    path: Path | str,
    tokenizer: str | None = None,
    *,
    semantic: bool = True,
    field: str | None = None,
    max_errors: int | None = None,
) -> WorkloadScore:
    """Score a file of prompts.

    Args:
        path: JSON lines (or any other file that ``read_prompts`` takes).
        tokenizer: ``mixtral``, ``whitespace`` or a file; None for the first that is installed.
        semantic: Whether the similarity of prompts counts.
        field: Name of the field with the text; ``prompt`` unless told.
        max_errors: Bad rows that are left out before it is an error; 100 unless told.

    Raises:
        NsysmoeError: The file or the tokenizer cannot be used.
    """
    from nsysmoe.workload.prompts import FIELD, MAX_ERRORS, read_prompts  # noqa: PLC0415

    chosen, fallback = choose_tokenizer(tokenizer)
    allowed = MAX_ERRORS if max_errors is None else max_errors
    prompts = read_prompts(Path(path), field or FIELD, allowed)
    found = score_texts(prompts.texts, chosen, semantic=semantic, source=str(path))
    findings = (*fallback, *prompts.findings(), *found.findings)
    return WorkloadScore(**{**vars(found), "findings": findings})


def score_texts(
    texts: Sequence[str], tokenizer: Tokenizer, *, semantic: bool = True, source: str = ""
) -> WorkloadScore:
    """Score prompts.

    Raises:
        MissingDataError: The tokenizer finds no token in any of them.
    """
    from nsysmoe.workload.features import features_of  # noqa: PLC0415 - numpy
    from nsysmoe.workload.predictor import score_of  # noqa: PLC0415
    from nsysmoe.workload.similarity import mean_cosine  # noqa: PLC0415

    tokens = tokenizer.encode(texts)
    if len(tokens.stream) == 0:
        raise MissingDataError(f"{source} has no token that {tokenizer.name} knows")
    features = features_of(tokens.stream, mean_cosine(texts) if semantic else None)
    return WorkloadScore(
        source=source,
        score=score_of(features),
        prompts=len(texts),
        tokens=len(tokens.stream),
        shortest=int(tokens.lengths.min()),
        longest=int(tokens.lengths.max()),
        tokenizer=tokenizer.name,
        features=features,
        findings=_one_prompt(texts, semantic),
    )


def choose_tokenizer(asked: str | None) -> tuple[Tokenizer, tuple[Finding, ...]]:
    """Return a tokenizer; without a wish Mixtral's, or words where that is not installed.

    Raises:
        NsysmoeError: The one that was asked for cannot be had.
    """
    from nsysmoe.workload.tokenizers import (  # noqa: PLC0415 - numpy
        MIXTRAL,
        WHITESPACE,
        has_mixtral,
        tokenizer_of,
    )

    if asked is not None or has_mixtral():
        return tokenizer_of(asked or MIXTRAL), ()
    message = (
        "Mixtral's tokenizer is not installed, so words between spaces were counted: the score is "
        "not the paper's; pip install 'nsysmoe[workload]'"
    )
    return tokenizer_of(WHITESPACE), (Finding("whitespace_tokenizer", "warning", message),)


def _one_prompt(texts: Sequence[str], semantic: bool) -> tuple[Finding, ...]:
    if not semantic or len(texts) > 1:
        return ()
    message = "one prompt has no pair to be similar to: the score leaves similarity out"
    return (Finding("one_prompt", "info", message),)
