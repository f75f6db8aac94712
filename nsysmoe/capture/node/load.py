"""The load on a server of vLLM: the same rounds as offline, over HTTP.

Run by path; the standard library only. Readiness, profiling and completions are the server's own
endpoints: /health, /start_profile, /stop_profile, /v1/completions as a stream, and /collective_rpc
(in vLLM's development mode) for what requests cannot ask of its workers.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nsysmoe.capture.node import nsysmoe_bench as bench
    from nsysmoe.capture.node import nsysmoe_rounds as rounds
    from nsysmoe.capture.node import nsysmoe_workers as workers
    from nsysmoe.capture.node import nsysmoe_workload as workload
else:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import nsysmoe_bench as bench
    import nsysmoe_rounds as rounds
    import nsysmoe_workers as workers
    import nsysmoe_workload as workload

_POLL_S = 0.2
# Stopping a profile makes every rank write what it has.
_CALL_TIMEOUT_S = 600.0


class Server:
    """A server of vLLM."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._model = model

    def wait(self, timeout_s: float) -> None:
        """Wait until it is healthy."""
        limit = time.monotonic() + timeout_s
        while not self._is_healthy():
            if time.monotonic() > limit:
                raise TimeoutError(f"the server did not answer within {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def version(self) -> str | None:
        """Return vLLM's version, as far as it tells."""
        status, text = self._call("GET", "/version")
        found = json.loads(text).get("version") if status == 200 else None
        return found if isinstance(found, str) else None

    def profile(self, what: str) -> None:
        """Start or stop the profile."""
        status, text = self._call("POST", f"/{what}_profile")
        if status != 200:
            raise ConnectionError(f"/{what}_profile answered {status}: {text[:200]}")

    def call(self, method: str, arguments: tuple[str, ...]) -> list[Any]:
        """Call a method of the extension on every worker."""
        body = json.dumps({"method": method, "args": arguments})
        status, text = self._call("POST", "/collective_rpc", body)
        if status != 200:
            raise ConnectionError(f"/collective_rpc {method} answered {status}: {text[:200]}")
        found: list[Any] = json.loads(text)["results"]
        return found

    def complete(self, request: dict[str, Any], most_tokens: int) -> dict[str, Any]:
        """Send one request and return what it took."""
        body = {
            "model": self._model,
            "prompt": request.get("prompt_token_ids") or request["prompt"],
            "max_tokens": min(request["max_tokens"], most_tokens),
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection = self._connect(_CALL_TIMEOUT_S)
        sent = time.perf_counter()
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), _JSON)
            response = connection.getresponse()
            if response.status != 200:
                said = response.read(200).decode("utf-8", errors="replace")
                raise ConnectionError(f"/v1/completions answered {response.status}: {said}")
            return _measured(sent, _events(response))
        finally:
            connection.close()

    def _is_healthy(self) -> bool:
        try:
            return self._call("GET", "/health", timeout_s=5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _call(
        self, method: str, path: str, body: str | None = None, timeout_s: float = _CALL_TIMEOUT_S
    ) -> tuple[int, str]:
        connection = self._connect(timeout_s)
        try:
            connection.request(method, path, body, {} if body is None else _JSON)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", errors="replace")
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)


_JSON = {"Content-Type": "application/json"}


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the events of a stream with the time of their arrival."""
    for line in response:
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            yield time.perf_counter(), json.loads(data)


def _measured(sent: float, events: Iterator[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Return what one request took, by the arrival of its tokens."""
    times: list[float] = []
    usage: dict[str, Any] = {}
    for at, event in events:
        if "error" in event:
            raise ConnectionError(f"the server failed: {str(event['error'])[:200]}")
        usage = event.get("usage") or usage
        if event.get("choices"):
            times.append(at)
    if not times or not usage:
        raise ConnectionError("the stream ended before its last event")
    tokens = int(usage["completion_tokens"])
    return {
        "prompt_tokens": int(usage["prompt_tokens"]),
        "output_tokens": tokens,
        "ttft_s": times[0] - sent,
        "tpot_s": (times[-1] - times[0]) / (tokens - 1) if tokens > 1 else None,
        "e2e_s": times[-1] - sent,
    }


