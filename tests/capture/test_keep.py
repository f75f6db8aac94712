"""The folder of a capture: what is no manifest is one line, however large or deep it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nsysmoe.capture.keep import Folder
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from pathlib import Path


def refused(folder: Path) -> str:
    with pytest.raises(CaptureError) as error:
        Folder(folder).manifest()
    said = str(error.value)
    assert said.startswith(str(folder / "manifest.json"))
    assert said.endswith("; choose another -o")
    assert "\n" not in said
    return said


def test_without_a_manifest_nothing_was_made(tmp_path: Path) -> None:
    assert Folder(tmp_path / "none").manifest() is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"\xff", "is not UTF-8 text"),
        (b"null", "must hold a JSON object"),
        (b'{"spec": {}}', "is no manifest of a capture"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert said in refused(tmp_path)


def test_a_manifest_that_no_capture_writes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "is larger than 256 MiB" in refused(tmp_path)
