"""What runs measured: JSON of ``vllm bench serve`` and ``vllm bench sweep``, and run.json."""

from __future__ import annotations

from statistics import fmean, median, pstdev, quantiles
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Keys of vLLM's benchmark that are neither settings nor what is kept of the measurement.
_BOOKKEEPING = {
    "date", "label", "endpoint_type", "backend", "tokenizer_id", "duration", "completed",
    "failed", "total_input_tokens", "total_output_tokens", "request_throughput",
    "request_goodput", "output_throughput", "total_token_throughput", "run_number",
    "max_output_tokens_per_s", "max_concurrent_requests", "_benchmark_name", "rtfx",
    "probe_completed", "probe_failed", "total_input_sequences", "input_sequence_throughput",
}  # fmt: skip
# How keys begin that it measures of speculative decoding and of diffusion: no two runs agree.
_MEASURED_BESIDE = ("spec_decode_", "diffusion_")
_LATENCIES = ("ttft", "tpot")
# What its statistics are called, and ours.
_STATISTICS = {"mean": "", "std": "_stddev", "median": "_p50", "p99": "_p99"}
_THROUGHPUTS = {
    "request_throughput": "requests_per_s",
    "output_throughput": "output_tokens_per_s",
}
_LONGEST = "longest_round_over_median"
# What a row tells of a measurement, beside routing, data set and settings.
MEASURED = (
    "source", "digest", "rounds", "requests", "failed",
    *(f"{measure}{end}_s" for measure in _LATENCIES for end in _STATISTICS.values()),
    *(f"{measure}{end}" for measure in _THROUGHPUTS.values() for end in ("", "_stddev")),
    _LONGEST,
)  # fmt: skip
# How vLLM's sweep numbers the run that only warms up.
_WARMUP = -1
# Rounds that no profiler slowed down: beside a profiled one, or all of a run.
_UNPROFILED = ("control", "measured")
_MOST_BYTES = 1 << 30
# Beyond any count of tokens, and well within what sums of doubles hold.
_LARGEST = 1e15
# Of two rounds, neither is the usual one.
_FEWEST_ROUNDS = 3


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return a row a run of a JSON file; none where it holds something else.

    Returns:
        ``source``, ``routing``, ``dataset``, ``digest`` (SHA-256 of the file of prompts) and
        ``settings`` (a dict), each None where not known; ``rounds``, ``requests``, ``failed``;
        ``ttft_s`` and ``tpot_s`` (means over requests) with ``_stddev_s``, ``_p50_s``, ``_p99_s``;
        ``requests_per_s``, ``output_tokens_per_s`` (means over rounds) with ``_stddev``, null
        where there is one round; ``longest_round_over_median``, of rounds' wall times, null for
        fewer than three.

    Raises:
        InputError: The file is no JSON, or a measurement no number.
    """
    found = read_json(path, largest=_MOST_BYTES)
    records = found if isinstance(found, list) else [found]
    rows = []
    for record in records:
        if isinstance(record, dict) and "request_throughput" in record:
            if record.get("run_number") == _WARMUP:
                continue
            rows.append(_benchmark(path, record))
        elif isinstance(record, dict) and isinstance(record.get("runs"), list):
            rows += _captured(path, record)
    for row in rows:
        _check_texts(path, row)
    return rows


def _check_texts(path: Path, row: dict[str, Any]) -> None:
    """Refuse texts that JSON can hold and no table can: halves of surrogate pairs."""
    texts = (*row.values(), *row["settings"], *row["settings"].values())
    try:
        "".join(text for text in texts if isinstance(text, str)).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path} holds a text that is half of a surrogate pair") from error


def _benchmark(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one result of ``vllm bench serve``; a sweep adds its options as keys."""
    settings = {
        key.replace("-", "_"): _plain(value)
        for key, value in record.items()
        if key not in _BOOKKEEPING
        and not key.endswith("_ms")
        and not key.startswith(_MEASURED_BESIDE)
        and isinstance(value, str | int | float | bool)
    }
    dataset = settings.pop("dataset", None) or settings.pop("dataset_path", None)
    row = {
        "source": str(path),
        "routing": settings.pop("routing", None) or _routing(settings),
        "dataset": None if dataset is None else str(dataset),
        "digest": None,
        "rounds": 1,
        "requests": _number(path, record, "completed"),
        "failed": _number(path, record, "failed"),
    }
    for measure in _LATENCIES:
        for theirs, ours in _STATISTICS.items():
            value = _number(path, record, f"{theirs}_{measure}_ms")
            row[f"{measure}{ours}_s"] = None if value is None else value / 1e3
    for theirs, ours in _THROUGHPUTS.items():
        row |= {ours: _number(path, record, theirs), f"{ours}_stddev": None}
    return {**row, _LONGEST: None, "settings": settings}


