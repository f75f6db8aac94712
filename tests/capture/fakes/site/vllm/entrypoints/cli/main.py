"""Plays ``vllm serve``, a real HTTP server that streams tokens, and ``vllm bench serve``."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from vllm import __version__, _Balancer, _misbehave_at, _note

_HOW = os.environ.get("FAKE_VLLM", "")


class Engine:
    """Steps while requests are there: the one that has been here longest makes them."""

    def __init__(self, options: dict[str, str]) -> None:
        is_balanced = "enable-eplb" in options
        self._balancer = _Balancer(json.loads(options["eplb-config"])) if is_balanced else None
        module, _, name = options["worker-extension-cls"].rpartition(".")
        self.worker = getattr(importlib.import_module(module), name)()
        self.worker.model_runner = SimpleNamespace(eplb_state=self._balancer)
        self._lock = threading.Lock()
        self._here: list[int] = []

    def enter(self) -> None:
        with self._lock:
            self._here.append(threading.get_ident())

    def step(self) -> None:
        with self._lock:
            if self._balancer and self._here[0] == threading.get_ident():
                self._balancer.run(1)

    def leave(self) -> None:
        with self._lock:
            self._here.remove(threading.get_ident())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    profiled = 0
    engine: Engine

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
            self.engine.enter()
            self._stream(json.loads(body))
            self.engine.leave()
            return
        if self.path == "/collective_rpc":
            self._call(json.loads(body))
            return
        _note(self.path)
        Handler.profiled += 1
        if _HOW == "dies":
            os._exit(3)
        self._say(404 if _HOW == "no_profile" else 200, {})

    def _call(self, asked: dict[str, Any]) -> None:
        """As the real one: texts go in, and what is no list or object comes back as a text."""
        assert os.environ["VLLM_SERVER_DEV_MODE"] == "1"
        assert all(isinstance(one, str) for one in asked["args"])
        found = getattr(self.engine.worker, asked["method"])(*asked["args"])
        is_plain = found is None or isinstance(found, dict | list)
        self._say(200, {"results": [found if is_plain else str(found)] * 2})

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
            self.engine.step()
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
    options = dict(word[2:].partition("=")[::2] for word in sys.argv[3:])
    _note(" ".join(word for word in sys.argv if "eplb" in word))
    Handler.engine = Engine(options)
    time.sleep(0.3)
    try:
        ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler).serve_forever()
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
