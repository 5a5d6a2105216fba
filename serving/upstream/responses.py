"""The responses API of a provider (platform.openai.com/docs/api-reference/responses).

The request goes out and the answer comes back as they are, but for the model's name and `store`:
nothing is kept here, so nothing is kept at the provider either, under an ID that could not be asked
for again.
"""

from __future__ import annotations

from serving.api.stored import refuse_stored
from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Tally
from serving.upstream.dialects import Dialect
from serving.upstream.form import (
    Event,
    Form,
    NotAnAnswer,
    Reading,
    as_asked,
    cached_of,
    json_object,
)
from serving.wire.messages import HttpCall

# The last event of a stream that has not failed; both have the whole response in them.
_LAST = ("response.completed", "response.incomplete")
_DONE = ("completed", "incomplete")


class ResponsesReading(Reading):
    """Reads a response: its stream ends with an event that has the whole of it."""

    def __init__(self, tally: Tally, *, streams: bool) -> None:
        super().__init__(tally, streams=streams)
        self._finished = False

    def error(self, event: Event) -> object:
        """See `Reading.error`. A stream has events of its own for it."""
        if event.get("type") == "error":
            return event.get("error") or {
                "message": event.get("message"),
                "code": event.get("code"),
                "param": event.get("param"),
            }
        response = event.get("response") if self.streams else event
        if isinstance(response, dict) and response.get("status") == "failed":
            return response.get("error") or {"message": "the response failed"}
        return event.get("error")

    def take(self, event: Event) -> Event:
        """See `Reading.take`."""
        if not self.streams:
            self._end(event)
        elif not isinstance(event.get("type"), str):
            raise NotAnAnswer("its answer has an event without a type")
        elif event["type"] in _LAST:
            self._end(event.get("response"))
        return event

    def added(self, event: Event) -> object:
        """See `Reading.added`."""
        if not self.streams:
            return event.get("output")
        return event.get("delta") if event["type"].endswith(".delta") else None

    def _end(self, response: object) -> None:
        if not isinstance(response, dict) or response.get("status") not in _DONE:
            raise NotAnAnswer("its answer is no response that has ended")
        self._finished = True
        self.tally.finish_reason = "stop" if response["status"] == "completed" else "length"
        if isinstance(usage := response.get("usage"), dict):
            cached = cached_of(usage, "input_tokens_details")
            self.count(usage.get("input_tokens"), usage.get("output_tokens"), cached)

    @property
    def finished(self) -> bool:
        """See `Reading.finished`."""
        return self._finished


def responses_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A responses request.

    Raises:
        InvalidRequest: the body is no JSON object, or asks for something that is kept.
    """
    asked = json_object(body)
    refuse_stored(asked)
    sent = {**asked, "model": spec.upstream_model, "store": False}
    render = as_asked(sent.get("stream"), call.model, "response")
    return Form("/responses", sent, ResponsesReading, render)
