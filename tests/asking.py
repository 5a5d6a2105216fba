"""Every endpoint that a model answers, asked by its examples of the API's description: for tests of
what is the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema

from serving.api.asked import Ability
from serving.api.endpoints import ENDPOINTS, NAME, Endpoint, Relayed
from serving.api.openapi.document import EVENTS, JSON, document, text_of

DOCUMENT = document(ENDPOINTS)

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

    def sent(
        self, model: str, body: dict[str, Any] | None = None, recording: bytes = b"RIFF"
    ) -> dict[str, Any]:
        """The arguments of httpx for the body of a request."""
        fields = dict(self.body if body is None else body)
        if self.path(model) == self.endpoint.path:
            fields["model"] = model
        if self.answer.needs is Ability.TRANSCRIBE:
            del fields["file"]
            return {"data": fields, "files": {"file": ("a.wav", recording, "audio/wav")}}
        return {"json": fields}

    def check_running(
        self,
        client: httpx.Client,
        url: str,
        body: dict[str, Any],
        model: str,
        answers: str,
        recording: bytes = b"RIFF",
    ) -> None:
        """A running service answers a body for `model` by `answers`, as the description says."""
        response = client.post(url + self.path(model), **self.sent(model, body, recording))
        assert response.status_code == 200, response.text
        self.check_schema(response)
        self.check_names(response, model, answers)

    def check_names(self, answer: httpx.Response, asked: str, answers: str) -> None:
        """An answer names the ID that was asked for and no other. Create Completion's form has no
        field for that; its `response_metadata` names the model that answers."""
        path, streams = self.endpoint.path, _kind(answer) == EVENTS
        found = set(_names(said(answer)))
        nameless = path.startswith(NAMELESS) or self.answer.needs is Ability.TRANSCRIBE
        if nameless or (path == CHAT_V4 and not streams):
            assert found <= {asked}
        else:
            assert found == {answers if path in COMPLETIONS else asked}
        assert answer.headers.get("x-served-model", asked) == answers

    def check_schema(self, answer: httpx.Response) -> None:
        """An answer, or each of its events, is what the description says."""
        operation = DOCUMENT["paths"][self.endpoint.path][self.endpoint.method.lower()]
        schema = operation["responses"]["200"]["content"][_kind(answer)]["schema"]
        if _kind(answer) == EVENTS:
            data = schema["properties"]["data"]
            schema = data.get("anyOf", [data])[-1]["contentSchema"]
            assert len(said(answer)) > 1
        for each in said(answer):
            check(each, schema)


ASKED = [Asking(at, at.answer) for at in ENDPOINTS if isinstance(at.answer, Relayed)]


def check(value: object, schema: dict[str, Any]) -> None:
    """A value is what a schema of the description says."""
    jsonschema.validate(value, {**schema, "components": DOCUMENT["components"]})


def said(answer: httpx.Response) -> list[Any]:
    """A whole answer, or the events of a stream."""
    if _kind(answer) == JSON:
        return [answer.json()]
    assert _kind(answer) == EVENTS
    data = [line[len("data: ") :] for line in answer.text.splitlines() if line[:6] == "data: "]
    return [json.loads(each) for each in data if each != "[DONE]"]


def _kind(answer: httpx.Response) -> str:
    return answer.headers["content-type"].partition(";")[0]


def _names(said: Any) -> Iterator[str]:
    """Every model that is named, in whatever place."""
    if isinstance(said, list):
        for each in said:
            yield from _names(each)
    elif isinstance(said, dict):
        for key, value in said.items():
            if key == "model":
                yield value
            yield from _names(value)
