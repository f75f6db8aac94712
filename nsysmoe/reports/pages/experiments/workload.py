"""Workloads: their score, and what it is made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.workload.predictor import WEIGHTS, terms

if TYPE_CHECKING:
    from nsysmoe.analysis.experiments.workload_score import WorkloadScore
    from nsysmoe.analysis.experiments.workload_suite import Suite
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


def suite_page(suite: Suite) -> Document:
    """Return the sets of a suite, one a row; the JSON is its manifest."""
    sets = suite.manifest["sets"]
    scores = [one["score"] for one in sets]
    columns = (
        Column("File", "left"),
        Column("Repetition"),
        Column("Semantic"),
        Column("Structure"),
        Column("Tokens a prompt"),
        Column("Distinct tokens"),
        Column("Similarity"),
        Column("Score"),
    )
    return Document(
        title=f"Workloads in {suite.folder}",
        lead=(
            _suite_sentence(suite.folder, len(sets), min(scores), max(scores)),
            f"Tokens were counted by the {suite.manifest['tokenizer']} tokenizer.",
        ),
        tables=(Table(f"Workloads in {suite.folder}", columns, tuple(map(_set_row, sets))),),
        data=suite.manifest,
        records=tuple(_set_record(one) for one in sets),
        findings=suite.findings,
        notes=(
            "Dials go from 0 (as various as the material) to 1 (concentrated): docs/workload.md.",
        ),
    )


def _suite_sentence(folder: str, number: int, lowest: float, highest: float) -> str:
    return f"{number} sets of prompts in {folder} score {lowest:.3f} to {highest:.3f}."


def _set_row(one: dict[str, Any]) -> Row:
    tokens = one["tokens"]
    distinct = round(one["features"]["vocabulary_diversity"] * tokens["total"])
    return Row(
        (
            one["file"],
            *(f"{one[dial]:.2f}" for dial in ("repetition", "semantic", "structure")),
            f"{tokens['mean']:.1f} ({tokens['min']}-{tokens['max']})",
            numbers.count(distinct),
            numbers.decimal(one["features"]["semantic_similarity"]),
            f"{one['score']:.4f}",
        )
    )


def _set_record(one: dict[str, Any]) -> dict[str, Any]:
    tokens = {f"tokens_{name}": value for name, value in one["tokens"].items()}
    flat = {key: value for key, value in one.items() if key not in {"tokens", "features"}}
    return {**flat, **tokens, **one["features"]}
