"""The folder of a replay: what is no manifest is one line, however large or deep it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nsysmoe.errors import TrafficError
from nsysmoe.traffic.folder import Folder

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_manifest_nothing_was_sent(tmp_path: Path) -> None:
    assert Folder(tmp_path / "none").manifest() is None
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(TrafficError, match=r"holds something else \(thesis.tex\)"):
        Folder(tmp_path).manifest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "must hold a JSON object"),
        (b"{}", "is no manifest of a replay"),
        (None, "is larger than 256 MiB"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.write(content or b"")
        if content is None:
            file.truncate(1 << 40)
    with pytest.raises(TrafficError) as error:
        Folder(tmp_path).manifest()
    assert str(error.value).startswith(f"{path} {said}")
    assert str(error.value).endswith("; choose another -o")
