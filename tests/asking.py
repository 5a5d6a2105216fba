"""Every endpoint that a model answers, asked by its examples of the API's description: for tests of
what is the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.api.asked import Ability
from serving.api.endpoints import ENDPOINTS, NAME, Endpoint, Relayed
from serving.api.openapi.document import text_of

# What a model is for that has an ability; one that generates has all others.
TASKS = {Ability.EMBED: "embed", Ability.SCORE: "score", Ability.TRANSCRIBE: "transcribe"}
CHAT_V4 = "/v4/chat-completions"
# Create Completion and the stream of Scale's chats.
COMPLETIONS = ("/v4/completions", "/v2/completions", CHAT_V4)
# Answers that have no field for a model's name.
NAMELESS = ("/v1/llm/", "/v4/models/", "/tokenize", "/detokenize", "/v1/messages/count_tokens")


@dataclass(frozen=True)
class Asking:
    """One endpoint that a model answers, and the bodies of its examples."""

    endpoint: Endpoint
    answer: Relayed

    @property
    def task(self) -> str:
        return TASKS.get(self.answer.needs, "generate")

    @property
    def engine_path(self) -> str:
        return self.answer.path or self.endpoint.path

    @property
    def bodies(self) -> Iterator[dict[str, Any]]:
        """The examples, without the model."""
        for example in text_of(self.endpoint).examples.values():
            yield {name: value for name, value in example.items() if name != "model"}

    @property
    def body(self) -> dict[str, Any]:
        """The first example."""
        return next(self.bodies)

    @property
    def streamed(self) -> dict[str, Any] | None:
        """A body whose answer is a stream; None if the endpoint has no streams."""
        if self.endpoint.path.endswith("completions-stream"):
            return self.body
        if self.answer.needs is Ability.TRANSCRIBE:
            return {**self.body, "stream": "true"}
        return next((body for body in self.bodies if body.get("stream")), None)

    def path(self, model: str) -> str:
        """The target of a request, with the model where it is not in the body."""
        path = self.endpoint.path.replace(NAME, model)
        if "model_endpoint_name" in text_of(self.endpoint).query:
            return f"{path}?model_endpoint_name={model}"
        return path

    def sent(self, model: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The arguments of httpx for the body of a request."""
        fields = dict(self.body if body is None else body)
        if self.path(model) == self.endpoint.path:
            fields["model"] = model
        if self.answer.needs is Ability.TRANSCRIBE:
            del fields["file"]
            return {"data": fields, "files": {"file": ("a.wav", b"RIFF", "audio/wav")}}
        return {"json": fields}

    def calls_it(self, asked: str, answers: str, *, streams: bool) -> str | None:
        """What an answer calls the model: the ID that was asked for. Create Completion's form has
        no field for that; its `response_metadata` names the model that answers. None: there is no
        field at all."""
        path = self.endpoint.path
        nameless = path.startswith(NAMELESS) or self.answer.needs is Ability.TRANSCRIBE
        if nameless or (path == CHAT_V4 and not streams):
            return None
        return answers if path in COMPLETIONS else asked


ASKED = [Asking(at, at.answer) for at in ENDPOINTS if isinstance(at.answer, Relayed)]


def named(said: Any) -> Iterator[str]:
    """Every model that an answer, or its events, name, in whatever place."""
    if isinstance(said, list):
        for each in said:
            yield from named(each)
    elif isinstance(said, dict):
        for key, value in said.items():
            if key == "model":
                yield value
            yield from named(value)
