"""What is installed here, where there is room, and which inputs can be read."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from nsysmoe.cache import cache_folder, left_folders
from nsysmoe.export.nsys import find_nsys, nsys_version
from nsysmoe.findings import Finding

SCHEMA_VERSION = 1
# What a question about a large trace may spill, and what nsys writes when it exports a report.
_LITTLE_SPACE_BYTES = 2 << 30
_DEVELOPMENT = "dev"
# Distributions whose module has another name.
_MODULES = {
    "adbc-driver-sqlite": "adbc_driver_sqlite",
    "mistral-common": "mistral_common",
}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Health:
    """What ``nsysmoe doctor`` found.

    Attributes:
        versions: ``name``, ``version`` (None where absent), ``problem`` (None, or why it cannot
            be used) of nsysmoe, Python and every package that nsysmoe needs.
        machine: ``system``, ``cores`` that this process may use, ``memory_bytes``,
            ``available_bytes`` (None where the system does not tell); ``browser``, which
            kaleido draws with, None where there is none.
        nsys: ``path`` and ``version``; both None where there is none.
        places: ``what``, ``path``, ``exists``, ``is_writable``, ``free_bytes``.
        inputs: ``input``, ``is_readable``, ``note``: what it needs, or where it is used.
        extras: ``extra``, ``is_installed``, ``missing`` packages.
        findings: What to mend, the errors first.
    """

    versions: tuple[dict[str, Any], ...]
    machine: dict[str, Any]
    nsys: dict[str, Any]
    places: tuple[dict[str, Any], ...]
    inputs: tuple[dict[str, Any], ...]
    extras: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Whether traces can be read here at all."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, "is_well": self.is_well, **asdict(self)}


def doctor(nsys: str | None = None) -> Health:
    """Look at this machine; nothing is changed, and nothing is asked of a network.

    Args:
        nsys: The ``nsys`` that would export reports; the one on PATH where left out.
    """
    needed, by_extra = _requirements()
    versions = (_nsysmoe(), _python(), *map(_package, needed))
    program = find_nsys(nsys)
    found = {"path": program, "version": program and nsys_version(program)}
    folders = {"temporary files": Path(tempfile.gettempdir()), "cache": cache_folder()}
    places = tuple(_place(what, path) for what, path in folders.items() if path is not None)
    extras = tuple(_extra(name, packages) for name, packages in by_extra.items())
    findings = [
        *_broken(versions),
        *_little_space(places),
        *_left_behind(),
        *_no_nsys(found, nsys),
    ]
    return Health(
        versions, _machine(), found, places, tuple(_inputs(found)), extras, tuple(findings)
    )


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Return the packages that nsysmoe needs, and those of each of its extras.

    None of either where nsysmoe runs from a checkout that was never installed.
    """
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    try:
        told = metadata.requires("nsysmoe") or []
    except metadata.PackageNotFoundError:
        told = []
    for text in told:
        if (match := _REQUIREMENT.fullmatch(text)) is None:
            continue
        name, marker = match[1], match[3] or ""
        if extra := _EXTRA.search(marker):
            extras.setdefault(extra[1], []).append(name)
        elif not marker:
            # Those with another marker are for other versions of Python.
            needed.append(name)
    extras.pop(_DEVELOPMENT, None)
    return needed, extras


def _nsysmoe() -> dict[str, Any]:
    # Importing it would be importing all that the package offers.
    version = sys.modules["nsysmoe"].__version__
    return {"name": "nsysmoe", "version": version, "problem": None}


def _python() -> dict[str, Any]:
    return {"name": "Python", "version": platform.python_version(), "problem": None}


def _package(name: str) -> dict[str, Any]:
    """Import a package: one that is there may still not work on this machine."""
    problem = None
    try:
        import_module(_MODULES.get(name, name))
    # A wheel for another machine fails in its own way.
    except Exception as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {error}"
    return {"name": name, "version": _version(name), "problem": problem}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    memory = _memory()
    return {
        "system": platform.platform(terse=True),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory.get("MemTotal"),
        "available_bytes": memory.get("MemAvailable"),
        # Kaleido takes the named one, whatever there is.
        "browser": os.environ.get("BROWSER_PATH")
        or next(filter(None, map(shutil.which, _BROWSERS)), None),
    }


