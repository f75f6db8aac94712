"""What both scripts beside vLLM share: requests, rounds, their record. The standard library only.

Nothing here imports nsysmoe: the interpreter that has vLLM need not have it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

SCHEMA_VERSION = 1
# Ids below it are often markers: the end of a text, padding.
_FIRST_TOKEN = 10
_SMALLEST_TILE = 8
# From here on steps between sizes grow with them: 8 up to 2,048 tokens, 16 up to 4,096.
_SIZES_A_DOUBLING = 128


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of requests and rounds."""
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--prompts", type=Path, help="JSON lines of prompts")
    parser.add_argument("--num-prompts", type=int, default=32)
    parser.add_argument("--input-len", type=int, default=256)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", default="", help="batch sizes to warm up with")
    parser.add_argument("--settle", type=int, default=0, help="tokens of one request after these")
    parser.add_argument("--unprofiled-rounds", type=int, default=2)
    parser.add_argument(
        "--measured-rounds", type=int, default=0, help="after them, in place of the profiled one"
    )
    parser.add_argument("--record", type=json.loads, default={}, help="what to write down")


def sweep_of(options: argparse.Namespace) -> list[int]:
    """Return the batch sizes to try before anything counts."""
    return [int(size) for size in options.sweep.split(",") if size]


def sizes_to_warm(requests: list[dict[str, Any]], tokens: int, sequences: int) -> list[int]:
    """Return sizes of steps, in tokens, that together meet every kernel that these requests need.

    Prompts of one length that all fit into a step are never cut, so that whole prompts and single
    tokens are all that steps consist of; most sizes cannot occur then.

    Args:
        requests: The requests of a round.
        tokens: Tokens of a step at most.
        sequences: Requests of a step at most.
    """
    # Texts have any length.
    lengths = {len(request.get("prompt_token_ids", ())) for request in requests}
    rows = min(len(requests), sequences)
    if 0 in lengths:
        return step_sizes(tokens)
    most = min(tokens, sum(len(request["prompt_token_ids"]) + 1 for request in requests))
    sizes = step_sizes(most)
    if len(lengths) > 1 or rows * max(lengths) > tokens:
        return sizes
    below = [0, *sizes]
    (length,) = lengths
    return [
        size
        # A full tile stands for all sizes down to the one before it, the odd one below it as well.
        for before, size, after in zip(below, sizes, [*sizes[1:], most], strict=False)
        if occurs(before, after, length, rows)
    ]


def occurs(first: int, last: int, length: int, rows: int) -> bool:
    """Tell whether whole prompts and single tokens of others make a step of ``first`` to ``last``.

    Args:
        first: Tokens of a step at least.
        last: At most.
        length: Tokens of each prompt.
        rows: Requests of a step at most.

    >>> [size for size in range(1, 13) if occurs(size, size, length=5, rows=3)]
    [1, 2, 3, 5, 6, 7, 10, 11]
    """
    prompts = range(min(rows, last // length) + 1)
    return any(count * (length - 1) + rows >= first for count in prompts)


def step_sizes(most: int) -> list[int]:
    """Return sizes of steps, in tokens, that together meet every kernel up to the largest.

    Tiles of matrix products are multiples of 8 rows, and matter less the more of them there are.
    Libraries choose by 8 dividing the size, too, and Triton compiles a kernel apart for sizes that
    16 does not divide: beside every multiple stands an odd size in the same tiles. vLLM changes the
    tiles of its experts after powers of two (and again a few tokens later, by the tokens of an
    expert): the size after each is one of its own.

    >>> step_sizes(24)
    [2, 3, 5, 7, 8, 9, 15, 16, 17, 23, 24]
    """
    sizes = {most, *((1 << power) + 1 for power in range(most.bit_length()))}
    size = 0
    while size < most:
        size += max(_SMALLEST_TILE, size // _SIZES_A_DOUBLING // _SMALLEST_TILE * _SMALLEST_TILE)
        sizes |= {size - 1, size}
    return sorted(size for size in sizes if size <= most)


def requests_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the requests of one round: ``prompt`` or ``prompt_token_ids``, and ``max_tokens``."""
    if options.prompts is None:
        return _random_requests(options)
    # By line feeds alone: a prompt may hold what Unicode calls a line's end.
    with options.prompts.open(encoding="utf-8-sig", newline="\n") as lines:
        found = [json.loads(line) for line in lines if line.strip()]
    return [{"max_tokens": options.output_len, **request} for request in found]


def _random_requests(options: argparse.Namespace) -> list[dict[str, Any]]:
    draw = random.Random(options.seed)  # noqa: S311 - a workload, not a secret
    return [
        {
            "prompt_token_ids": [
                draw.randrange(_FIRST_TOKEN, options.vocabulary) for _ in range(options.input_len)
            ],
            "max_tokens": options.output_len,
        }
        for _ in range(options.num_prompts)
    ]


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Return when requests of a Poisson process come, s after the first; 0 for all if infinite."""
    draw = random.Random(seed)  # noqa: S311 - a workload, not a secret
    found = [0.0] * min(count, 1)
    while len(found) < count:
        found.append(found[-1] + (0.0 if math.isinf(rate) else draw.expovariate(rate)))
    return found


def digest_of(requests: list[dict[str, Any]]) -> str:
    """Return what tells workloads apart."""
    return hashlib.sha256(json.dumps(requests, sort_keys=True).encode()).hexdigest()


class Stages:
    """Says what is being done, a line each, to who started the script."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.jsonl"

    def enter(self, stage: str, number: int = 0, of: int = 0) -> None:
        """Write down that a stage begins."""
        line = json.dumps({"stage": stage, "number": number, "of": of, "at": time.time()})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def now() -> str:
    """Return the time of day, as run.json writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def round_of(name: str, wall_s: float, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one round as run.json holds it."""
    return {"round": name, "summary": summary_of(wall_s, requests), "requests": requests}


def summary_of(wall_s: float, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians and tails over requests, and throughput."""
    written = sum(request["output_tokens"] for request in requests)
    read = sum(request["prompt_tokens"] for request in requests)
    found: dict[str, Any] = {
        "wall_s": wall_s,
        "requests": len(requests),
        "output_tok_per_s": written / wall_s,
        "total_tok_per_s": (written + read) / wall_s,
    }
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        values = sorted(request[key] for request in requests if request[key] is not None)
        for share in (50, 90, 99):
            found[f"{key[:-2]}_p{share}_s"] = _quantile(values, share / 100)
    return found


def _quantile(values: list[float], share: float) -> float | None:
    """Return a quantile with linear interpolation; None of nothing."""
    if not values:
        return None
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def write_json(path: Path, value: Any) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
