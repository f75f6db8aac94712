"""One streamed request over HTTP, measured from when it should have been sent."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from nsysmoe.errors import TrafficError
from nsysmoe.traffic import outcome as kinds
from nsysmoe.traffic.outcome import Outcome
from nsysmoe.traffic.stream import ServerError, Stream, StreamError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from nsysmoe.traffic.request import Request

# Below uvicorn's 5 s: a connection that the server is about to close must not be used again.
_KEEP_ALIVE_S = 2.0
_ASK_S = 30.0
_MOST_SAID = 200


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        url: ``http://HOST:PORT``, with any prefix before ``/v1``.
        model: The model's name there.
        output_tokens: Asked for where the log tells no length; None where every length is known.
        ignore_eos: Ask vLLM to go on after an end of text.
        timeout_s: From sending to the last token.
        stall_s: Without any byte.
        key: A bearer token; None without.
    """

    url: str
    model: str
    output_tokens: int | None = None
    ignore_eos: bool = True
    timeout_s: float = 600.0
    stall_s: float = 120.0
    key: str | None = None


@dataclass(frozen=True)
class Due:
    """When a request was due, and how it came to be sent; on the clock of ``perf_counter``."""

    number: int
    session: int
    start: float
    intended: float
    taken: float
    sent: float

    def outcome(self, request_id: str, asked: int, stream: Stream, end: float) -> Outcome:
        """Return what became of it, without an error."""
        first, last = stream.first, stream.last
        tokens = stream.events if stream.counted is None else stream.counted
        due = self.start + self.intended
        return Outcome(
            number=self.number,
            id=request_id,
            session=self.session,
            intended_s=self.intended,
            late_s=self.taken - due,
            queued_s=self.sent - self.taken,
            ttft_s=None if first is None else first - due,
            tpot_s=(
                (last - first) / (tokens - 1)
                if first is not None and last is not None and tokens > 1
                else None
            ),
            e2e_s=end - due,
            gap_s=stream.gap,
            prompt_tokens=_count(stream.usage.get("prompt_tokens")),
            output_tokens=tokens,
            counted=stream.counted is not None,
            asked_tokens=asked,
        )


class Client:
    """Connections to one server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # A proxy that compresses holds tokens back until it has enough of them.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if target.key:
            headers["Authorization"] = f"Bearer {target.key}"
        self._session = aiohttp.ClientSession(
            # A limit here would queue requests where nobody counts them.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=target.timeout_s, sock_read=target.stall_s),
            headers=headers,
            # Proxies and passwords of the surroundings are not the user's word.
            trust_env=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def send(self, request: Request, due: Due) -> Outcome:
        """Send a request and follow its stream to the end; errors are part of what came of it."""
        target = self._target
        body = request.body(target.model, target.output_tokens or 1, ignore_eos=target.ignore_eos)
        data = json.dumps(body).encode()
        stream = Stream()
        error = await self._stream(request.path, data, stream)
        end = time.perf_counter() if error or stream.last is None else stream.last
        found = due.outcome(request.id, body["max_tokens"], stream, end)
        if error is None:
            return found
        kind, message = error
        return Outcome(**{**found.to_dict(), "error": kind, "message": message[:_MOST_SAID]})

    async def _stream(self, path: str, data: bytes, stream: Stream) -> tuple[str, str] | None:
        """Follow a stream; return the kind of error and what was said, None where all went well."""
        try:
            url = self._target.url + path
            # A redirection would add its time to the model's.
            async with self._session.post(url, data=data, allow_redirects=False) as response:
                if response.status != 200:
                    said = await response.content.read(_MOST_SAID)
                    return f"http_{response.status}", said.decode("utf-8", errors="replace")
                async for chunk in response.content.iter_any():
                    stream.feed(chunk, time.perf_counter())
        except (aiohttp.ClientError, asyncio.TimeoutError, StreamError, OSError) as error:
            return kind_of(error), _said(error)
        if stream.last is None:
            return kinds.STREAM, "no token came"
        if not stream.is_done and stream.counted is None:
            return kinds.DISCONNECT, "the stream ended before its last event"
        return None


def kind_of(error: BaseException) -> str:
    """Return the kind of an error."""
    if isinstance(error, ServerError):
        return kinds.SERVER
    if isinstance(error, aiohttp.SocketTimeoutError):
        return kinds.STALL
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return kinds.CONNECT
    if isinstance(error, asyncio.TimeoutError):
        return kinds.TIMEOUT
    if isinstance(error, StreamError | aiohttp.InvalidURL):
        return kinds.STREAM
    return kinds.DISCONNECT


def _said(error: BaseException) -> str:
    """Return what an error says to a person: aiohttp's own words name its parts."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno) if error.errno else str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer"
    if isinstance(error, aiohttp.ClientPayloadError | ConnectionResetError):
        return "the connection was closed within the answer"
    if isinstance(error, aiohttp.SocketTimeoutError):
        return "not a byte for --stall-timeout"
    if isinstance(error, asyncio.TimeoutError):
        return "not answered whole within --timeout"
    return str(error) or type(error).__name__


async def ask_model(url: str, key: str | None) -> str:
    """Return the first model that a server lists.

    Raises:
        TrafficError: It cannot be reached, or lists none.
    """
    status, found = await _get_json(f"{url}/v1/models", key)
    if status != 200:
        raise TrafficError(f"{url}/v1/models answered {status}; check --url, or give --model")
    rows = found.get("data") if isinstance(found, dict) else None
    name = rows[0].get("id") if isinstance(rows, list) and rows and _is_object(rows[0]) else None
    if not isinstance(name, str):
        raise TrafficError(f"{url}/v1/models lists no model; name it with --model")
    return name


async def ask_version(url: str, key: str | None) -> str | None:
    """Return vLLM's version; None of a server that does not tell.

    Raises:
        TrafficError: It cannot be reached.
    """
    status, found = await _get_json(f"{url}/version", key)
    version = found.get("version") if status == 200 and isinstance(found, dict) else None
    return version[:64] if isinstance(version, str) else None


async def _get_json(url: str, key: str | None) -> tuple[int, Any]:
    """Return the status and the JSON value of an answer; None of one that holds none."""
    headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=_ASK_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(url) as response,
        ):
            text = await response.text(errors="replace")
            status = response.status
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
        raise TrafficError(
            f"{url} cannot be reached ({_said(error)}); is the server up?"
        ) from error
    try:
        return status, json.loads(text)
    except (ValueError, RecursionError):
        return status, None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
