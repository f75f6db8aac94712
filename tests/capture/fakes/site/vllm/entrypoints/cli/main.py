"""Plays ``vllm serve``, a real HTTP server that streams tokens, and ``vllm bench serve``."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vllm import __version__, _misbehave_at, _note

_HOW = os.environ.get("FAKE_VLLM", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    profiled = 0

    def do_GET(self) -> None:
        if self.path == "/health" and _HOW == "unhealthy":
            self._say(503, {})
        elif self.path == "/version":
            self._say(200, {"version": __version__})
        else:
            self._say(200, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/v1/completions":
            self._stream(json.loads(body))
            return
        _note(self.path)
        Handler.profiled += 1
        if _HOW == "dies":
            os._exit(3)
        self._say(404 if _HOW == "no_profile" else 200, {})

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, request: dict[str, Any]) -> None:
        _note(f"complete {request['max_tokens']}")
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(request["max_tokens"]):
            self._event({"choices": [{"text": "x"}]})
            time.sleep(0.001)
            if _HOW == "cut" and Handler.profiled:
                return
        used = {"prompt_tokens": len(request["prompt"]), "completion_tokens": request["max_tokens"]}
        self._event({"choices": [], "usage": used})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()


def main() -> None:
    if sys.argv[1] == "bench":
        _bench(dict(word[2:].partition("=")[::2] for word in sys.argv[3:]))
        return
    assert sys.argv[1] == "serve"
    _misbehave_at("load")
    port = next(int(word[7:]) for word in sys.argv if word.startswith("--port="))
    _note(" ".join(word for word in sys.argv if "eplb" in word))
    if "--enable-eplb" in sys.argv:
        print("Rearranged experts in 0.10 seconds.", flush=True)
    time.sleep(0.3)
    try:
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    except KeyboardInterrupt:
        print("shutting down", flush=True)


def _bench(given: dict[str, str]) -> None:
    """Send every request after the one before; write what the real one writes, in detail."""
    _note(f"bench {given['dataset-name']} {given['request-rate']}")
    if _HOW == "bench_crashes":
        sys.exit("no tokenizer, says the fake")
    count, began = int(given["num-prompts"]), time.perf_counter()
    tokens = int(given.get("random-output-len") or given["custom-output-len"])
    if "profile" in given:
        _post(given, "/start_profile", {})
    took = []
    for _ in range(count):
        at = time.perf_counter()
        _post(given, "/v1/completions", {"prompt": "x", "max_tokens": tokens})
        took.append(time.perf_counter() - at)
    if "profile" in given:
        _post(given, "/stop_profile", {})
    failed = count if _HOW == "bench_fails" else 1 if _HOW == "bench_fails_once" else 0
    duration = time.perf_counter() - began
    result = {
        "date": "20251201-101010", "model_id": given["model"], "request_rate": "inf",
        "duration": duration, "completed": count - failed, "failed": failed,
        "request_throughput": count / duration, "output_throughput": count * tokens / duration,
        "input_lens": [8] * count, "ttfts": [one / tokens for one in took],
        "output_lens": [0] * failed + [tokens] * (count - failed),
        "itls": [[one / tokens] * (tokens - 1) for one in took],
        "errors": ["Traceback\nConnectionError: refused"] * failed + [""] * (count - failed),
    }  # fmt: skip
    Path(given["result-dir"], given["result-filename"]).write_text(json.dumps(result))


def _post(given: dict[str, str], path: str, body: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection(urlsplit(given["base-url"]).netloc)
    connection.request("POST", path, json.dumps(body))
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