def _memory() -> dict[str, int]:
    """Return what Linux says of its memory, bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    named = (line.split()[:2] for line in lines)
    return {name.rstrip(":"): int(kibibytes) << 10 for name, kibibytes in named}


def _place(what: str, path: Path) -> dict[str, Any]:
    """Tell of a folder; where it is not there yet, of the one that it would be made in."""
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), None)
    folder = there if there is not None and there.is_dir() else None
    return {
        "what": what,
        "path": str(path),
        "exists": there == path,
        "is_writable": folder is not None and os.access(folder, os.W_OK | os.X_OK),
        "free_bytes": None if folder is None else shutil.disk_usage(folder).free,
    }


def _inputs(nsys: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what can be read here, format by format."""
    has_torch = _version("torch") is not None
    rows = (
        ("nsys export (.sqlite)", True, "schemas of 2020 to 2026"),
        (
            "nsys report (.nsys-rep, .qdrep)",
            nsys["path"] is not None,
            "exported by nsys" if nsys["path"] else "needs nsys on PATH, or --nsys PATH",
        ),
        ("folder of Parquet (nsys export --type parquetdir)", True, "the same answers"),
        ("kernel summary (.csv)", True, "totals only"),
        ("routing log (.npz, .npy, .json, .jsonl, .csv, .parquet)", True, "routing, advise"),
        (
            "SGLang's recording (.pt)",
            has_torch,
            "routing, advise" if has_torch else "needs torch: pip install torch",
        ),
        ("prompts (.jsonl, .json, .parquet)", True, "workload"),
        (
            "Mixtral's tokenizer",
            _version("mistral-common") is not None and _version("sentencepiece") is not None,
            "workload; without it words are counted: pip install 'nsysmoe[workload]'",
        ),
    )
    return [{"input": name, "is_readable": can, "note": note} for name, can, note in rows]


def _extra(name: str, packages: list[str]) -> dict[str, Any]:
    missing = [package for package in packages if _version(package) is None]
    return {"extra": name, "is_installed": not missing, "missing": missing}


def _broken(versions: tuple[dict[str, Any], ...]) -> list[Finding]:
    return [
        Finding(
            "broken_package",
            "error",
            f"{row['name']} cannot be imported ({row['problem']}): install nsysmoe again in an "
            "environment of its own",
            {"name": row["name"], "version": row["version"]},
        )
        for row in versions
        if row["problem"] is not None
    ]


def _little_space(places: tuple[dict[str, Any], ...]) -> list[Finding]:
    temporary = places[0]
    if not temporary["is_writable"]:
        message = f"{temporary['path']} cannot be written: set TMPDIR to a folder that can"
        return [Finding("no_temporary_folder", "error", message, {"path": temporary["path"]})]
    unkept = [
        Finding(
            "no_cache_folder",
            "warning",
            f"{place['path']} cannot be written, so no answer is kept: set NSYSMOE_CACHE_DIR to a "
            "folder that can",
            {"path": place["path"]},
        )
        for place in places[1:]
        if not place["is_writable"]
    ]
    return unkept + [
        Finding(
            "little_space",
            "warning",
            f"{place['path']} ({place['what']}) has {place['free_bytes'] / 2**30:.1f} GiB left: "
            "large traces spill to disk; make room, or set TMPDIR to another disk",
            {"path": place["path"], "free_bytes": place["free_bytes"]},
        )
        for place in places
        if place["free_bytes"] is not None and place["free_bytes"] < _LITTLE_SPACE_BYTES
    ]


def _left_behind() -> list[Finding]:
    if not (left := left_folders()):
        return []
    size = sum(size for _, size in left)
    return [
        Finding(
            "left_folders",
            "info",
            f"calls that were killed left {len(left)} temporary folder(s) ({size / 10**6:,.1f} MB) "
            f"in {left[0][0].parent}: nsysmoe cache clear removes them, as does the next call that "
            "reads a trace",
            {"folders": [str(folder) for folder, _ in left], "bytes": size},
        )
    ]


def _no_nsys(found: dict[str, Any], asked: str | None) -> list[Finding]:
    if found["path"] is not None:
        return []
    where = f"{asked} is no program" if asked else "there is no nsys on PATH"
    return [
        Finding(
            "no_nsys",
            "info",
            f"{where}: reports have to be exported elsewhere (nsys export --type sqlite)",
        )
    ]
