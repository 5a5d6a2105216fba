"""What differs between the APIs that are spoken here, whatever the endpoint.

That is how an error is written, as a whole response and as an event inside a stream, and what a
silent stream is kept open with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.api.envelope import anthropic_error_body, error_body, openai_error_body
from serving.api.sse import (
    KEEPALIVE,
    PING,
    error_event,
    openai_error_event,
    responses_error_event,
)
from serving.errors import ServingError


@dataclass(frozen=True, slots=True)
class Dialect:
    """How errors are written. `body` takes an error and the request's ID; `frame` makes an event of
    that body, or of `event_body` where an event's differs. `keepalive` is the frame for a stream
    that has long been silent. `id_header` names a header that has the request's ID beside
    `x-request-id`, if there is one."""

    body: Callable[[ServingError, str], bytes]
    frame: Callable[[bytes], bytes]
    keepalive: bytes = KEEPALIVE
    id_header: bytes = b""
    event_body: Callable[[ServingError, str], bytes] | None = None

    def event(self, error: ServingError, request_id: str) -> bytes:
        """The frame that ends a stream which failed after its first byte."""
        return self.frame((self.event_body or self.body)(error, request_id))


CREATE_COMPLETION = Dialect(error_body, error_event)
OPENAI = Dialect(openai_error_body, openai_error_event)
# A response that is refused before its first byte is refused as everywhere at OpenAI.
RESPONSES = Dialect(openai_error_body, responses_error_event)
ANTHROPIC = Dialect(anthropic_error_body, error_event, PING, b"request-id")
