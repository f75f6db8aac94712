"""One request of a log: what is asked, when, and for how many tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
# What the sender itself decides; a log's own values would change what is measured.
_OURS = {"stream", "stream_options", "n", "best_of", "max_completion_tokens", "max_tokens", "model"}


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        id: Its name in the log; its place there where it has none.
        path: Where it is sent, ``COMPLETIONS`` or ``CHAT``.
        prompt: A text, token ids, or the messages of a chat.
        output_tokens: Tokens to ask for; None where the log does not tell.
        arrival_s: When it came, in seconds by the log's own clock; None where not told.
        options: Further keys of the body, as logged (temperature, tools, …).
    """

    id: str
    path: str
    prompt: str | list[int] | list[dict[str, Any]]
    output_tokens: int | None
    arrival_s: float | None
    options: dict[str, Any] = field(default_factory=dict)

    def body(self, model: str, output_tokens: int, *, ignore_eos: bool) -> dict[str, Any]:
        """Return the body of a streamed request.

        Args:
            model: The model's name at the server.
            output_tokens: Asked for where the log tells none.
            ignore_eos: Let vLLM go on after an end of text, so that lengths are the log's.
        """
        found = {key: value for key, value in self.options.items() if key not in _OURS}
        found["messages" if self.path == CHAT else "prompt"] = self.prompt
        found |= {
            "model": model,
            "max_tokens": self.output_tokens or output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ignore_eos:
            found["ignore_eos"] = True
        return found
