"""The embeddings API of a provider: the request goes out and the answer comes back as they are, but
for the model's name (platform.openai.com/docs/api-reference/embeddings; Gemini has the same)."""

from __future__ import annotations

from serving.catalogue.spec import UpstreamSpec
from serving.upstream.dialects import Dialect
from serving.upstream.form import Event, Form, NotAnAnswer, OnePiece, unstreamed, whole
from serving.wire.messages import HttpCall


class EmbeddingsReading(OnePiece):
    """Reads an answer: a list of vectors. What they are made of is the provider's affair."""

    def take(self, event: Event) -> Event:
        """See `Reading.take`."""
        data = event.get("data")
        if not isinstance(data, list) or not all(
            isinstance(one, dict) and "embedding" in one for one in data
        ):
            raise NotAnAnswer("its answer has no embeddings")
        if isinstance(usage := event.get("usage"), dict):
            self.count(usage.get("prompt_tokens"), 0)
        return event


def embeddings_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """An embeddings request.

    Raises:
        InvalidRequest: the body is no JSON object.
    """
    sent = unstreamed(body, spec.upstream_model)

    def render(event: Event) -> bytes:
        return whole({**event, "model": call.model})

    return Form("/embeddings", sent, EmbeddingsReading, render)
