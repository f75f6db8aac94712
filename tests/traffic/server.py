"""A small OpenAI-compatible server over real sockets that does what each prompt says.

A prompt is JSON: ``ttft`` and ``gap`` (s), ``tokens``, and ``fault``: ``503``, ``reset`` (the
connection is cut after the first token), ``truncate`` (the stream ends early), ``hang`` (nothing is
sent any more after the first token), ``silent`` (no answer at all), ``garbage`` (no JSON),
``event`` (an error inside the stream), ``die`` (the process ends). It writes down when a request
came and when its first and last token left, on the clock that all processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """One listening socket; ``log`` takes a JSON line a request."""

    def __init__(self, log: TextIO) -> None:
        self.log = log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line = await reader.readline()
        if not line:
            return False
        method, path, _ = line.decode().split(" ", 2)
        length, key = 0, None
        while (header := await reader.readline()) not in {b"\r\n", b""}:
            name, _, value = header.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
            key = value.strip() if name.lower() == "authorization" else key
        body = await reader.readexactly(length)
        if method == "GET" or not path.startswith("/v1/"):
            _answer(writer, *self._told(path))
            return True
        asked = json.loads(body)
        self._note({"path": path, "key": key, "body": asked})
        return await self._complete(path, asked, writer)

    def _told(self, path: str) -> tuple[int, str]:
        if path == "/v1/models":
            return 200, json.dumps({"data": [{"id": "scripted"}]})
        if path == "/version":
            return 200, '{"version": "0.33.0"}'
        return 404, "{}"

    async def _complete(
        self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter
    ) -> bool:
        came = time.perf_counter()
        is_chat = path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if is_chat else body["prompt"]
        script = json.loads(prompt) if isinstance(prompt, str) else {}
        fault = script.get("fault")
        tokens = body.get("max_tokens", 4)
        if fault == "die":
            os._exit(9)
        if fault == "503":
            _answer(writer, 503, '{"error": "over\x1b[31mloaded"}')
            return True
        await asyncio.sleep(script.get("ttft", 0.0))
        if fault == "silent":
            await asyncio.sleep(3600)
        writer.write(HEAD)
        first = last = time.perf_counter()
        start = first
        for number in range(tokens):
            if number:
                # By the clock, so that lateness does not add up.
                until = start + number * script.get("gap", 0.0)
                await asyncio.sleep(max(0.0, until - time.perf_counter()))
            if writer.is_closing():
                return False
            last = time.perf_counter()
            _chunk(writer, _event(is_chat=is_chat))
            if fault and number == 0 and await self._fault(fault, writer):
                return False
        _chunk(writer, json.dumps({"choices": [], "usage": {
            "prompt_tokens": 7, "completion_tokens": tokens}}))  # fmt: skip
        _chunk(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self._note({"id": script.get("id"), "came": came, "first": first, "last": last})
        return True

    async def _fault(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        await writer.drain()
        if fault == "reset":
            writer.transport.abort()
        elif fault == "truncate":
            writer.write(b"0\r\n\r\n")
        elif fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "garbage":
            _chunk(writer, "{not json")
            return False
        elif fault == "event":
            _chunk(writer, json.dumps({"error": {"message": "out of memory"}}))
            return False
        return True

    def _note(self, row: dict[str, Any]) -> None:
        self.log.write(json.dumps(row) + "\n")
        self.log.flush()


def _event(*, is_chat: bool) -> str:
    choice = {"index": 0, **({"delta": {"content": "x"}} if is_chat else {"text": "x"})}
    return json.dumps({"id": "cmpl-1", "object": "x", "model": "scripted", "choices": [choice]})


def _chunk(writer: asyncio.StreamWriter, data: str) -> None:
    line = f"data: {data}\n\n".encode()
    writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")


def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = text.encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    with options.log.open("a", encoding="utf-8") as log:
        server = await asyncio.start_server(
            Server(log).serve, "127.0.0.1", options.port, backlog=4096
        )
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
