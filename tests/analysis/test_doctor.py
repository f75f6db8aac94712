"""What is installed here is told, and what is broken is an error."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import nsysmoe
from nsysmoe.analysis import doctor as module
from nsysmoe.cli import main


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of the test's own: what killed calls left in the machine's is told."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_versions_are_those_of_the_packages() -> None:
    rows = {row["name"]: row for row in nsysmoe.doctor().versions}
    assert rows["nsysmoe"]["version"] == nsysmoe.__version__
    for name in ("duckdb", "polars", "pyarrow", "adbc-driver-sqlite", "click"):
        assert rows[name] == {"name": name, "version": metadata.version(name), "problem": None}
    assert "pytest" not in rows


def test_json_has_the_promised_keys() -> None:
    found = CliRunner().invoke(main, ["doctor", "--format", "json"])
    assert found.exit_code == 0
    document = json.loads(found.stdout)
    assert list(document) == [
        "schema_version", "is_well", "versions", "machine", "nsys", "places", "inputs", "extras",
        "findings",
    ]  # fmt: skip
    assert document["is_well"] is True
    assert {row["extra"] for row in document["extras"]} >= {"static", "workload"}
    assert "dev" not in {row["extra"] for row in document["extras"]}


def test_nsys_and_its_version(tmp_path: Path) -> None:
    program = tmp_path / "nsys"
    program.write_text(
        "#!/bin/sh\necho NVIDIA Nsight Systems version 2025.3.2.474-253236389321v0\n"
    )
    program.chmod(0o755)
    found = nsysmoe.doctor(str(program))
    assert found.nsys == {"path": str(program), "version": "2025.3.2.474"}
    reports = next(row for row in found.inputs if "nsys-rep" in row["input"])
    assert reports["is_readable"]
    assert not found.findings


def test_without_nsys_reports_cannot_be_read(tmp_path: Path) -> None:
    found = nsysmoe.doctor(str(tmp_path / "none"))
    assert found.nsys == {"path": None, "version": None}
    assert [finding.code for finding in found.findings] == ["no_nsys"]
    assert found.is_well


def test_from_a_checkout_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    found = nsysmoe.doctor()
    assert [row["name"] for row in found.versions] == ["nsysmoe", "Python"]
    assert found.extras == ()


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str, *more: Any) -> ModuleType:
        if name == "duckdb":
            raise ImportError("libduckdb.so: cannot open shared object file")
        return real(name, *more)

    monkeypatch.setattr(module, "import_module", broken)
    found = CliRunner().invoke(main, ["doctor"])
    assert found.exit_code == 1
    assert "duckdb cannot be imported" in found.stdout


def test_places_that_cannot_be_written_or_are_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSYSMOE_CACHE_DIR", str(tmp_path / "cache" / "of mine"))
    monkeypatch.setattr(module, "_LITTLE_SPACE_BYTES", 1 << 60)
    found = nsysmoe.doctor(sys.executable)
    cache = found.places[1]
    assert cache["path"] == str(tmp_path / "cache" / "of mine")
    assert not cache["exists"]
    assert cache["free_bytes"] > 0
    assert [finding.code for finding in found.findings] == ["little_space", "little_space"]
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    assert not nsysmoe.doctor(sys.executable).is_well


def test_a_cache_where_no_folder_can_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    for path in (file, file / "below"):
        monkeypatch.setenv("NSYSMOE_CACHE_DIR", str(path))
        found = nsysmoe.doctor(sys.executable)
        assert not found.places[1]["is_writable"]
        assert found.places[1]["free_bytes"] is None
        assert [finding.code for finding in found.findings] == ["no_cache_folder"]
        assert found.is_well
