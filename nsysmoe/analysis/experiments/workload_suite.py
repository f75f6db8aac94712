"""A suite of prompt sets: written, measured and scored."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.analysis.experiments.workload_score import choose_tokenizer, score_texts
from nsysmoe.bounded_files import read_json_object
from nsysmoe.errors import InputError, MissingDataError, OutputError
from nsysmoe.findings import Finding
from nsysmoe.stopping import undone
from nsysmoe.whole_files import PARTIAL, whole_file
from nsysmoe.workload.generate.material import Real, templates, written
from nsysmoe.workload.generate.recipe import FAMILIES, SEMANTIC, recipes
from nsysmoe.workload.generate.texts import Measure, prompts_of
from nsysmoe.workload.prompts import FIELD, MAX_ERRORS, read_prompts
from nsysmoe.workload.tokenizers import WHITESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nsysmoe.workload.generate.material import Material
    from nsysmoe.workload.generate.recipe import Recipe
    from nsysmoe.workload.tokenizers import Tokenizer

MANIFEST = "manifest.json"
_SUFFIX = ".jsonl"
SCHEMA_VERSION = 1
DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)
MIXTURES = 5
COUNT = 100
TOKENS = 128
# Below it, scores of a suite are too close for a correlation to show much.
_NARROW = 0.2
_CLOSE = 0.001


@dataclass(frozen=True)
class Plan:
    """What to generate.

    Attributes:
        families: Which of the three; none for mixtures alone.
        dials: Where each family's dial stands, 0 to 1.
        mixtures: Sets with random dials.
        count: Prompts of a set.
        tokens: Length of a prompt, at most; with a spread, the median.
        seed: The same plan with the same seed gives the same bytes.
        token_ids: Whether rows hold ``prompt_token_ids`` as well, for engines without a tokenizer.
        spread: Standard deviation of the logarithm of lengths; 0 for equal ones.
    """

    families: tuple[str, ...] = FAMILIES
    dials: tuple[float, ...] = DIALS
    mixtures: int = MIXTURES
    count: int = COUNT
    tokens: int = TOKENS
    seed: int = 0
    token_ids: bool = False
    spread: float = 0.0


@dataclass(frozen=True)
class Suite:
    """What was written.

    Attributes:
        folder: Where.
        manifest: What ``manifest.json`` holds.
        findings: What to know about it.
    """

    folder: str
    manifest: dict[str, Any]
    findings: tuple[Finding, ...]


def generate(  # noqa: PLR0913 - where sentences come from, by keyword
    folder: Path | str,
    plan: Plan | None = None,
    tokenizer: str | None = None,
    *,
    domains: Path | None = None,
    real: Path | None = None,
    field: str = FIELD,
    max_errors: int = MAX_ERRORS,
) -> Suite:
    """Write a suite: a file of JSON lines a set, and a manifest.

    Args:
        folder: New, empty, or of an earlier suite, whose files are replaced.
        plan: What to generate; the default suite unless told.
        tokenizer: Of lengths and scores; None for Mixtral's where it is installed.
        domains: TOML with domains of the user's.
        real: File of prompts to make the sets from, instead of domains.
        field: Where that file has its texts.
        max_errors: Bad rows of that file that are left out before it is an error.

    Raises:
        NsysmoeError: An input cannot be used, or the folder not be written.
    """
    folder, plan = Path(folder), plan or Plan()
    others = _check_folder(folder)
    chosen, findings = choose_tokenizer(tokenizer)
    if plan.token_ids and chosen.name == WHITESPACE:
        raise InputError("words have no token ids; name a --tokenizer, such as mixtral")
    material, read = _material(domains, real, field, max_errors)
    has_domains = len(material.domains) > 1
    if not has_domains and SEMANTIC in plan.families:
        raise MissingDataError(
            "the semantic family mixes domains, and there is one alone; leave it out with "
            "--family repetition --family structure, or name domains with --domains"
        )
    wanted = recipes(plan.families, plan.dials, plan.mixtures, plan.seed, has_domains)
    if len({recipe.name for recipe in wanted}) < len(wanted):
        raise InputError("two sets are alike; name each --family and --dial once")
    measure = Measure(chosen)
    with _together(folder, others) as work:
        sets = [_written(work, recipe, material, plan, chosen, measure) for recipe in wanted]
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "seed": plan.seed,
            "tokenizer": chosen.name,
            "prompts": plan.count,
            "tokens_per_prompt": plan.tokens,
            "spread": plan.spread,
            "material": str(real or domains or "shipped"),
            "domains": list(material.domains),
            "sets": sets,
        }
        _write(work / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return Suite(str(folder), manifest, (*findings, *read, *_range_findings(sets)))


def _check_folder(folder: Path) -> list[str]:
    """Return the sets of an earlier suite there; nothing is made yet."""
    try:
        others = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise OutputError(f"{folder} cannot be a folder ({error.strerror})") from error
    # What a kill left of writing is no one's.
    others = [name for name in others if not name.startswith(PARTIAL)]
    if not others:
        return []
    sets = read_json_object(folder / MANIFEST).get("sets") if MANIFEST in others else None
    if not isinstance(sets, list):
        raise OutputError(f"{folder} holds something else ({others[0]}); name a new folder")
    named = [one.get("file") for one in sets if isinstance(one, dict)]
    return [name for name in others if name in named and name.endswith(_SUFFIX)]


@contextmanager
def _together(folder: Path, others: Sequence[str]) -> Iterator[Path]:
    """Yield a folder whose files come into ``folder`` when all are written, for ``others``."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder, prefix=PARTIAL))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
    try:
        with undone(lambda: shutil.rmtree(work, ignore_errors=True)):
            yield work
        # The manifest first: with it, a folder that a kill left half moved is made anew.
        names = sorted((path.name for path in work.iterdir()), key=lambda name: name != MANIFEST)
        for name in names:
            (work / name).replace(folder / name)
        for name in set(others) - set(names):
            (folder / name).unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _material(
    domains: Path | None, real: Path | None, field: str, max_errors: int
) -> tuple[Material, tuple[Finding, ...]]:
    if real is None:
        return written(domains), ()
    prompts = read_prompts(real, field, max_errors)
    return Real(str(real), prompts.texts, templates()), prompts.findings()


