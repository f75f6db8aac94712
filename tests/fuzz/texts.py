"""Damage to JSON, JSON lines, CSV and TOML that knows their structure."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from tests.fuzz.hostile import HTML, INTEGERS, MEBIBYTE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.fuzz.damage import Damage

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 10**400, float("nan"), float("inf"), "", "1",
    "on", HTML, "nul\0\x1b[2J", "\ud800", [], {}, [[]], [None], {"": None}, [1, "a"], *INTEGERS,
)  # fmt: skip
_DEEP = 5_000
_CELLS = (
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 400,
    HTML,
    '"',
    "\0",
    "٣",
    "1,5",
    "0x10",
    "A" * 9000,
)


def json_changed(content: bytes, chosen: random.Random) -> Damage:
    """Change one place of a JSON document: its value, its key, or whether it is there."""
    document = json.loads(content)
    what, changed = _changed(document, chosen)
    return what, json.dumps(changed).encode("utf-8", "surrogatepass")


def lines_changed(content: bytes, chosen: random.Random) -> Damage:
    """Change one line of JSON lines, or their order and number."""
    lines = content.splitlines(keepends=True)
    place = chosen.randrange(len(lines))
    kind = chosen.choice(("json", "json", "json", "twice", "lost", "noise", "order", "no end"))
    if kind == "json":
        what, changed = _changed(json.loads(lines[place]), chosen)
        lines[place] = json.dumps(changed).encode("utf-8", "surrogatepass") + b"\n"
        return f"line {place}: {what}", b"".join(lines)
    if kind == "twice":
        lines.insert(place, lines[place])
    elif kind == "lost":
        del lines[place]
    elif kind == "noise":
        lines[place] = chosen.choice((b"\xff\xfe\n", b"{\n", b"[]\n", b"null\n", b"\0\n", b"1\n"))
    elif kind == "order":
        chosen.shuffle(lines)
    else:
        lines[-1] = lines[-1].rstrip(b"\n")[: chosen.randrange(1, 40)]
    return f"line {place}: {kind}", b"".join(lines)


def text_changed(content: bytes, chosen: random.Random) -> Damage:
    """Write the same text in another way, or something else that is text."""
    text = content.decode()
    ways: dict[str, Callable[[], bytes]] = {
        "with a byte order mark": lambda: b"\xef\xbb\xbf" + content,
        "UTF-16": lambda: text.encode("utf-16"),
        "a NUL at the end": lambda: content + b"\0",
        "line ends of Windows": lambda: content.replace(b"\n", b"\r\n"),
        "line ends of old Macs": lambda: content.replace(b"\n", b"\r"),
        "twice": lambda: content + content,
        "empty": lambda: b"",
        "spaces alone": lambda: b" \n\t",
        "nested without end": lambda: b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
        "lists without end": lambda: b"[" * (20 * _DEEP),
        "one long line": lambda: b'{"a": "' + b"x" * MEBIBYTE + b'"}',
        "a key twice": lambda: content.replace(b"{", b'{"layer": -1, "runs": 3, ', 1),
        "digits": lambda: b"9" * 5_000,
        "not UTF-8": lambda: content.replace(b"e", b"\xe9", 3),
    }
    what = chosen.choice(list(ways))
    return what, ways[what]()


def cells_changed(content: bytes, chosen: random.Random) -> Damage:
    """Change one cell of a CSV, its header, or the length of a row."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = chosen.choice([row for row in rows if row])
    place = chosen.randrange(len(row))
    value = chosen.choice((*_CELLS, *map(str, INTEGERS)))
    kind = chosen.choice(("cell", "cell", "cell", "longer", "shorter", "row twice"))
    if kind == "cell":
        row[place] = value
    elif kind == "longer":
        row.insert(place, value)
    elif kind == "shorter":
        del row[place]
    else:
        rows.insert(chosen.randrange(len(rows)), row)
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return f"{kind}: {value[:30]!r}", buffer.getvalue().encode()


def _changed(document: Any, chosen: random.Random) -> tuple[str, Any]:
    places = list(_places(document))
    if not places:
        return "another value", chosen.choice(_VALUES)
    holder, key = chosen.choice(places)
    if isinstance(holder, list) and len(holder) > 20 and chosen.random() < 0.3:
        del holder[1:]
        return "a list of one", document
    if isinstance(holder, dict):
        return _entry_changed(holder, key, chosen), document
    what = chosen.choice(("set", "set", "lost", "twice"))
    if what == "set":
        holder[key] = chosen.choice(_VALUES)
    elif what == "lost":
        del holder[key]
    else:
        holder.insert(key, holder[key])
    return f"entry {key} {what}", document


def _entry_changed(holder: dict[str, Any], key: str, chosen: random.Random) -> str:
    what = chosen.choice(("set", "set", "set", "lost", "renamed", "wrapped"))
    if what == "set":
        holder[key] = chosen.choice(_VALUES)
        return f"{key} = {str(holder[key])[:20]!r}"
    value = holder.pop(key)
    if what == "renamed":
        holder[key.upper()] = value
    elif what == "wrapped":
        holder[key] = [value]
    return f"{key} {what}"


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a document; of long lists the first and the last few."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield document, key
            yield from _places(value)
    elif isinstance(document, list):
        for key in sorted({*range(min(3, len(document))), len(document) - 1} - {-1}):
            yield document, key
            yield from _places(document[key])
