"""The messages API of a provider (docs.anthropic.com/en/api/messages, .../messages-count-tokens,
.../messages-streaming): request and answer go through as they are, but for the model's name. The
header that says which betas a request uses goes with it: without it Anthropic refuses what they add
to a body."""

from __future__ import annotations

import re

from serving.api.openai import BETA_HEADER
from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Tally
from serving.errors import InvalidRequest
from serving.upstream.dialects import Dialect
from serving.upstream.form import (
    Event,
    Form,
    NotAnAnswer,
    OnePiece,
    Reading,
    as_asked,
    json_object,
    unstreamed,
    whole,
)
from serving.wire.messages import HttpCall

KEY_HEADER = "x-api-key"
VERSION = {"anthropic-version": "2023-06-01"}
_BETAS = re.compile(r"[\x20-\x7e]*")


class MessagesReading(Reading):
    """Reads a message. A stream says the prompt's tokens at its start, and the completion's so far
    with each `message_delta`; tokens that a cache was read for or written with are the prompt's."""

    def __init__(self, tally: Tally, *, streams: bool) -> None:
        super().__init__(tally, streams=streams)
        self._finished = False
        self._prompt = 0
        self._cached = 0

    def take(self, event: Event) -> Event:
        """See `Reading.take`."""
        if not self.streams:
            if not isinstance(event.get("content"), list):
                raise NotAnAnswer("its answer is no message")
            self._usage(event)
            self._reason(event)
            self._finished = True
            return event
        kind = event.get("type")
        if not isinstance(kind, str):
            raise NotAnAnswer("its answer has an event without a type")
        if kind == "message_start":
            self._usage(event.get("message"))
        elif kind == "message_delta":
            self._usage(event)
            self._reason(event.get("delta"))
        elif kind == "message_stop":
            self._finished = True
        return event

    def added(self, event: Event) -> object:
        """See `Reading.added`."""
        if not self.streams:
            return event["content"]
        kind = event["type"]
        if kind == "content_block_start":
            return event.get("content_block")
        return event.get("delta") if kind == "content_block_delta" else None

    def _usage(self, part: object) -> None:
        usage = part.get("usage") if isinstance(part, dict) else None
        if isinstance(usage, dict):
            names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
            counts = [usage.get(name) for name in names]
            self._prompt = sum(n for n in counts if isinstance(n, int)) or self._prompt
            cached = usage.get("cache_read_input_tokens")
            self._cached = cached if isinstance(cached, int) else self._cached
            self.count(self._prompt, usage.get("output_tokens"), self._cached)

    def _reason(self, part: object) -> None:
        if isinstance(part, dict) and isinstance(reason := part.get("stop_reason"), str):
            self.tally.finish_reason = "length" if reason == "max_tokens" else "stop"

    @property
    def finished(self) -> bool:
        """See `Reading.finished`."""
        return self._finished


class CountReading(OnePiece):
    """Reads how many tokens a prompt has. Nothing was run, so nothing is counted as used."""

    def take(self, event: Event) -> Event:
        """See `Reading.take`."""
        if not isinstance(event.get("input_tokens"), int):
            raise NotAnAnswer("its answer is no count of tokens")
        self.usage = True
        return event


def messages_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A messages request.

    Raises:
        InvalidRequest: the body is no JSON object, or the header with betas no text.
    """
    sent = {**json_object(body), "model": spec.upstream_model}
    render = as_asked(sent.get("stream"), call.model, "message")
    return Form(
        "/messages", sent, MessagesReading, render, own_key=KEY_HEADER, headers=_headers(call)
    )


def count_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A request to count a prompt's tokens.

    Raises:
        InvalidRequest: as `messages_form`.
    """
    sent, path = unstreamed(body, spec.upstream_model), "/messages/count_tokens"
    return Form(path, sent, CountReading, whole, own_key=KEY_HEADER, headers=_headers(call))


def _headers(call: HttpCall) -> dict[str, str]:
    """Those of Anthropic's API: the version that is read here, and the betas that the caller uses.

    Raises:
        InvalidRequest: the betas are not a header's printable text.
    """
    betas = dict(call.headers).get(BETA_HEADER)
    if betas is None:
        return VERSION
    if not _BETAS.fullmatch(betas):
        raise InvalidRequest(f"header '{BETA_HEADER}': must be of printable ASCII characters")
    return {**VERSION, BETA_HEADER: betas}
