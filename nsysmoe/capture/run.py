"""Making the runs of a plan, one after the other, and leaving nothing behind."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsysmoe import __version__
from nsysmoe.capture import keep, verify
from nsysmoe.capture.outcome import Outcome, Result, judge_arms, verify_run
from nsysmoe.capture.plan import plan
from nsysmoe.capture.probe import used_bytes
from nsysmoe.capture.process import Program, sweep
from nsysmoe.capture.signals import interruptible, undisturbed
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nsysmoe.capture.plan import Command, RunPlan
    from nsysmoe.capture.preflight import Facts
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


@dataclass
class Capture:
    """One capture into one folder.

    Attributes:
        spec: What to capture.
        root: Its folder.
        facts: What the machine said before.
        say: Where progress goes, a line each.
    """

    spec: Spec
    root: Path
    facts: Facts | None
    say: Say
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)
    _results: dict[str, Result] = field(default_factory=dict)
    _stage: str = "starting"

    def run(self) -> Outcome:
        """Make every run that is not there yet.

        Raises:
            CaptureError: The folder is not ours, or a program crashed, hung or wrote nothing.
            Interrupted: By a signal; everything that was started is gone.
        """
        runs = plan(self.spec, str(self.root))
        folder = keep.Folder(self.root)
        folder.check_same(self.spec)
        with folder.held(), interruptible():
            self._recover(folder, runs)
            try:
                for index, run in enumerate(runs, 1):
                    if not self._results[run.name].counts:
                        self._make(folder, run, f"[{index}/{len(runs)}] {run.name}")
            finally:
                # What was started while a signal came.
                sweep(self._token)
                outcome = self._outcome()
                self._write_manifest(folder, outcome)
        return outcome

    def progress(self) -> str:
        """Return how far it came, for the line that says why it ended."""
        done = sum(result.counts for result in self._results.values())
        return f"{done} of {len(self._results)} runs are complete in {self.root}"

    def _recover(self, folder: keep.Folder, runs: tuple[RunPlan, ...]) -> None:
        """End what a killed capture left running, and see which runs it finished."""
        if (token := folder.token()) and (ended := sweep(token)):
            self.say(f"ended {ended} processes that an earlier capture left")
        folder.set_token(self._token)
        known = {entry["folder"]: entry for entry in (folder.manifest() or {"runs": []})["runs"]}
        for run in runs:
            result = Result(run.arm, run.number, run.folder)
            if folder.is_finished(run):
                entry = known.get(run.folder)
                is_known = entry is not None and entry["status"] in {"complete", "unverified"}
                result = Result.from_dict(entry) if is_known and entry else result
                # Whole folders appear by one rename: only the manifest came too late.
                result.status = result.status if is_known else "unverified"
                self.say(f"{run.name} is there already")
            self._results[run.name] = result
        self._write_manifest(folder, self._outcome())

    def _make(self, folder: keep.Folder, run: RunPlan, title: str) -> None:
        began = time.monotonic()
        work = folder.begin(run)
        result = Result(run.arm, run.number, run.folder)
        self._title = title
        try:
            self._execute(run, work)
            self._complete_record(work)
            self._verify(work, result)
        except CaptureError as error:
            self._set_aside(folder, run, result, str(error))
            raise
        result.wall_s = time.monotonic() - began
        if bad := verify.failed(result.checks):
            self._set_aside(folder, run, result, "; ".join(check.line() for check in bad))
            self.say(f"{title}: does not count: {result.reason}")
        else:
            self._finish(folder, run, result)
        self._write_manifest(folder, self._outcome())

    def _finish(self, folder: keep.Folder, run: RunPlan, result: Result) -> None:
        folder.finish(run)
        # Not before: what is interrupted here is not there.
        self._results[run.name] = result
        said = "complete" if result.status == "complete" else "complete, not verified here"
        self.say(f"{self._title}: {said} in {result.wall_s or 0:.0f} s{self._left()}")

    def _set_aside(self, folder: keep.Folder, run: RunPlan, result: Result, reason: str) -> None:
        result.status, result.reason = "failed", reason
        result.folder = folder.set_aside(run.name, run.work)
        self._results[run.name] = result

    def _execute(self, run: RunPlan, work: Path) -> None:
        """Run vLLM, and the load on it, and export the report."""
        if run.load is None:
            self._offline(run, work)
        else:
            self._serve(run, run.load, work)
        self._wait_for_idle()
        self._require(work / "run.json", "the workload wrote no record")
        if run.export is not None:
            raw = (work / "trace.qdstrm").exists()
            otherwise = "nsys could not import what it recorded (trace.qdstrm)" if raw else ""
            self._require(work / "trace.nsys-rep", otherwise or "nsys wrote no report")
            self._export(run.export, work)

    def _offline(self, run: RunPlan, work: Path) -> None:
        with self._running(run.engine, work / "engine.log") as program:
            status = self._watch(program, work)
        if status != 0:
            raise RunError(f"{self._where()}: vLLM ended with status {status}", _last(work))

    def _serve(self, run: RunPlan, load: Command, work: Path) -> None:
        log = work / "engine.log"
        with self._running(run.engine, log) as server:
            with self._running(load, work / "load.log") as client:
                status = self._watch(client, work, server)
            if status != 0:
                said = keep.tail(work / "load.log", 1)
                raise RunError(f"{self._where()}: the load failed ({said})", _last(work))
            is_written = run.export is None or self._wait_for_report(work, server)
            server.interrupt()
            server.wait(self.spec.end_timeout_s if is_written else self._report_s())

    def _wait_for_report(self, work: Path, server: Program) -> bool:
        """Wait until nsys has written its report, which an interrupt could cut short.

        Returns whether it has; an nsys that waits for the server's end has not.
        """
        self._enter("writing the report")
        report, limit, size = work / "trace.nsys-rep", time.monotonic() + self._report_s(), -1
        while time.monotonic() < limit and server.status() is None:
            now = report.stat().st_size if report.exists() else -1
            if now > 0 and now == size:
                return True
            size = now
            time.sleep(_SETTLED_S)
        return False

    def _report_s(self) -> float:
        return min(_REPORT_S, self.spec.run_timeout_s)

    def _require(self, path: Path, otherwise: str) -> None:
        if not path.is_file() or path.stat().st_size == 0:
            raise RunError(f"{self._where()}: {otherwise}", _last(path.parent))

    def _export(self, command: Command, work: Path) -> None:
        self._enter("exporting")
        with self._running(command, work / "export.log") as program:
            status = program.wait(min(_EXPORT_S, self.spec.run_timeout_s))
        if status is None:
            raise RunError(f"{self._where()}: nsys export did not end; is the disk slow?")
        if status != 0 or not (work / "trace.sqlite").exists():
            said = keep.tail(work / "export.log", 1) or f"status {status}"
            raise RunError(f"{self._where()}: nsys export failed ({said})")

    @contextmanager
    def _running(self, command: Command, log: Path) -> Iterator[Program]:
        """Start a program; whatever happens, it and its children are gone afterwards."""
        try:
            program = Program(command, log, self._token)
        except OSError as error:
            raise CaptureError(
                f"{command.argv[0]} cannot be run ({error.strerror}); check --nsys and --python"
            ) from error
        try:
            yield program
        finally:
            with undisturbed():
                program.end(self.spec.end_timeout_s)

    def _watch(self, program: Program, work: Path, server: Program | None = None) -> int:
        """Wait for the end and say which stage is reached.

        Raises:
            CaptureError: It took too long, or the server that it needs went away.
        """
        limit = time.monotonic() + self.spec.run_timeout_s
        seen = 0
        while (status := program.status()) is None:
            seen = self._read_stages(work / "stages.jsonl", seen)
            if time.monotonic() > limit:
                raise RunError(
                    f"{self._where()}: not done after {self.spec.run_timeout_s:.0f} s "
                    "(--run-timeout)",
                    _last(work),
                )
            if server is not None and (ended := server.status()) is not None:
                raise RunError(
                    f"{self._where()}: the server ended with status {ended}", _last(work)
                )
            time.sleep(_POLL_S)
        self._read_stages(work / "stages.jsonl", seen)
        return status

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
            self._enter(f"{entry['stage']}{number}")
        return seen + len(whole)

    def _enter(self, stage: str) -> None:
        self._stage = stage
        self.say(f"{self._title}: {stage}")

    def _where(self) -> str:
        return f"{self._title}, {self._stage}"

    def _left(self) -> str:
        """Return how long the rest may take, by the runs that were made."""
        times = [one.wall_s for one in self._results.values() if one.wall_s is not None]
        rest = sum(one.status == "missing" for one in self._results.values())
        if rest < 1 or not times:
            return ""
        return f", about {rest * sum(times) / len(times) / 60:.0f} min left"

    def _wait_for_idle(self) -> None:
        """Wait until the driver has taken back the memory of what has ended."""
        limit = time.monotonic() + _IDLE_S
        while (used := used_bytes()) is not None and time.monotonic() < limit:
            if all(size < _IDLE_BYTES for size in used[: self.spec.layout.ranks]):
                return
            time.sleep(1.0)

    def _complete_record(self, work: Path) -> None:
        """Add to run.json what the workload could not know."""
        path = work / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{self._where()}: run.json is not JSON") from error
        keep.write_json(path, {**record, "capture": self._about()})

    def _about(self) -> dict[str, Any]:
        facts = self.facts
        return {
            "nsysmoe": __version__,
            "nsys": facts.nsys if facts else None,
            "driver": facts.driver if facts else None,
            "gpus": [gpu.name for gpu in (facts.gpus or ())] if facts else [],
            "spec": self.spec.to_dict(),
            "spec_digest": self.spec.digest(),
        }

    def _verify(self, work: Path, result: Result) -> None:
        if self.spec.profile == "outside" or not verify.can_verify():
            result.status = "unverified"
            return
        self._enter("verifying")
        verify_run(work, self.spec.to_dict(), result)

    def _outcome(self) -> Outcome:
        results = list(self._results.values())
        return Outcome(results, judge_arms(results))

    def _write_manifest(self, folder: keep.Folder, outcome: Outcome) -> None:
        about = self._about()
        folder.write_manifest({**about, **outcome.to_dict()})


def _last(work: Path) -> str:
    return keep.tail(work / "engine.log") or "(the engine said nothing)"
