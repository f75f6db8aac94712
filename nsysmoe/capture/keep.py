"""The folder of a capture: runs that appear whole or not at all, and a manifest of the whole.

FOLDER/manifest.json            what was asked, and what became of every run
FOLDER/off/run-1/               a run that counts: trace.sqlite, run.json, engine.log, …
FOLDER/failed/on-run-2/         what a run left that does not count
FOLDER/.work/on-run-3/          a run that is being made
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object_if_there
from nsysmoe.capture.plan import FAILED, WORK
from nsysmoe.capture.spec import saved_arms
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nsysmoe.capture.plan import RunPlan
    from nsysmoe.capture.spec import Spec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
KEPT = (
    "trace.nsys-rep",
    "trace.sqlite",
    "run.json",
    "routing.npz",
    "routing.parquet",
    "engine.log",
)


class Folder:
    """A capture's folder, held by one capture at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; whoever holds it when it ends lets go, even if killed.

        Raises:
            CaptureError: Another capture writes there.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / WORK).mkdir(exist_ok=True)
        with (self.root / WORK / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CaptureError(
                    f"another capture writes to {self.root}; wait for it or choose another -o"
                ) from error
            yield

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest; None where there is none.

        Raises:
            CaptureError: It is damaged.
        """
        path = self.root / MANIFEST
        found = read_json_object_if_there(path, fix="choose another -o", error=CaptureError)
        if found is not None and not {"spec_digest", "spec", "runs"} <= set(found):
            raise CaptureError(f"{path} is no manifest of a capture; choose another -o")
        return found

    def check_same(self, spec: Spec) -> None:
        """Refuse to mix captures.

        Raises:
            CaptureError: The folder holds another capture, or something else.
        """
        manifest = self.manifest()
        if manifest is None:
            present = self.root.iterdir() if self.root.is_dir() else ()
            # A capture that was killed at once left its work alone.
            if others := {entry.name for entry in present} - {WORK}:
                raise CaptureError(
                    f"{self.root} holds something else ({min(others)}); choose another -o"
                )
        elif manifest["spec_digest"] != spec.digest():
            raise CaptureError(
                f"{self.root} holds a capture with other options (manifest.json has them); "
                "choose another -o, or repeat its options to go on with it"
            )
        else:
            self._check_same_arms(spec, manifest["spec"])

    def _check_same_arms(self, spec: Spec, saved: dict[str, Any]) -> None:
        """Refuse an arm that is called as one that is here, and differs."""
        known = saved_arms(saved)
        for arm in spec.arms:
            if arm.name in known and known[arm.name] != arm.to_dict():
                raise CaptureError(
                    f"{self.root} holds runs of {arm.name} with other options (manifest.json has "
                    "them); choose another -o, or repeat its options to go on with it"
                )

    def token(self) -> str | None:
        """Return the token of the last capture here; None where there was none."""
        try:
            return (self.root / WORK / "token").read_text(encoding="utf-8") or None
        except FileNotFoundError:
            return None

    def set_token(self, token: str) -> None:
        """Write down what our processes carry, before the first of them starts."""
        (self.root / WORK / "token").write_text(token, encoding="utf-8")

    def is_finished(self, run: RunPlan) -> bool:
        """Tell whether a run is there, whole."""
        return (self.root / run.folder / "run.json").is_file()

    def begin(self, run: RunPlan) -> Path:
        """Return an empty folder to make a run in."""
        work = self.root / run.work
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        return work

    def finish(self, run: RunPlan) -> None:
        """Let a run appear, with what is kept of it."""
        work = self.root / run.work
        _keep_only(work, KEPT)
        for name in KEPT:
            _sync(work / name)
        target = self.root / run.folder
        target.parent.mkdir(exist_ok=True)
        work.rename(target)
        _sync(target.parent)

    def set_aside(self, name: str, source: str) -> str:
        """Move what a run left to where no comparison looks; return its folder from now on."""
        target = self.root / FAILED / name
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(exist_ok=True)
        (self.root / source).rename(target)
        return f"{FAILED}/{name}"

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest whole."""
        write_json(self.root / MANIFEST, {"schema_version": SCHEMA_VERSION, **manifest})


def write_json(path: Path, value: Any) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _keep_only(folder: Path, names: tuple[str, ...]) -> None:
    for entry in folder.iterdir():
        if entry.name in names:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync(path: Path) -> None:
    if not path.exists():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
