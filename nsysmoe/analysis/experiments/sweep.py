"""A sweep: what it will cost, and what its runs measured, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.sweep.results import read_results
from nsysmoe.sweep.table import EXPECTED_SCORE, OBSERVED_CV

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import polars as pl

_LOG = "routing.npz"
_SUMMARY = "summary.json"
_FAILURE = "failure.json"
# Where a capture puts runs that do not count, and what lies beside it.
_FAILED, _MANIFEST = "failed", "manifest.json"
# Where it makes those that are not whole yet.
_WORK = ".work"
# Rounds repeat the same requests. On H100s, chance made the longest up to 1.1 times the median, and
# code that was loaded in it 2 to 3.2 times.
UNEVEN = 1.5
# Runs that a sentence names.
_NAMED = 5
# Columns in front, in the order of a reader; settings follow, then measures.
_FIRST = ("point", "routing", "dataset", "repeat")


@dataclass(frozen=True)
class Collected:
    """The table of a sweep.

    Attributes:
        frame: A row a run: ``point``, ``routing``, ``dataset``, ``repeat``, the settings, and
            what ``read_results`` says; ``expected_score`` and ``observed_cv`` where known.
        findings: What was left out, and what makes means doubtful.
    """

    frame: pl.DataFrame
    findings: tuple[Finding, ...]


def collect(
    paths: Sequence[Path | str], *, suite: Path | str | None = None, experts: int | None = None
) -> Collected:
    """Read the results below some folders into one table.

    Args:
        paths: Folders, searched whole, or JSON files.
        suite: ``manifest.json`` of ``workload generate``, for expected scores.
        experts: Logical experts of a layer; None for the highest that a log names, plus one.

    Raises:
        MissingDataError: There is no result.
        NsysmoeError: A path or the manifest cannot be read.
    """
    rows: list[dict[str, Any]] = []
    damaged: list[str] = []
    failed: list[str] = []
    for file in _files([Path(path) for path in paths]):
        if file.name.endswith(_FAILURE) or _is_set_aside(file):
            failed.append(str(file))
            continue
        try:
            rows += [{**row, OBSERVED_CV: _cv(file, experts)} for row in read_results(file)]
        except InputError as error:
            damaged.append(str(error))
    if not rows:
        why = f"; {damaged[0]}" if damaged else ""
        raise MissingDataError(
            f"no result of a run below {', '.join(map(str, paths))}: neither run.json nor JSON of "
            f"vllm bench{why}"
        )
    scores = _scores(Path(suite) if suite else None)
    frame = _frame({**row, EXPECTED_SCORE: _score(row, scores)} for row in rows)
    return Collected(frame, (*_left_out(damaged, failed), *_uneven(frame)))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist; name folders or files of results")
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            # A summary repeats the files beside it.
            is_copy = file.name == _SUMMARY and any(file.parent.glob("run=*.json"))
            is_part = _WORK in file.relative_to(path).parts if path.is_dir() else False
            if not is_copy and not is_part and file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _is_set_aside(file: Path) -> bool:
    """Tell whether a capture says that this run does not count."""
    place = next((one for one in file.parents if one.name == _FAILED), None)
    return place is not None and place.with_name(_MANIFEST).is_file()


def _cv(file: Path, experts: int | None) -> float | None:
    """Return the observed imbalance of the routing log beside a record (section 5.3.2)."""
    log = file.with_name(_LOG)
    if not log.is_file():
        return None
    from nsysmoe.metrics.routed_load.expert_load import mean_layer_cv  # noqa: PLC0415 - polars
    from nsysmoe.routing.log import read_vllm_log  # noqa: PLC0415

    choices = read_vllm_log(log).choices
    try:
        return mean_layer_cv(choices, experts)
    except InputError as error:
        raise InputError(f"{log}: {error}") from error


def _scores(suite: Path | None) -> dict[str, float]:
    """Return the score of each set, by its digest and by its file."""
    if suite is None:
        return {}
    sets = read_json_object(suite).get("sets")
    if not isinstance(sets, list):
        raise InputError(f"{suite} is no manifest of nsysmoe workload generate: it has no `sets`")
    try:
        scores = {str(one[key]): float(one["score"]) for one in sets for key in ("sha256", "file")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{suite} holds a set without file, sha256 and score") from error
    if odd := [score for score in scores.values() if not 0 <= score <= 1]:
        raise InputError(f"{suite} holds the score {odd[0]}; scores lie between 0 and 1")
    return scores


def _score(row: dict[str, Any], scores: dict[str, float]) -> float | None:
    if row["digest"] in scores:
        return scores[row["digest"]]
    return scores.get(Path(row["dataset"]).name) if row["dataset"] else None


def _frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415 - slow to import

    repeats: dict[str, int] = {}
    flat = []
    for row in rows:
        settings = row.pop("settings")
        point = _point(row, settings)
        repeats[point] = repeats.get(point, 0) + 1
        # Measures win over a setting of the same name.
        flat.append({**settings, **row, "point": point, "repeat": repeats[point]})
    frame = pl.DataFrame(flat, infer_schema_length=None, strict=False)
    measured = [name for name in row if name not in _FIRST]
    others = [name for name in frame.columns if name not in {*_FIRST, *measured}]
    return frame.select(*_FIRST, *others, *measured)


def _point(row: dict[str, Any], settings: dict[str, Any]) -> str:
    parts = [f"{name}={value}" for name, value in sorted(settings.items())]
    return ",".join([str(row["routing"]), *parts, str(row["dataset"] or row["digest"] or "")])


def _left_out(damaged: Sequence[str], failed: Sequence[str]) -> Iterator[Finding]:
    if damaged:
        message = f"{len(damaged)} file(s) were left out: {'; '.join(damaged)}"
        yield Finding("damaged_results", "warning", message, {"files": len(damaged)})
    if failed:
        message = f"{len(failed)} run(s) failed and are not in the table: {', '.join(failed)}"
        yield Finding("failed_runs", "warning", message, {"files": list(failed)})


def _uneven(frame: pl.DataFrame) -> Iterator[Finding]:
    """Name runs of which one round of the same requests took much longer than the others."""
    ratio = frame["longest_round_over_median"].cast(float)
    runs = frame.filter(ratio > UNEVEN).select("source", "longest_round_over_median").to_dicts()
    if not runs:
        return
    named = "; ".join(
        f"{run['source']} ({run['longest_round_over_median']:.1f} times the median)"
        for run in runs[:_NAMED]
    )
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    message = (
        f"{len(runs)} run(s) hold a round that took much longer than their others; their means "
        f"hold it, their medians do not: {named}{more}"
    )
    yield Finding("uneven_rounds", "warning", message, {"runs": runs})
