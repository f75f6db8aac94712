"""Making one run: its programs, what they say of their stages, and how they end."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from nsysmoe.capture import keep
from nsysmoe.capture.probe import used_bytes
from nsysmoe.capture.process import Program
from nsysmoe.capture.signals import undisturbed
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nsysmoe.capture.plan import Command, RunPlan
    from nsysmoe.capture.spec import Spec

    Say = Callable[[str], None]

_POLL_S = 0.1
_EXPORT_S = 1800.0
# nsys turns what it gathered into a report after the range, while the server still runs.
_REPORT_S = 60.0
# A report that has not grown for so long is whole.
_SETTLED_S = 1.0
_IDLE_S = 60.0
_IDLE_BYTES = 1 << 30


class RunError(CaptureError):
    """A run came to no end that counts; ``log`` is what the engine said last."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


class Stopped(Exception):  # noqa: N818 - no error: another run's, or a signal, asked for it
    """The run was not finished, since everything is to end."""


@dataclass
class Making:
    """One run that is being made.

    Attributes:
        spec: Of its arm.
        run: Its programs.
        work: The folder in which they work.
        title: What progress calls it.
        token: What its programs carry.
        say: Where progress goes, a line each.
        stopped: Set by another thread where everything is to end.
    """

    spec: Spec
    run: RunPlan
    work: Path
    title: str
    token: str
    say: Say
    stopped: Event = field(default_factory=Event)
    _stage: str = "starting"

    def execute(self) -> None:
        """Run vLLM, and the load on it, and export the report.

        Raises:
            RunError: A program crashed, hung or wrote nothing.
            Stopped: Another thread asked for the end; what was started is gone.
        """
        if self.run.load is None:
            self._offline()
        else:
            self._serve(self.run.load)
        self._wait_for_idle()
        self._require(self.work / "run.json", "the workload wrote no record")
        if self.run.export is not None:
            raw = (self.work / "trace.qdstrm").exists()
            otherwise = "nsys could not import what it recorded (trace.qdstrm)" if raw else ""
            self._require(self.work / "trace.nsys-rep", otherwise or "nsys wrote no report")
            self._export(self.run.export)

    def enter(self, stage: str) -> None:
        """Say that a stage begins."""
        self._stage = stage
        self.say(f"{self.title}: {stage}")

    def where(self) -> str:
        """Return the run and its stage, for the line that says why it ended."""
        return f"{self.title}, {self._stage}"

    def _offline(self) -> None:
        with self._running(self.run.engine, self.work / "engine.log") as program:
            status = self._watch(program)
        if status != 0:
            raise RunError(f"{self.where()}: vLLM ended with status {status}", self._last())

    def _serve(self, load: Command) -> None:
        with self._running(self.run.engine, self.work / "engine.log") as server:
            with self._running(load, self.work / "load.log") as client:
                status = self._watch(client, server)
            if status != 0:
                said = keep.tail(self.work / "load.log", 1)
                raise RunError(f"{self.where()}: the load failed ({said})", self._last())
            is_written = self.run.export is None or self._wait_for_report(server)
            server.interrupt()
            self._wait(server, self.spec.end_timeout_s if is_written else self._report_s())

    def _wait_for_report(self, server: Program) -> bool:
        """Wait until nsys has written its report, which an interrupt could cut short.

        Returns whether it has; an nsys that waits for the server's end has not.
        """
        self.enter("writing the report")
        report, size = self.work / "trace.nsys-rep", -1
        limit = time.monotonic() + self._report_s()
        while time.monotonic() < limit and server.status() is None:
            now = report.stat().st_size if report.exists() else -1
            if now > 0 and now == size:
                return True
            size = now
            self._pause(_SETTLED_S)
        return False

    def _report_s(self) -> float:
        return min(_REPORT_S, self.spec.run_timeout_s)

    def _require(self, path: Path, otherwise: str) -> None:
        if not path.is_file() or path.stat().st_size == 0:
            raise RunError(f"{self.where()}: {otherwise}", self._last())

    def _export(self, command: Command) -> None:
        self.enter("exporting")
        with self._running(command, self.work / "export.log") as program:
            status = self._wait(program, min(_EXPORT_S, self.spec.run_timeout_s))
        if status is None:
            raise RunError(f"{self.where()}: nsys export did not end; is the disk slow?")
        if status != 0 or not (self.work / "trace.sqlite").exists():
            said = keep.tail(self.work / "export.log", 1) or f"status {status}"
            raise RunError(f"{self.where()}: nsys export failed ({said})")

    @contextmanager
    def _running(self, command: Command, log: Path) -> Iterator[Program]:
        """Start a program; whatever happens, it and its children are gone afterwards."""
        try:
            program = Program(command, log, self.token)
        except OSError as error:
            raise CaptureError(
                f"{command.argv[0]} cannot be run ({error.strerror}); check --nsys and --python"
            ) from error
        try:
            yield program
        finally:
            with undisturbed():
                program.end(self.spec.end_timeout_s)

    def _watch(self, program: Program, server: Program | None = None) -> int:
        """Wait for the end and say which stage is reached.

        Raises:
            RunError: It took too long, or the server that it needs went away.
        """
        limit = time.monotonic() + self.spec.run_timeout_s
        stages = self.work / "stages.jsonl"
        seen = 0
        while (status := program.status()) is None:
            seen = self._read_stages(stages, seen)
            if time.monotonic() > limit:
                raise RunError(
                    f"{self.where()}: not done after {self.spec.run_timeout_s:.0f} s "
                    "(--run-timeout)",
                    self._last(),
                )
            if server is not None and (ended := server.status()) is not None:
                raise RunError(
                    f"{self.where()}: the server ended with status {ended}", self._last()
                )
            self._pause(_POLL_S)
        self._read_stages(stages, seen)
        return status

    def _wait(self, program: Program, timeout_s: float) -> int | None:
        """Wait for the end; None where it did not come in time."""
        limit = time.monotonic() + timeout_s
        while (status := program.status()) is None and time.monotonic() < limit:
            self._pause(_POLL_S)
        return status

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped

    def _read_stages(self, path: Path, seen: int) -> int:
        """Say stages that were entered since ``seen`` bytes; return how many there are now."""
        if not path.exists():
            return seen
        with path.open("rb") as file:
            file.seek(seen)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # A full disk cuts lines.
                continue
            number = f" {entry['number']} of {entry['of']}" if entry["of"] else ""
            self.enter(f"{entry['stage']}{number}")
        return seen + len(whole)

    def _wait_for_idle(self) -> None:
        """Wait until the driver has taken back the memory of what has ended."""
        limit = time.monotonic() + _IDLE_S
        ranks = self.spec.layout.ranks
        while (used := used_bytes(self.run.gpus)) is not None and time.monotonic() < limit:
            if all(size < _IDLE_BYTES for size in used[:ranks]):
                return
            self._pause(1.0)

    def _last(self) -> str:
        return keep.tail(self.work / "engine.log") or "(the engine said nothing)"
