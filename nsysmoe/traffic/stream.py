"""Server-sent events of a streamed completion, with the times at which they came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# A line beyond it is no event of a completion.
_LONGEST_LINE = 16 << 20


class StreamError(Exception):
    """The stream is not what an OpenAI-compatible server sends, or says that it failed."""


class ServerError(StreamError):
    """The server said inside the stream that it failed."""


@dataclass
class Stream:
    """What has come of one stream.

    Attributes:
        first: When the first token came; None before.
        last: When the last one came.
        gap: The longest time between two events with tokens.
        events: Events with tokens.
        usage: The server's own count.
        is_done: Whether the end was announced.
    """

    first: float | None = None
    last: float | None = None
    gap: float | None = None
    events: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    is_done: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes, at: float) -> None:
        """Take bytes that came at a moment.

        Raises:
            ServerError: An event says that the server failed.
            StreamError: An event is no JSON object.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE:
            raise StreamError("a line without end")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), at)

    @property
    def counted(self) -> int | None:
        """Tokens by the server's count; None where it did not count."""
        found = self.usage.get("completion_tokens")
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def _event(self, data: bytes, at: float) -> None:
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            # Of bytes it would guess the encoding first.
            event = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise StreamError("an event that is no JSON") from error
        if not isinstance(event, dict):
            raise StreamError("an event that is no object")
        if event.get("error"):
            told = event["error"]
            raise ServerError(str(told.get("message", told) if isinstance(told, dict) else told))
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if any(map(_is_token, event.get("choices") or ())):
            self._token(at)

    def _token(self, at: float) -> None:
        if self.last is not None:
            self.gap = max(self.gap or 0.0, at - self.last)
        self.first = at if self.first is None else self.first
        self.last = at
        self.events += 1


def _is_token(choice: Any) -> bool:
    """Tell whether a choice holds a token: some servers open a chat with a role alone."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        # A token that decodes to nothing is a token.
        return "text" in choice
    return any(value for key, value in delta.items() if key != "role") or bool(
        choice.get("finish_reason")
    )
