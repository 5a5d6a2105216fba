"""How an endpoint writes its errors: as a whole response, and as an event inside a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.api.envelope import error_body, openai_error_body
from serving.api.sse import error_event, openai_error_event
from serving.errors import ServingError


@dataclass(frozen=True, slots=True)
class Dialect:
    """How errors are written. `body` takes an error and the request's ID; `frame` makes an event of
    that body, or of `event_body` where an event's differs."""

    body: Callable[[ServingError, str], bytes]
    frame: Callable[[bytes], bytes]
    event_body: Callable[[ServingError, str], bytes] | None = None

    def event(self, error: ServingError, request_id: str) -> bytes:
        """The frame that ends a stream which failed after its first byte."""
        return self.frame((self.event_body or self.body)(error, request_id))


CREATE_COMPLETION = Dialect(error_body, error_event)
OPENAI = Dialect(openai_error_body, openai_error_event)