def _written(  # noqa: PLR0913, PLR0917 - what a set is made of
    folder: Path,
    recipe: Recipe,
    material: Material,
    plan: Plan,
    tokenizer: Tokenizer,
    measure: Measure,
) -> dict[str, Any]:
    texts = prompts_of(recipe, material, plan.count, plan.tokens, plan.seed, measure, plan.spread)
    encoded = tokenizer.encode(texts)
    rows: list[dict[str, Any]] = [{FIELD: text} for text in texts]
    if plan.token_ids:
        ids = np.split(encoded.stream, np.cumsum(encoded.lengths)[:-1])
        for row, own in zip(rows, ids, strict=True):
            row["prompt_token_ids"] = own.tolist()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = recipe.name + _SUFFIX
    _write(folder / file, lines)
    found = score_texts(texts, tokenizer, source=file)
    lengths = encoded.lengths.tolist()
    return {
        "file": file,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        **{key: value for key, value in asdict(recipe).items() if key != "name"},
        "prompts": found.prompts,
        "tokens": _token_statistics(lengths),
        "score": found.score,
        "features": asdict(found.features),
    }


def _token_statistics(lengths: Sequence[int]) -> dict[str, Any]:
    return {
        "total": sum(lengths),
        "min": min(lengths),
        "mean": fmean(lengths),
        "median": median(lengths),
        "max": max(lengths),
        "stddev": pstdev(lengths),
    }


def _range_findings(sets: Sequence[dict[str, Any]]) -> tuple[Finding, ...]:
    scores = [one["score"] for one in sets]
    found = []
    if len(scores) > 1 and max(scores) - min(scores) < _NARROW:
        message = (
            f"scores lie between {min(scores):.3f} and {max(scores):.3f}: a range so narrow (the "
            "paper's was 0.40 to 0.56) shows little of what depends on it"
        )
        found.append(Finding("narrow_scores", "info", message, _ends(scores)))
    for family in FAMILIES:
        own = sorted((one[family], one["score"]) for one in sets if one["family"] == family)
        by_dial = [score for _, score in own]
        if any(b < a - _CLOSE for a, b in pairwise(by_dial)):
            message = (
                f"in the family {family} scores do not rise with the dial everywhere: fewer "
                "distinct tokens are used more evenly, which the Gini coefficient and the entropy "
                "count as balance; its similarity of prompts tells more"
            )
            found.append(Finding("unordered_family", "info", message, _ends(by_dial)))
    return tuple(found)


def _ends(scores: Sequence[float]) -> dict[str, Any]:
    return {"lowest_score": min(scores), "highest_score": max(scores)}


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    try:
        with whole_file(path) as partial:
            partial.write_bytes(text.encode())
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error
