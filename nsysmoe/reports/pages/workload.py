"""Workloads: their score, and what it is made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.workload.predictor import WEIGHTS, terms

if TYPE_CHECKING:
    from nsysmoe.analysis.workload_score import WorkloadScore
    from nsysmoe.workload.features import Features

# What a weight multiplies.
_TERMS = {
    "repetition": "Token repetition rate",
    "top10": "Share of the 10 most frequent tokens",
    "inv_vocab": "1 - vocabulary diversity",
    "inv_entropy": "1 - normalised entropy",
    "gini": "Gini coefficient",
    "bigram": "Share of the 10 most frequent bigrams",
    "semantic": "Similarity of prompts",
}
_COLUMNS = (
    Column("Part of the score", "left"),
    Column("Weight"),
    Column("Value"),
    Column("Adds"),
)
_NOTE = (
    "The score tells how concentrated tokens are, from their text alone; the paper found that it "
    "hardly predicts what routing does. Its data sets lay between 0.40 and 0.56."
)


def workload_score_page(found: WorkloadScore) -> Document:
    """Return the score with its features; the JSON is the score's fields, not the findings."""
    features = asdict(found.features)
    return Document(
        title=f"Score of {found.source}",
        lead=(_sentence(found),),
        tables=(
            Table(f"Score of {found.source}", _COLUMNS, _rows(found.features)),
            _tokens_table(found),
        ),
        data={**_head(found), "features": features},
        records=({**_head(found), **features},),
        findings=found.findings,
        notes=(_NOTE,),
    )


def _sentence(found: WorkloadScore) -> str:
    size = f"{numbers.count(found.prompts)} prompts, {numbers.count(found.tokens)} tokens"
    return (
        f"The expected imbalance score of {found.source} is {found.score:.4f} "
        f"({size} by the {found.tokenizer} tokenizer)."
    )


def _head(found: WorkloadScore) -> dict[str, Any]:
    return {
        "score": found.score,
        "prompts": found.prompts,
        "tokens": found.tokens,
        "tokenizer": found.tokenizer,
    }


def _rows(features: Features) -> tuple[Row, ...]:
    known = terms(features)
    total = sum(WEIGHTS[name] for name in known)
    return tuple(
        Row(
            (
                title,
                numbers.decimal(WEIGHTS[name]),
                numbers.decimal(known.get(name)),
                numbers.decimal(WEIGHTS[name] * known[name] / total if name in known else None),
            )
        )
        for name, title in _TERMS.items()
    )


def _tokens_table(found: WorkloadScore) -> Table:
    rows = (
        ("Prompts", numbers.count(found.prompts)),
        ("Tokens", numbers.count(found.tokens)),
        ("Tokens of the shortest prompt", numbers.count(found.shortest)),
        ("Tokens of the longest prompt", numbers.count(found.longest)),
        ("Entropy (bits)", numbers.decimal(found.features.entropy_bits)),
        ("Vocabulary diversity", numbers.decimal(found.features.vocabulary_diversity)),
    )
    columns = (Column("Tokens", "left"), Column("Value"))
    return Table("Tokens", columns, tuple(Row(row) for row in rows))
