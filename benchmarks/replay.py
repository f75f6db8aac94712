"""How exactly requests are sent: 500 a second from two cores, beside other HTTP clients.

A server of its own process answers after 0.1 s with tokens 0.02 s apart. Lateness is the sender's
own, as the record tells it; the way to the server is what its clock, the same one, says more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from nsysmoe.analysis.experiments.traffic import replay
from nsysmoe.traffic.run import Options

Send = Callable[[bytes], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--against", nargs="*", default=["aiohttp", "httpx"])
    options = parser.parse_args()
    count = int(options.rate * options.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.traffic.server", "--log", str(folder / "server.jsonl")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        try:
            _ours(folder, url, count, options)
            for client in options.against:
                _bare(client, url, count, options)
        finally:
            server.kill()
            server.communicate()


def _prompt(number: int) -> str:
    return json.dumps({"id": number, "ttft": 0.1, "gap": 0.02})


def _ours(folder: Path, url: str, count: int, options: argparse.Namespace) -> None:
    log = folder / "log.jsonl"
    with log.open("w") as file:
        for number in range(count):
            row = {"prompt": _prompt(number), "max_tokens": options.tokens,
                   "arrival_s": number / options.rate}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    before = _cpu_s()
    found = replay(log, folder / "out", Options(url))
    spent = _cpu_s() - before
    rows = json.loads((folder / "out" / "run.json").read_text())["runs"][0]["requests"]
    late = np.array([row["late_s"] + row["queued_s"] for row in rows])
    truth = {}
    for line in (folder / "server.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "first" in row:
            truth[row["id"]] = row["first"] - row["came"]
    played = np.array([truth[int(row["id"])] for row in rows])
    more = np.array([row["ttft_s"] for row in rows]) - late - played
    print(f"nsysmoe replay: {found.requests['answered']:,} answered, {spent:.1f} s of CPU")
    _print("  late", late)
    _print("  TTFT beyond lateness and what the server played", more)


def _bare(client: str, url: str, count: int, options: argparse.Namespace) -> None:
    """Time a loop that only sends and reads."""
    try:
        late, spent = asyncio.run(_loop(client, url, count, options))
    except ImportError:
        print(f"{client}: not installed")
        return
    print(f"{client} alone: {spent:.1f} s of CPU")
    _print("  late", late)


async def _loop(
    client: str, url: str, count: int, options: argparse.Namespace
) -> tuple[Any, float]:
    body = {"model": "m", "prompt": _prompt(0), "max_tokens": options.tokens}
    data, before, late = json.dumps(body).encode(), _cpu_s(), []
    async with AsyncExitStack() as stack:
        send = await _client(client, f"{url}/v1/completions", stack)

        async def one(due: float) -> None:
            late.append(time.perf_counter() - due)
            await send(data)

        start, tasks = time.perf_counter() + 0.1, []
        for number in range(count):
            due = start + number / options.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
    return np.array(late), _cpu_s() - before


async def _client(name: str, url: str, stack: AsyncExitStack) -> Send:
    if name == "aiohttp":
        import aiohttp  # noqa: PLC0415 - each in its turn

        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )

        async def by_aiohttp(data: bytes) -> None:
            async with session.post(url, data=data) as response:
                async for _ in response.content.iter_any():
                    pass

        return by_aiohttp
    import httpx  # noqa: PLC0415

    other = await stack.enter_async_context(
        httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=600)
    )

    async def by_httpx(data: bytes) -> None:
        async with other.stream("POST", url, content=data) as response:
            async for _ in response.aiter_bytes():
                pass

    return by_httpx


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _print(what: str, values: Any) -> None:
    p50, p99, most = np.percentile(values * 1e3, [50, 99, 100])
    print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {most:.2f} ms")


if __name__ == "__main__":
    main()
