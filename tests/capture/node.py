"""A GPU node without GPUs: real programs that play nsys, vLLM and the driver."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fixtures.builder import TraceBuilder
from nsysmoe.capture import making, process, run
from nsysmoe.cli import main
from tests.conftest import ROOT

FAKES = Path(__file__).parent / "fakes"


def trace(path: Path, *, eplb: bool, ranks: int = 2, launches: int = 4) -> Path:
    """Write a trace of some ranks with MoE kernels, and EPLB's own where it is on."""
    build = TraceBuilder()
    for rank in range(ranks):
        pid = 1000 + rank
        build.gpu(rank).process(pid, "python3").device(pid, rank, rank)
        for step in range(launches):
            build.kernel("fused_moe_kernel", 100 * (step + 1), 10 + rank, device=rank, pid=pid)
        if eplb:
            build.kernel("_eplb_map_and_record_i32_kernel", 700, 2, device=rank, pid=pid)
    return build.write(path)


@dataclass
class Node:
    """A folder with the fakes, and the command line on it."""

    home: Path
    environment: dict[str, str]

    @property
    def output(self) -> Path:
        return self.home / "runs"

    @property
    def notes(self) -> list[list[Any]]:
        path = self.home / "notes"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def argv(self, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "nsysmoe", "capture", "--model", "m", "--tensor-parallel", "2",
            "--nsys", str(self.home / "bin" / "nsys"), "--python", sys.executable,
            "--num-prompts", "4", "--input-len", "8", "--output-len", "8", "--eplb-interval", "96",
            "-o", str(self.output), *more,
        ]  # fmt: skip

    def sweep_argv(self, *more: str) -> list[str]:
        """Return a sweep of two sizes in both of the paper's configurations, a run each."""
        return [
            sys.executable, "-m", "nsysmoe", "sweep", "run", "--model", "m",
            "--tensor-parallel", "2", "--python", sys.executable, "--num-prompts", "4",
            "--input-len", "8", "--output-len", "8", "--only-axes", "--axis", "max-num-seqs=2,4",
            "--repeats", "1", "-o", str(self.output), *more,
        ]  # fmt: skip

    def start(self, *more: str, **variables: str) -> subprocess.Popen[str]:
        return self._start(self.argv(*more), variables)

    def start_sweep(self, *more: str, **variables: str) -> subprocess.Popen[str]:
        return self._start(self.sweep_argv(*more), variables)

    def _start(self, argv: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            env={**self.environment, **variables},
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def capture(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.argv(*more), variables)

    def sweep(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.sweep_argv(*more), variables)

    def capture_as_program(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return _ended(self.start(*more, **variables))

    def sweep_as_program(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return _ended(self.start_sweep(*more, **variables))

    def _run(self, argv: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the command in this process: what it starts are programs all the same."""
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in {**self.environment, **variables}.items():
                patch.setenv(name, value)
            patch.chdir(self.home)
            # What is played takes no minutes: looked at more often, its ends are seen sooner.
            for module in (making, process, run):
                patch.setattr(module, "_POLL_S", 0.01)
            done = CliRunner().invoke(main, argv[3:], prog_name="nsysmoe")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "manifest.json").read_text())
        return found

    def wait_for(self, line: str) -> list[Any]:
        """Wait until a fake has noted a line that begins so."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            for note in self.notes:
                if note[2].startswith(line):
                    return note
            time.sleep(0.02)
        raise AssertionError(f"no fake came to {line!r}")

    def living(self) -> list[int]:
        """Return processes that carry a capture's token and this node's folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                ours = f"FAKE_NOTES={self.home / 'notes'}".encode() in variables
                if ours and any(one.startswith(b"NSYSMOE_CAPTURE=") for one in variables):
                    found.append(int(entry.name))
        return found


def _ended(started: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    with started as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def port() -> str:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def bare(home: Path) -> Path:
    """Return a folder for PYTHONPATH with click and numpy, that hides everything installed."""
    folder = home / "bare"
    folder.mkdir()
    for name in ("click", "numpy"):
        (folder / name).symlink_to(Path(import_module(name).__file__ or "").parent)
    for libraries in Path(import_module("numpy").__file__ or "").parent.parent.glob("numpy.libs"):
        (folder / libraries.name).symlink_to(libraries)
    (folder / "sitecustomize.py").write_text(
        "import sys\nsys.path[:] = [path for path in sys.path if 'site-packages' not in path]\n"
    )
    return folder


def _program(path: Path, script: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    path.chmod(0o755)


def node(home: Path) -> Node:
    """Set the fakes up in a folder."""
    _program(home / "bin" / "nsys", FAKES / "nsys.py")
    _program(home / "bin" / "nvidia-smi", FAKES / "nvidia_smi.py")
    environment = {
        **os.environ,
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{FAKES / 'site'}{os.pathsep}{ROOT}",
        "FAKE_NOTES": str(home / "notes"),
        "FAKE_TRACE_OFF": str(trace(home / "off.sqlite", eplb=False)),
        "FAKE_TRACE_ON": str(trace(home / "on.sqlite", eplb=True)),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return Node(home, environment)
