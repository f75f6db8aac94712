"""Small files are read within bounds; what cannot be used is one line: what, where, the fix."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from nsysmoe.bounded_files import (
    read_bytes,
    read_json,
    read_json_object,
    read_json_object_if_there,
    read_lines,
    read_text,
    read_toml,
)
from nsysmoe.errors import InputError, WatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

READERS = (read_text, read_json, read_json_object, read_toml)


def refused(read: Callable[..., Any], path: Path, **how: Any) -> str:
    with pytest.raises(how.get("error", InputError)) as error:
        read(path, **how)
    said = str(error.value)
    assert str(path) in said
    assert "\n" not in said
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_what_is_sound_is_read(path: Path) -> None:
    path.write_text('{"a": [1, null, "é"]}', encoding="utf-8")
    assert read_json_object(path) == read_json(path) == {"a": [1, None, "é"]}
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]
    path.write_bytes(b"a = 1\r\n[b]\r\n")
    assert read_toml(path) == {"a": 1, "b": {}}
    path.write_bytes(b"")
    assert read_text(path) == ""


@pytest.mark.parametrize("read", READERS)
def test_what_cannot_be_read(read: Callable[..., Any], path: Path) -> None:
    assert refused(read, path).endswith(
        "cannot be read (No such file or directory); check the path"
    )
    assert "Is a directory" in refused(read, path.parent)
    path.write_bytes(b"ab\xff")
    assert "is not UTF-8 text (byte 2); check --alerts" in refused(
        read, path, fix="check --alerts", error=WatchError
    )


@pytest.mark.parametrize(
    ("read", "content", "said"),
    [
        (read_json, "", "is not JSON (Expecting value: line 1 column 1 (char 0)); check"),
        (read_json, "[" * 200_000, "is not JSON ("),
        (read_json, "1" * 5_000, "is not JSON ("),
        (read_json_object, "[]", "must hold a JSON object; check the path"),
        (read_toml, "[[alert", "is not TOML ("),
        (read_toml, "a = " + "[" * 20_000, "is not TOML ("),
    ],
)
def test_what_is_of_another_form(
    read: Callable[..., Any], content: str, said: str, path: Path
) -> None:
    path.write_text(content)
    assert said in refused(read, path)


def test_a_file_has_as_many_bytes_as_it_may(path: Path) -> None:
    path.write_bytes(b"a" * (1 << 20))
    assert len(read_text(path, largest=1 << 20)) == 1 << 20
    path.write_bytes(b"a" * ((1 << 20) + 1))
    assert "is larger than 1 MiB" in refused(read_text, path, largest=1 << 20)


def test_what_has_no_end_is_refused() -> None:
    from pathlib import Path

    assert "is larger than 1 MiB" in refused(read_text, Path("/dev/zero"), largest=1 << 20)


def test_a_pipe_is_read_to_its_end(path: Path) -> None:
    os.mkfifo(path)
    # Several writes, more than a pipe holds at once.
    writer = threading.Thread(target=path.write_text, args=("[" + "1," * 100_000 + "1]",))
    writer.start()
    assert read_json(path) == [1] * 100_001
    writer.join()


def test_a_file_that_need_not_be_there(path: Path) -> None:
    assert read_json_object_if_there(path) is None
    path.write_text('{"a": 1}')
    assert read_json_object_if_there(path) == {"a": 1}
    path.write_text("null")
    assert "must hold a JSON object" in refused(read_json_object_if_there, path)
    assert "Is a directory" in refused(read_json_object_if_there, path.parent)


def test_lines_end_with_a_line_feed_alone(path: Path) -> None:
    raw = "\ufeffone\r\n\ntw\u2028o\x85\x0c\rmore\nlast".encode()
    path.write_bytes(raw)
    lines = list(read_lines(path))
    assert b"".join(lines) == raw == read_bytes(path)
    assert [line.count(b"\n") for line in lines] == [1, 1, 1, 0]


def test_a_line_has_as_many_bytes_as_it_may(path: Path) -> None:
    path.write_bytes(b"short\n" + b"a" * ((1 << 20) - 1) + b"\n")
    assert [len(line) for line in read_lines(path, 1 << 20)] == [6, 1 << 20]
    path.write_bytes(b"short\n" + b"a" * (1 << 20) + b"\n")

    def read(path: Path) -> None:
        list(read_lines(path, 1 << 20))

    assert "has more than 1 MiB in line 2; check the path" in refused(read, path)
    from pathlib import Path

    assert "has more than 1 MiB in line 1" in refused(read, Path("/dev/zero"))
