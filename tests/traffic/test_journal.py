"""The record of a replay on disks that are slow, full, or killed within a line."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from nsysmoe.errors import TrafficError
from nsysmoe.traffic import journal as journals
from nsysmoe.traffic.journal import Journal, read_journal
from nsysmoe.traffic.outcome import Outcome


def outcome(number: int) -> Outcome:
    return Outcome(
        number, f"q{number}", 1, 0.1 * number, 0.0, 0.0, 0.2, None, 0.2, None, 7, 1,
        counted=True, asked_tokens=1,
    )  # fmt: skip


def test_a_disk_that_hangs_does_not_hold_the_sender_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, write = threading.Event(), journals._write_whole

    def slow(file: object, line: bytes) -> None:
        assert hangs.wait(60)
        write(file, line)  # type: ignore[arg-type]

    monkeypatch.setattr(journals, "_write_whole", slow)
    with Journal(tmp_path / "requests.jsonl") as journal:
        for number in range(2000):
            journal.add(outcome(number))
        assert (tmp_path / "requests.jsonl").stat().st_size == 0, "added, and not yet written"
        hangs.set()
    found = [one.number for one in read_journal(tmp_path / "requests.jsonl")]
    assert found == list(range(2000)), "all of them, in their order, before it is closed"


def test_a_line_is_written_without_being_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with Journal(path) as journal:
        journal.add(outcome(3))
        limit = time.monotonic() + 30
        while not path.read_bytes().endswith(b"\n"):
            assert time.monotonic() < limit
            time.sleep(0.001)


def fill(path: Path, lines: int) -> None:
    """Write lines to a disk that is full from the beginning."""
    with Journal(path) as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file.fileno())
        os.close(full)
        for number in range(lines):
            journal.add(outcome(number))


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
# The sender learns of it at its next line, or at the end.
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk_is_said(tmp_path: Path, lines: int) -> None:
    with pytest.raises(TrafficError, match=r"requests.jsonl cannot be written \(No space left"):
        fill(tmp_path / "requests.jsonl", lines)