def _captured(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the row of a run.json: its rounds without a profiler, else the last one."""
    rounds = [one for one in record["runs"] if isinstance(one, dict)]
    if not rounds or not isinstance(record.get("args"), dict):
        return []
    chosen = [one for one in rounds if one.get("round") in _UNPROFILED] or rounds[-1:]
    requests = [row for one in chosen for row in one.get("requests", []) if isinstance(row, dict)]
    settings = {
        key.replace("-", "_"): _plain(value)
        for key, value in record["args"].items()
        if isinstance(value, str | int | float | bool)
    }
    dataset = settings.pop("dataset", None)
    row = {
        "source": str(path),
        "routing": settings.pop("routing", None) or _routing(settings),
        "dataset": None if dataset is None else str(dataset),
        "digest": _digest(record),
        "rounds": len(chosen),
        "requests": len(requests),
        "failed": sum(_number(path, one, "failed") or 0 for one in chosen),
    }
    for measure in _LATENCIES:
        values = [_number(path, one, f"{measure}_s") for one in requests]
        row.update(_spread(measure, [value for value in values if value is not None]))
    row.update(_throughput(path, chosen))
    return [{**row, "settings": settings}]


def _throughput(path: Path, rounds: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return means over rounds, their deviation, and how far the longest one stands out."""
    found: dict[str, list[float]] = {name: [] for name in _THROUGHPUTS.values()}
    walls: list[float] = []
    for one in rounds:
        summary, rows = one.get("summary"), one.get("requests")
        wall = _number(path, summary, "wall_s") if isinstance(summary, dict) else None
        if wall and isinstance(rows, list):
            requests = [row for row in rows if isinstance(row, dict)]
            tokens = sum(_number(path, row, "output_tokens") or 0 for row in requests)
            walls.append(wall)
            found["requests_per_s"].append(len(requests) / wall)
            found["output_tokens_per_s"].append(tokens / wall)
    row: dict[str, float | None] = {}
    for name, values in found.items():
        row[name] = fmean(values) if values else None
        row[f"{name}_stddev"] = pstdev(values) if len(values) > 1 else None
    is_told = len(walls) >= _FEWEST_ROUNDS
    row[_LONGEST] = max(walls) / median(walls) if is_told else None
    return row


def _digest(record: dict[str, Any]) -> str | None:
    """Return SHA-256 of the file of prompts, where a capture wrote it down."""
    found: Any = record
    for key in ("capture", "spec", "workload", "prompts_digest"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _spread(measure: str, values: Sequence[float]) -> dict[str, float | None]:
    names = [f"{measure}{end}_s" for end in _STATISTICS.values()]
    if not values:
        return dict.fromkeys(names)
    # One value has all of its quantiles; quantiles() asks for two.
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return dict(zip(names, (fmean(values), pstdev(values), cuts[49], cuts[98]), strict=True))


def _routing(settings: dict[str, Any]) -> str | None:
    """Return which of the paper's configurations options are; None where they do not tell."""
    for key in ("enable_expert_parallel", "ep"):
        if key in settings:
            return "all2all" if str(settings[key]).lower() in {"true", "on"} else "baseline"
    return None


def _plain(value: Any) -> Any:
    """Return a number for a text that is one: --metadata writes texts."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _number(path: Path, record: dict[str, Any], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LARGEST:
        raise InputError(f"{path} holds a {key} that is no measurement: {str(value)[:40]}")
    return float(value)
