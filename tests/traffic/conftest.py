"""The scripted server as a process of its own, and logs of requests that script it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Scripted:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def answered(self) -> dict[Any, dict[str, Any]]:
        return {row["id"]: row for row in self.rows() if "first" in row}

    def asked(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if "body" in row]


def start(log: Path, port: int = 0) -> Scripted:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.traffic.server", "--log", str(log), "--port", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return Scripted(process, int(process.stdout.readline()), log)


def stop(server: Scripted) -> None:
    server.process.kill()
    server.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Scripted]:
    pytest.importorskip("aiohttp", reason="pip install 'nsysmoe[replay]'")
    found = start(tmp_path / "server.jsonl")
    yield found
    stop(found)


def write_log(path: Path, scripts: list[dict[str, Any]], gap_s: float = 0.01) -> Path:
    """Write our own form: request i is due at i x gap_s and does what its script says."""
    rows = [
        {
            "id": f"q{number}",
            "prompt": json.dumps({"id": number, **script}),
            "max_tokens": script.get("tokens", 4),
            "arrival_s": number * gap_s,
        }
        for number, script in enumerate(scripts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
