"""The folder of a replay: its manifest, its journal, and run.json as ``nsysmoe capture`` has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object_if_there
from nsysmoe.errors import MissingDataError, TrafficError
from nsysmoe.traffic.journal import read_journal
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nsysmoe.traffic.outcome import Outcome

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "requests.jsonl"
RUN = "run.json"
ROUND = "replay"


class Folder:
    """One replay on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = root / JOURNAL

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest; None where nothing was sent yet.

        Raises:
            TrafficError: It is damaged, or the folder holds something else.
        """
        path = self.root / MANIFEST
        found = read_json_object_if_there(path, fix="choose another -o", error=TrafficError)
        if found is None:
            if other := _first_name(self.root):
                raise TrafficError(f"{self.root} holds something else ({other}); choose another -o")
        elif not {"options", "sessions", "log"} <= set(found):
            raise TrafficError(f"{path} is no manifest of a replay; choose another -o")
        return found

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest whole."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrafficError(f"{self.root} cannot be made ({error.strerror})") from error
        _write(self.root / MANIFEST, [json.dumps(manifest, indent=2)])

    def replayed(self) -> dict[str, Any]:
        """Return the manifest of a replay that has begun.

        Raises:
            MissingDataError: Nothing was sent yet.
            TrafficError: The folder is damaged, or holds something else.
        """
        found = self.manifest()
        if found is None or not self.journal.exists():
            raise MissingDataError(f"{self.root} holds no replay; make one with nsysmoe replay")
        return found

    def last_outcomes(self) -> dict[int, Outcome]:
        """Return what became of each request at its last attempt, by its number."""
        if not self.journal.exists():
            return {}
        return {one.number: one for one in read_journal(self.journal)}

    def write_run(
        self, record: dict[str, Any], summary: dict[str, Any], outcomes: Iterable[Outcome]
    ) -> None:
        """Write run.json: what ``nsysmoe capture`` writes, with one round called ``replay``.

        Args:
            record: Its keys beside ``runs``.
            summary: Of the round.
            outcomes: In the order of arrival; those with an error are left out of ``requests``.
        """
        _write(self.root / RUN, _run(record, summary, outcomes))


def run_row(outcome: Outcome) -> dict[str, Any]:
    """Return a request as run.json holds it: the keys of a capture's, and more."""
    row = outcome.to_dict()
    for key in ("error", "message", "counted", "number"):
        del row[key]
    return {"id": row.pop("id"), **row}


def _first_name(root: Path) -> str | None:
    """Return a file of a folder; what a kill while the manifest was written left is none."""
    names = sorted(one.name for one in root.iterdir()) if root.is_dir() else []
    return next((name for name in names if not name.startswith(".")), None)


def _run(
    record: dict[str, Any], summary: dict[str, Any], outcomes: Iterable[Outcome]
) -> Iterable[str]:
    """Return run.json in parts: a day of requests is not held twice."""
    failed = record["replay"]["requests"]["failed"]
    yield json.dumps(record)[:-1] + ', "runs": [{"round": ' + json.dumps(ROUND)
    yield f', "failed": {failed}'
    yield ', "summary": ' + json.dumps(summary) + ', "requests": ['
    separator = "\n"
    for one in outcomes:
        if one.error is None:
            yield separator + json.dumps(run_row(one))
            separator = ",\n"
    yield "]}]}"


def _write(path: Path, parts: Iterable[str]) -> None:
    """Write a file that appears whole or not at all."""
    try:
        with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.write("\n")
    except OSError as error:
        raise TrafficError(f"{path} cannot be written ({error.strerror})") from error
