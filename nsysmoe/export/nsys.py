"""The ``nsys`` program: found on PATH, run to turn a report into a SQLite export."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nsysmoe.errors import InputError
from nsysmoe.export.files import export_hint
from nsysmoe.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)
# On a file system over a network the program alone takes seconds to load.
_LONGEST_S = 30.0
_VERSION = re.compile(r"\d{4}\.\d+(\.\d+)*")


def find_nsys(nsys: str | None = None) -> str | None:
    """Return the path of ``nsys``, or None where there is none to run."""
    return shutil.which(nsys or "nsys")


def exporter(nsys: str | None) -> str:
    """Return a text that tells one nsys from another; empty where there is none."""
    if (program := find_nsys(nsys)) is None:
        return ""
    status = Path(program).stat()
    return f"{program} {status.st_size} {status.st_mtime_ns}"


def nsys_version(program: str) -> str | None:
    """Return what ``nsys --version`` says of itself, such as 2025.3.2.474; None where nothing."""
    found = _VERSION.search(_said(program, "--version"))
    return found[0] if found else None


def _said(*command: str) -> str:
    """Return what a program prints, nothing where it cannot be run or does not come to an end."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own nsys, arguments as a list
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError:
        return ""
    try:
        with _ending(process):
            return process.communicate(timeout=_LONGEST_S)[0]
    except subprocess.TimeoutExpired:
        _log.info("%s says nothing for %g s", " ".join(command), _LONGEST_S)
        return ""


@contextmanager
def _ending(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process that leads a session where the block fails, or is stopped."""

    def kill() -> None:
        # nsys is a script on most machines: with it goes what it started.
        with suppress(ProcessLookupError):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)

    with process, stoppable(kill):
        try:
            yield
        except BaseException:
            kill()
            raise


def export_report(report: Path, folder: Path, nsys: str | None = None) -> Path:
    """Export a report to SQLite in ``folder`` and return the file.

    Raises:
        InputError: There is no nsys, or it could not read the report.
    """
    if (program := find_nsys(nsys)) is None:
        asked = f"{nsys} is not a program" if nsys else "there is no nsys on PATH"
        raise InputError(
            f"{report} is a report and {asked}: where nsys is installed, run "
            f"{export_hint(report)} and give the .sqlite, or name it with --nsys PATH"
        )
    output = folder / f"{report.stem}.sqlite"
    command = [program, "export", "--type", "sqlite", "--force-overwrite", "true"]
    _log.info("%s: exported by %s", report, program)
    if "--include-json" in _said(program, "export", "--help"):
        # The payloads of NCCL's ranges, which name the communicators.
        command.append("--include-json=true")
    # nsys may leave an unpacked report beside its input: a link keeps that in our folder.
    link = folder / report.name
    link.symlink_to(report.resolve())
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own nsys, arguments as a list
            [*command, "-o", str(output), str(link)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{program} cannot be run ({error.strerror}); check --nsys") from error
    with _ending(process):
        printed, complained = process.communicate()
    if process.returncode != 0 or not output.exists():
        said = (complained.strip() or printed.strip()).splitlines()
        reason = said[-1].strip() if said else f"exit status {process.returncode}"
        raise InputError(
            f"{report} could not be exported by {program} ({reason}); use the nsys that "
            "captured it, or a newer one"
        )
    return output