def main() -> None:
    """Run every round and write the record."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    Load(options).run()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    workload.add_options(parser)
    workers.add_options(parser)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--start-timeout", type=float, default=900.0)
    parser.add_argument("--request-rate", type=float, default=math.inf)
    parser.add_argument("--client", choices=["own", "bench"], default="own")
    parser.add_argument("--balanced", action="store_true", help="EPLB is on")
    parser.add_argument("--max-step-tokens", type=int, required=True)
    parser.add_argument("--max-sequences", type=int, required=True)
    return parser.parse_args()


class Load(rounds.Rounds):
    """The rounds of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.server = Server(options.url, options.model)
        self.stages = workload.Stages(options.output)
        self.requests = workload.requests_of(options)
        if options.client == "bench" and options.prompts is not None:
            bench.check(self.requests)
        self.workers = workers.Workers(self.server.call, options, is_balanced=options.balanced)

    def run(self) -> None:
        """Run every round and write the record."""
        started, before = workload.now(), time.perf_counter()
        self.stages.enter("waiting for the server")
        self.server.wait(self.options.start_timeout)
        load_s = time.perf_counter() - before
        self._warm_steps()
        measured = self.run_all()
        self.stages.enter("writing")
        self._write(started, load_s, measured)

    def _warm_steps(self) -> None:
        self.stages.enter("warming steps")
        self.workers.draw()
        self.workers.warm_steps(
            self.requests, self.options.max_step_tokens, self.options.max_sequences
        )

    def profiled(self) -> dict[str, Any]:
        """Run a round inside the capture range."""
        if self.options.client == "bench":
            # It sends a request to try the server before it starts the profile.
            return bench.run("profiled", self.options, is_profiled=True)
        self.server.profile("start")
        measured = self.timed("profiled")
        self.server.profile("stop")
        return measured

    def timed(self, name: str) -> dict[str, Any]:
        """Run a round, and return what it took."""
        options = self.options
        if options.client == "bench":
            return bench.run(name, options)
        due = workload.arrivals(options.request_rate, len(self.requests), options.seed)
        wall_s, rows = _together(self.server, self.requests, due, sys.maxsize)
        return workload.round_of(name, wall_s, rows)

    def again(self) -> None:
        """Run a round that nobody looks at."""
        self.timed("warm-up")

    def some(self, count: int, most_tokens: int) -> None:
        """Have the first requests answered at once, with so many tokens at most."""
        _together(self.server, self.requests[:count], [0.0] * count, most_tokens)

    def _write(self, started: str, load_s: float, rounds: list[dict[str, Any]]) -> None:
        record = {
            "schema_version": workload.SCHEMA_VERSION,
            "vllm": self.server.version(),
            "args": self.options.record,
            "prompts": {
                "digest": workload.digest_of(self.requests),
                "count": len(self.requests),
            },
            "started": started,
            "ended": workload.now(),
            "load_s": load_s,
            "unprofiled_rounds": self.options.unprofiled_rounds,
            "runs": rounds,
            **self.workers.record(self.options.measured_rounds or 1),
            "returned_experts": False,
        }
        workload.write_json(self.options.output / "run.json", record)


def _together(
    server: Server, requests: list[dict[str, Any]], due: list[float], most_tokens: int
) -> tuple[float, list[dict[str, Any]]]:
    """Send each request when it is due, s; return the wall time, s, and what each took."""
    with ThreadPoolExecutor(len(requests)) as threads:
        before = time.perf_counter()
        waiting = []
        for request, at in zip(requests, due, strict=True):
            time.sleep(max(0.0, before + at - time.perf_counter()))
            waiting.append(threads.submit(server.complete, request, most_tokens))
        rows = [{"id": str(number), **one.result()} for number, one in enumerate(waiting)]
        return time.perf_counter() - before, rows


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Its last line is what a person is shown.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
