"""Inputs are told apart, and what is none of them gets one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsysmoe.errors import InputError
from nsysmoe.export.files import identify


def test_kinds(off: Path, tmp_path: Path) -> None:
    report = tmp_path / "a.nsys-rep"
    report.write_bytes(b"\x00\x01")
    table = tmp_path / "a.csv"
    table.write_text("Time,Total Time,Instances,Name\n")
    assert identify(off) == "sqlite"
    assert identify(report) == "report"
    assert identify(table) == "csv"


def test_content_counts_more_than_the_suffix(off: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "trace.csv"
    renamed.write_bytes(off.read_bytes())
    assert identify(renamed) == "sqlite"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x7fELF\x00\x01", "not a SQLite database"),
        (b"\x1f\x8b\x08\x00", "compressed; unpack it first: gunzip"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        identify(path)


def test_missing_directory_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        identify(tmp_path / "none.sqlite")
    with pytest.raises(InputError, match="is a directory"):
        identify(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        identify(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        identify(path)
