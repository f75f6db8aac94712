"""Asks nsysmoe about a mutant, in this process or as a program, and judges what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from nsysmoe.cli import main
from tests.fuzz.answers import WrongAnswerError, check_comparison, check_page, check_trace
from tests.fuzz.documents import check_document

if TYPE_CHECKING:
    from tests.fuzz.mutants import Mutant

# Of a core: how long the clock runs meanwhile is a matter of what else runs here.
MOST_SECONDS = 20.0
# By the clock, for what waits for ever and works no more.
PATIENCE_S = 300.0
MOST_MEMORY_MIB = 1024
_LONGEST_LINE = 2_000
_FINDING = re.compile(r"(info|warning|error|gate): ")


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant.

    Attributes:
        number: Which.
        source: The seed.
        change: What was done to it.
        command: What was asked.
        kind: ``answer``, ``refused``, or ``defect``.
        detail: The line that refused it, or what is wrong.
        seconds: Time of the processor that it took; of a program, that of its parent alone.
        memory_mib: By how much resident memory rose at most; 0 where not measured.
    """

    number: int
    source: str
    change: str
    command: str
    kind: str
    detail: str
    seconds: float = 0.0
    memory_mib: int = 0

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Said:
    """What the command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str


class _DefectError(AssertionError):
    """What nsysmoe must not do."""


def judge(mutant: Mutant, *, as_program: bool = False) -> Outcome:
    """Run the command of a mutant and say whether it did right."""
    started, before = time.process_time(), _start_of_memory()
    try:
        said = _as_program(mutant) if as_program else _in_process(mutant)
        seconds, memory = time.process_time() - started, _memory_since(before)
        kind, detail = _judged(mutant, said)
        _check_bounds(seconds, memory)
    except (_DefectError, WrongAnswerError) as error:
        seconds, memory = time.process_time() - started, _memory_since(before)
        kind, detail = "defect", str(error)
    except Exception as error:  # noqa: BLE001 - plain Python cannot read what was answered
        seconds, memory = time.process_time() - started, _memory_since(before)
        kind, detail = "defect", f"answered what the oracle cannot: {error!r}"
    return Outcome(
        mutant.number, mutant.source, mutant.change, mutant.command, kind, detail[:3000],
        round(seconds, 3), memory,
    )  # fmt: skip


def _in_process(mutant: Mutant) -> Said:
    found = CliRunner().invoke(main, list(mutant.arguments), prog_name="nsysmoe")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise _DefectError("".join(traceback.format_exception(found.exception))[-3000:])
    return Said(found.exit_code, found.stdout, found.stderr)


def _as_program(mutant: Mutant) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "nsysmoe", *mutant.arguments],
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=PATIENCE_S,
        cwd=Path(__file__).parents[2], env={**os.environ, "NSYSMOE_DEBUG": ""},
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def _judged(mutant: Mutant, said: Said) -> tuple[str, str]:
    if said.code == 0:
        _check_answer(mutant, said)
        return "answer", ""
    if said.code == 3:
        raise _DefectError("a gate that nobody asked for")
    lines = [
        line
        for line in said.stderr.splitlines()
        if not _FINDING.match(line) and not line.startswith("Wrote ")
    ]
    if said.code not in {1, 2} or len(lines) != 1 or not lines[0].startswith("Error: "):
        raise _DefectError(f"exit {said.code} with {len(lines)} lines: {said.stderr[-2000:]}")
    if not lines[0].isprintable() or len(lines[0]) > _LONGEST_LINE:
        raise _DefectError(f"a line of {len(lines[0])} characters: {lines[0][:300]!r}")
    if "is a defect" in lines[0]:
        raise _DefectError(lines[0])
    if mutant.output.exists():
        raise _DefectError(f"refused, and yet wrote {mutant.output.name}")
    if said.stdout and mutant.command != "info":
        raise _DefectError(f"refused after printing {len(said.stdout)} characters")
    return "refused", lines[0]


def _check_answer(mutant: Mutant, said: Said) -> None:
    """Check an answer, and what went with it: findings alone, and no file but the one asked for."""
    odd = [
        line
        for line in said.stderr.splitlines()
        if not _FINDING.match(line) and not line.startswith("Wrote ")
    ]
    if odd:
        raise _DefectError(f"said beside an answer: {odd[0][:500]}")
    if "\x1b" in said.stdout + said.stderr:
        raise _DefectError("a control sequence reached the terminal")
    if mutant.command == "report":
        check_page(mutant.output.read_text(encoding="utf-8"))
    elif mutant.command == "compare" and mutant.traces:
        check_comparison(said.stdout, (mutant.traces[0], mutant.traces[1]))
    elif mutant.traces:
        check_trace(mutant.command, said.stdout, mutant.traces[0])
    else:
        check_document(mutant, said.stdout)


def _check_bounds(seconds: float, memory: int) -> None:
    if seconds > MOST_SECONDS:
        raise _DefectError(f"took {seconds:.1f} s of a core")
    if memory > MOST_MEMORY_MIB:
        raise _DefectError(f"took {memory:,} MiB")


def _start_of_memory() -> int:
    """Begin to measure the largest resident memory anew; return what it is now, MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0
    return _status("VmRSS")


def _memory_since(before: int) -> int:
    return max(0, _status("VmHWM") - before) if before else 0


def _status(key: str) -> int:
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) >> 10
    return 0
