"""Asking the machine what ``preflight`` judges."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.capture.plan import NODE, NSYS_OPTIONS, slots
from nsysmoe.capture.preflight import Facts, Gpu
from nsysmoe.capture.process import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nsysmoe.capture.spec import Spec

_VERSION_OF_VLLM = """
try:
    from importlib.metadata import version
    found = version("vllm")
except Exception:
    from vllm import __version__ as found
print("vLLM is", found)
"""
# vLLM logs to the same stream.
_VERSION = re.compile(r"^vLLM is (\S+)$", re.MULTILINE)
_OF_GPUS = "index,name,memory.used,memory.total,driver_version"


def probe(spec: Spec, folder: Path) -> Facts:
    """Ask for everything; nothing here raises where a program is missing."""
    gpus, driver = _gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    needs_port = spec.mode == "server" or any(spec.of(arm).layout.data > 1 for arm in spec.arms)
    return Facts(
        nsys=_first_line(spec.nsys, "--version"),
        nsys_options=_nsys_options(spec.nsys),
        vllm=vllm_version(spec.python),
        gpus=gpus,
        driver=driver,
        free_bytes=shutil.disk_usage(_existing(folder)).free,
        port_is_free=all(_is_free(slot.port) for slot in slots(spec)) if needs_port else None,
        model=_config(spec.model),
        vllm_options=_vllm_options(spec.python),
    )


def vllm_version(python: str) -> str | None:
    """Return the version of the vLLM that an interpreter imports."""
    said = ask([python, "-c", _VERSION_OF_VLLM], timeout_s=180.0)
    found = _VERSION.search(said.output) if said and said.status == 0 else None
    return found[1] if found else None


def _vllm_options(python: str) -> dict[str, Any] | None:
    """Return what ``node/nsysmoe_options.py`` reads; None where it cannot."""
    said = ask([python, str(NODE / "nsysmoe_options.py")])
    try:
        found = json.loads(said.output) if said and said.status == 0 else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def exports_json(nsys: str) -> bool:
    """Tell whether this nsys can export the payloads of ranges, which name communicators."""
    return "--include-json" in _help(nsys, "export")


def is_profiled(environment: Mapping[str, str]) -> bool:
    """Tell whether nsys started us: it sets these for what it profiles."""
    return bool(environment.get("NSYS_PROFILING_SESSION_ID")) or "ToolsInjection" in (
        environment.get("CUDA_INJECTION64_PATH", "")
    )


def used_bytes(only: tuple[str, ...] = ()) -> list[int] | None:
    """Return the memory in use on each GPU, of some or of those that are visible here.

    None where the driver cannot be asked.
    """
    gpus, _ = _gpus(",".join(only) if only else os.environ.get("CUDA_VISIBLE_DEVICES"))
    return None if gpus is None else [gpu.used_bytes for gpu in gpus]


def _first_line(program: str, option: str) -> str | None:
    said = ask([program, option])
    lines = said.output.strip().splitlines() if said and said.status == 0 else []
    return lines[0] if lines else None


def _nsys_options(nsys: str) -> frozenset[str]:
    text = _help(nsys, "profile")
    return frozenset(option for option in NSYS_OPTIONS if option in text)


def _help(nsys: str, command: str) -> str:
    said = ask([nsys, command, "--help"])
    return said.output + said.errors if said else ""


def _gpus(shown: str | None) -> tuple[tuple[Gpu, ...] | None, str | None]:
    said = ask(["nvidia-smi", f"--query-gpu={_OF_GPUS}", "--format=csv,noheader,nounits"])
    if said is None or said.status != 0:
        return None, None
    rows = [[part.strip() for part in line.split(",")] for line in said.output.splitlines() if line]
    listed = [
        Gpu(int(index), name, _mebibytes(used), _mebibytes(total))
        for index, name, used, total, _ in rows
    ]
    return _visible(listed, shown), rows[0][4] if rows else None


def _mebibytes(text: str) -> int:
    # A GPU that is cut in parts tells no memory of the whole.
    return int(text) << 20 if text.isdigit() else 0


def _visible(gpus: list[Gpu], shown: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES shows, in its order."""
    if shown is None:
        return tuple(gpus)
    by_index = {str(gpu.index): gpu for gpu in gpus}
    names = [name.strip() for name in shown.split(",") if name.strip()]
    if all(name in by_index for name in names):
        return tuple(by_index[name] for name in names)
    # Named by their ids, which are not asked for: as many as there are names.
    return tuple(gpus[: len(names)])


def _is_free(port: int) -> bool:
    with socket.socket() as probe_:
        probe_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _config(model: str) -> dict[str, Any] | None:
    """Return the config.json of a folder, or of a model that was downloaded before."""
    for path in (Path(model) / "config.json", *_downloaded(model)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _downloaded(model: str) -> list[Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = hub / f"models--{model.replace('/', '--')}" / "snapshots"
    return sorted(folder.glob("*/config.json"))
