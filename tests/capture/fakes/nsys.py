"""Plays nsys: runs the program, then writes as its report the trace that the tests made."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = (
    "--trace --sample --cpuctxsw --trace-fork-before-exec --cuda-graph-trace --capture-range "
    "--capture-range-end --force-overwrite --output"
)
NOTES = Path(os.environ["FAKE_NOTES"])
_HOW = os.environ.get("FAKE_NSYS", "")


def main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print("NVIDIA Nsight Systems version 2025.3.2.474-253236389321v0")
        return 0
    if "--help" in arguments:
        print(OPTIONS if arguments[0] == "profile" else "--type --output --include-json")
        return 0
    command, *rest = arguments
    # Its own options end where the program begins.
    first = next(n for n, word in enumerate(rest) if not word.startswith("--"))
    values = {name: value for name, _, value in (word.partition("=") for word in rest[:first])}
    return _profile(rest[first:], values) if command == "profile" else _export(rest[first], values)


def _profile(program: list[str], values: dict[str, str]) -> int:
    if _HOW == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    environment = {**os.environ, "NSYS_PROFILING_SESSION_ID": "1"}
    # As the real one does: what it profiles is in a session of its own, and is ended on Ctrl-C.
    started = subprocess.Popen(program, env=environment, start_new_session=True)
    signal.signal(signal.SIGINT, lambda *_: os.killpg(started.pid, signal.SIGTERM))
    if _HOW == "late":
        started.wait()
    _wait_for_range(started)
    if _HOW == "no_importer":
        Path(f"{values['--output']}.qdstrm").write_text("raw")
    elif started.returncode in {None, 0, -signal.SIGTERM} and _HOW != "nothing":
        is_on = any('"enable_eplb":true' in word or word == "--enable-eplb" for word in program)
        source = os.environ["FAKE_TRACE_ON" if is_on else "FAKE_TRACE_OFF"]
        shutil.copyfile(source, f"{values['--output']}.nsys-rep")
    return started.wait()


def _wait_for_range(started: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the range, or of the program."""
    while started.poll() is None:
        if NOTES.exists() and "/stop_profile" in NOTES.read_text().rpartition("/start_profile")[2]:
            return
        time.sleep(0.02)


def _export(report: str, values: dict[str, str]) -> int:
    if _HOW == "export_hangs":
        time.sleep(600)
    if _HOW == "export_fails":
        print("Importer error: unsupported version", file=sys.stderr)
        return 1
    shutil.copyfile(report, values["--output"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
