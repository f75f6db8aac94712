"""Browsers that do not answer, in the place of Chromium: kaleido takes BROWSER_PATH's."""

from __future__ import annotations

from pathlib import Path

_NOTES = "browsers"


def never_answers(folder: Path, then: str | None = None) -> Path:
    """Write a program that notes its number and waits, with a child that does so too.

    Args:
        folder: Where it and its notes go.
        then: A browser that every later start is; None for the same again.
    """
    notes = folder / _NOTES
    again = f"[ -s '{notes}' ] && exec '{then}' \"$@\"\n" if then else ""
    program = folder / "browser"
    # In one write, and both at once: whoever reads sees both or none.
    program.write_text(f"#!/bin/sh\n{again}sleep 600 &\necho $$ $! >> '{notes}'\nwait\n")
    program.chmod(0o755)
    return program


def browsers_of(program: Path) -> list[int]:
    """Return the numbers of the processes that it was."""
    notes = program.parent / _NOTES
    return [int(pid) for pid in notes.read_text().split()] if notes.exists() else []


def is_running(pid: int) -> bool:
    """Tell whether a process does more than wait to be collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
