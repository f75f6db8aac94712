"""What is installed here, and which inputs can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.doctor import Health

_TITLE = "nsysmoe on this machine"


def doctor_page(health: Health) -> Document:
    """Return what can be read first, then what it stands on."""
    machine, nsys = health.machine, health.nsys
    program = f"{nsys['version'] or 'of unknown version'}, {nsys['path']}"
    memory = f"{_gib(machine['memory_bytes'])}, {_gib(machine['available_bytes'])} available"
    facts = [
        *((row["name"], row["problem"] or row["version"] or "absent") for row in health.versions),
        ("nsys", program if nsys["path"] else "none"),
        ("System", machine["system"]),
        ("Cores", str(machine["cores"])),
        ("Memory", memory),
        ("Browser, for pictures as files", machine["browser"] or "none"),
    ]
    inputs = [(row["input"], _yes(row["is_readable"]), row["note"]) for row in health.inputs]
    places = [
        (row["what"], row["path"], _yes(row["is_writable"]), _gib(row["free_bytes"]))
        for row in health.places
    ]
    extras = [
        (row["extra"], _yes(row["is_installed"]), ", ".join(row["missing"]) or "-")
        for row in health.extras
    ]
    return Document(
        title=_TITLE,
        tables=(
            _table("What can be read here", ("Input", "Readable", "Note"), inputs),
            _table("Versions", ("What", "Version"), facts),
            _table("Folders", ("For", "Path", "Writable", "Free"), places),
            _table("Extras", ("Extra", "Installed", "Missing"), extras),
        ),
        data=health.to_dict(),
        records=health.inputs,
        findings=health.findings,
    )


def _table(caption: str, titles: tuple[str, ...], rows: list[Any]) -> Table:
    columns = tuple(Column(title, "left") for title in titles)
    return Table(caption, columns, tuple(Row(tuple(row)) for row in rows))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _gib(size: int | None) -> str:
    return numbers.UNKNOWN if size is None else f"{size / 2**30:,.1f} GiB"
