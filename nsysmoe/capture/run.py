"""Making the runs of a plan, in order or beside one another, and leaving nothing behind."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any

from nsysmoe import __version__
from nsysmoe.capture import keep, verify
from nsysmoe.capture.making import Making, RunError, Stopped
from nsysmoe.capture.outcome import Outcome, Result, judge_arms, keep_routing, verify_run
from nsysmoe.capture.plan import FAILED, placed, plan, slots
from nsysmoe.capture.process import sweep
from nsysmoe.capture.signals import interruptible, undisturbed
from nsysmoe.capture.spec import saved_arms
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nsysmoe.capture.plan import RunPlan, Slot
    from nsysmoe.capture.preflight import Facts
    from nsysmoe.capture.spec import Spec

    Say = Callable[[str], None]
    Todo = tuple[str, RunPlan]

# So many failures with no run that counts: the next will fail as well.
_HOPELESS = 3
_POLL_S = 0.2


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
    # Of arms that are not asked for this time.
    _others: list[dict[str, Any]] = field(default_factory=list)
    _other_arms: list[dict[str, Any]] = field(default_factory=list)
    _stopped: Event = field(default_factory=Event)
    _lock: RLock = field(default_factory=RLock)

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
            titled = [
                (f"[{index}/{len(runs)}] {run.name}", run) for index, run in enumerate(runs, 1)
            ]
            todo = [(title, run) for title, run in titled if not self._results[run.name].counts]
            try:
                self._make_all(folder, todo)
            finally:
                # What was started while a signal came.
                sweep(self._token)
                outcome = self._outcome()
                self._write_manifest(folder)
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
        self._remember_others(folder)
        known = {entry["folder"]: entry for entry in (folder.manifest() or {"runs": []})["runs"]}
        for run in runs:
            result = Result(run.arm.name, run.number, run.folder)
            if folder.is_finished(run):
                entry = known.get(run.folder)
                is_known = entry is not None and entry["status"] in {"complete", "unverified"}
                result = Result.from_dict(entry) if is_known and entry else result
                # Whole folders appear by one rename: only the manifest came too late.
                result.status = result.status if is_known else self._status_unseen()
                self.say(f"{run.name} is there already")
            self._results[run.name] = result
        self._write_manifest(folder)

    def _remember_others(self, folder: keep.Folder) -> None:
        """Keep in the manifest what it says of arms that are not asked for now."""
        if (manifest := folder.manifest()) is None:
            return
        asked = {arm.name for arm in self.spec.arms}
        self._others = [entry for entry in manifest["runs"] if entry["arm"] not in asked]
        names = {entry["arm"] for entry in self._others}
        saved = saved_arms(manifest["spec"])
        self._other_arms = [arm for name, arm in saved.items() if name in names]

    def _status_unseen(self) -> str:
        """Return what a run is whose trace nobody read: whole, where it has none."""
        return "complete" if self.spec.profile == "none" else "unverified"

    def _make_all(self, folder: keep.Folder, todo: list[Todo]) -> None:
        places = slots(self.spec)
        if len(places) == 1:
            for title, run in todo:
                self._try(folder, title, run)
            return
        waiting, errors = deque(todo), deque[Exception]()
        threads = [
            Thread(target=self._work, args=(folder, waiting, slot, errors)) for slot in places
        ]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(_POLL_S)
        finally:
            # After a signal, they end what they run.
            self._stopped.set()
            with undisturbed():
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
        if errors:
            raise errors[0]

    def _work(
        self, folder: keep.Folder, waiting: deque[Todo], slot: Slot, errors: deque[Exception]
    ) -> None:
        """Make runs in one place as long as there are any."""
        try:
            while not self._stopped.is_set() and (todo := self._next(waiting)):
                title, run = todo
                self._try(folder, title, placed(self.spec, run, str(self.root), slot))
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - raised again by the main thread
            errors.append(error)
            self._stopped.set()

    def _next(self, waiting: deque[Todo]) -> Todo | None:
        with self._lock:
            return waiting.popleft() if waiting else None

    def _try(self, folder: keep.Folder, title: str, run: RunPlan) -> None:
        """Make a run; where others do not depend on it, go on after its failure."""
        try:
            self._make(folder, title, run)
        except RunError as error:
            if not self.spec.keeps_going or self._is_hopeless():
                raise
            self.say(f"{error}; it went to {FAILED}/{run.name}")

    def _is_hopeless(self) -> bool:
        results = self._results.values()
        failed = sum(result.status == "failed" for result in results)
        return failed >= _HOPELESS and not any(result.counts for result in results)

    def _make(self, folder: keep.Folder, title: str, run: RunPlan) -> None:
        began = time.monotonic()
        work = folder.begin(run)
        result = Result(run.arm.name, run.number, run.folder)
        making = Making(
            self.spec.of(run.arm), run, work, title, self._token, self.say, self._stopped
        )
        try:
            making.execute()
            self._complete_record(making)
            self._verify(making, result)
        except CaptureError as error:
            self._set_aside(folder, run, result, str(error))
            raise
        result.wall_s = time.monotonic() - began
        if bad := verify.failed(result.checks):
            self._set_aside(folder, run, result, "; ".join(check.line() for check in bad))
            self.say(f"{title}: does not count: {result.reason}")
        else:
            self._finish(folder, title, run, result)
        self._write_manifest(folder)

    def _finish(self, folder: keep.Folder, title: str, run: RunPlan, result: Result) -> None:
        folder.finish(run)
        # Not before: what is interrupted here is not there.
        with self._lock:
            self._results[run.name] = result
            left = self._left()
        said = "complete" if result.status == "complete" else "complete, not verified here"
        self.say(f"{title}: {said} in {result.wall_s or 0:.0f} s{left}")

    def _set_aside(self, folder: keep.Folder, run: RunPlan, result: Result, reason: str) -> None:
        result.status, result.reason = "failed", reason
        with self._lock:
            result.folder = folder.set_aside(run.name, run.work)
            self._results[run.name] = result

    def _left(self) -> str:
        """Return how long the rest may take, by the runs that were made."""
        times = [one.wall_s for one in self._results.values() if one.wall_s is not None]
        rest = sum(one.status == "missing" for one in self._results.values())
        if rest < 1 or not times:
            return ""
        waves = -(-rest // len(slots(self.spec)))
        return f", about {waves * sum(times) / len(times) / 60:.0f} min left"

    def _complete_record(self, making: Making) -> None:
        """Add to run.json what the workload could not know."""
        path = making.work / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{making.where()}: run.json is not JSON") from error
        arm, gpus = making.run.arm, making.run.gpus
        about = self._about(replace(making.spec, arms=(arm,)), gpus)
        keep.write_json(path, {**record, "capture": about})

    def _about(self, spec: Spec, gpus: tuple[str, ...] = ()) -> dict[str, Any]:
        facts = self.facts
        listed = facts.gpus or () if facts else ()
        return {
            "nsysmoe": __version__,
            "nsys": facts.nsys if facts and spec.profile != "none" else None,
            "driver": facts.driver if facts else None,
            "gpus": [gpu.name for gpu in listed if not gpus or str(gpu.index) in gpus],
            "gpu_set": list(gpus) or None,
            "spec": spec.to_dict(),
            "spec_digest": self.spec.digest(),
        }

    def _verify(self, making: Making, result: Result) -> None:
        if self.spec.profile == "none":
            result.status = "complete"
            if verify.can_verify():
                result.checks = keep_routing(making.work, result)
        elif self.spec.profile == "outside" or not verify.can_verify():
            result.status = "unverified"
        else:
            making.enter("verifying")
            verify_run(making.work, self.spec.to_dict(), result)

    def _outcome(self) -> Outcome:
        results = list(self._results.values())
        return Outcome(results, judge_arms(results))

    def _write_manifest(self, folder: keep.Folder) -> None:
        with self._lock:
            about, outcome = self._about(self.spec), self._outcome().to_dict()
            about["spec"]["arms"] = [*about["spec"]["arms"], *self._other_arms]
            outcome["runs"] += self._others
            folder.write_manifest({**about, **outcome})
