"""What became of one request: a line of the journal, a row of run.json."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

# Kinds of errors; ``http_503`` and the like beside them.
CONNECT = "connect"
DISCONNECT = "disconnect"
TIMEOUT = "timeout"
STALL = "stall"
SERVER = "server"
STREAM = "stream"
# The server is away, not unwilling.
AWAY = (CONNECT, DISCONNECT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request that was sent to its end, well or not; times in seconds.

    Attributes:
        number: Its place in the order of arrival, from 0.
        id: Its name in the log.
        session: Which call sent it, from 1: a replay that was resumed has several.
        intended_s: When it should have been sent, since the session's start.
        late_s: The sender's own lateness: from then until its loop took the request up.
        queued_s: From then until it was sent: waiting for one of ``--max-concurrency`` places.
        ttft_s: From the intended time to the first token; None where none came.
        tpot_s: Time per output token after the first; None of fewer than two.
        e2e_s: From the intended time to the last token, or to the error.
        gap_s: The longest wait between two events of its stream.
        prompt_tokens: As the server counts them; None where it does not tell.
        output_tokens: As the server counts them; events where it does not tell.
        counted: Whether the server counted.
        asked_tokens: Asked for.
        error: What kind of error ended it; None where none did.
        message: What was said about it.
    """

    number: int
    id: str
    session: int
    intended_s: float
    late_s: float
    queued_s: float
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float
    gap_s: float | None
    prompt_tokens: int | None
    output_tokens: int
    counted: bool
    asked_tokens: int
    error: str | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        # Plain: asdict copies each value, a tenth of what a request costs the sender.
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Outcome:
        """Build it from what ``to_dict`` returned; keys of later versions are left out."""
        return cls(**{name: row[name] for name in _NAMES})


_NAMES = tuple(one.name for one in fields(Outcome))
