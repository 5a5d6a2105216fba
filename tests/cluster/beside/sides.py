"""The running service and bare vLLM, asked the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import pytest

from tests.live import parse_events

STREAM = "text/event-stream"


class Answer(NamedTuple):
    """`said` is a JSON value, or the events of a stream with their names, or bytes."""

    status: int
    media: str
    said: Any


# A stream that its server closes without an end.
BROKEN_OFF = Answer(200, STREAM, [])


class Served(NamedTuple):
    """A model ID, what bare vLLM calls that model, and which of its servers has it."""

    ours: str
    theirs: str
    server: str


def asked(models: Iterable[Served], names: Iterable[str]) -> list[Any]:
    """Each request with each model, as pytest's parameters. An alias is asked the first one only:
    what it answers is its model's, and it has another name."""
    first, *_ = names = list(names)
    return [
        pytest.param(model, name, id=f"{model.ours}, {name}")
        for model in models
        for name in (names if model.ours == model.theirs else [first])
    ]


@dataclass(frozen=True)
class Sides:
    """`theirs` has a client of `vllm serve` for each engine model."""

    ours: httpx.Client
    theirs: Mapping[str, httpx.Client]

    def ask(
        self, path: str, served: Served, body: dict[str, Any], theirs: dict[str, Any] | None = None
    ) -> tuple[Answer, Answer]:
        """What both answer to a JSON body. `theirs` are fields that only vLLM is sent."""
        sent = {"model": served.theirs, **body, **(theirs or {})}
        try:
            other = _answer(self.theirs[served.server].post(path, json=sent))
        except httpx.RemoteProtocolError:
            other = BROKEN_OFF
        return _answer(self.ours.post(path, json={"model": served.ours, **body})), other

    def ask_form(
        self, path: str, served: Served, fields: dict[str, str], file: bytes | None
    ) -> tuple[Answer, Answer]:
        """What both answer to a form, with a file if there is one."""
        ours, theirs = self.ours, self.theirs[served.server]
        return (
            _answer(ours.post(path, files=_form({"model": served.ours, **fields}, file))),
            _answer(theirs.post(path, files=_form({"model": served.theirs, **fields}, file))),
        )


def _form(fields: dict[str, str], file: bytes | None) -> list[tuple[str, Any]]:
    """The parts of a form, which is one without a file too."""
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    return parts if file is None else [*parts, ("file", ("a.wav", file))]


def _answer(response: httpx.Response) -> Answer:
    media = response.headers.get("content-type", "").partition(";")[0]
    said: Any = response.content
    if media == "application/json":
        said = json.loads(response.content)
    elif media == STREAM:
        said = [
            [event.name, event.data if event.data == "[DONE]" else event.json]
            for event in parse_events(response.text)
        ]
    if "metadata" in response.headers:
        said = [json.loads(response.headers["metadata"]), said]
    return Answer(response.status_code, media, said)
