"""Judge many mutants: ``python -m tests.fuzz --mutants 10000 --log fuzz.jsonl``.

The log holds a line a mutant; a run that was stopped goes on where it ended. The seed and a number
tell a mutant: ``--only 123 --keep FOLDER`` makes it again, prints its command and what came of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.judge import Outcome, judge
from tests.fuzz.mutants import TRACES, make
from tests.fuzz.pool import Draws, judged
from tests.fuzz.seeds import write_corpus


def main() -> int:
    """Return 1 where a mutant found a defect."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="nsysmoe-corpus-") as name:
        corpus = Path(name)
        write_corpus(corpus)
        if asked.only is not None:
            return _one(corpus, asked)
        known = _known(asked.log)
        left = [number for number in range(asked.mutants) if number not in known]
        if known:
            print(f"{len(known):,} mutants are in {asked.log} already", file=sys.stderr)
        started = time.monotonic()
        with asked.log.open("a", encoding="utf-8") as log:

            def keep(outcome: Outcome) -> None:
                known[outcome.number] = outcome
                log.write(outcome.line())
                log.flush()
                if sys.stderr.isatty():
                    print(f"\r{len(known):,}", end="", file=sys.stderr)

            judged(Draws(corpus, asked.seed, asked.traces), left, asked.workers, keep)
    return _summary(list(known.values()), time.monotonic() - started, asked.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--traces", type=float, default=TRACES, help="Their share, 0 to 1.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--only", type=int, help="Make and judge this one alone.")
    parser.add_argument("--keep", type=Path, help="With --only: leave its files here.")
    return parser.parse_args()


def _known(log: Path) -> dict[int, Outcome]:
    if not log.exists():
        return {}
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    # A run that was killed may have left half of a line.
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    log.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")
    return {values["number"]: Outcome(**values) for values in whole}


def _one(corpus: Path, asked: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        mutant = make(corpus, asked.seed, asked.only, folder, asked.traces)
        print(f"{mutant.source}: {mutant.change}\nnsysmoe {' '.join(mutant.arguments)}")
        outcome = judge(mutant)
        print(f"{outcome.kind} ({outcome.seconds} s, {outcome.memory_mib} MiB): {outcome.detail}")
        return int(outcome.kind == "defect")


def _summary(outcomes: list[Outcome], seconds: float, seed: int) -> int:
    kinds = Counter(outcome.kind for outcome in outcomes)
    print(f"{len(outcomes):,} mutants of seed {seed}; {seconds:,.0f} s for those of this call")
    print(", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items())))
    commands = Counter((outcome.command, outcome.kind) for outcome in outcomes)
    for command in sorted({command for command, _ in commands}):
        print(f"  {command:20} " + "".join(
            f"{kind} {commands[command, kind]:6,}   " for kind in ("answer", "refused", "defect")
        ))  # fmt: skip
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.memory_mib)
    print(f"slowest: {slowest.seconds} s, {slowest.command} of number {slowest.number}")
    print(f"largest: {largest.memory_mib} MiB, {largest.command} of number {largest.number}")
    for outcome in outcomes:
        if outcome.kind == "defect":
            print(f"{outcome.number} {outcome.source} {outcome.change} | {outcome.command}: "
                  f"{outcome.detail[-300:]}")  # fmt: skip
    return int(kinds["defect"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
