"""The running service and bare vLLM, asked the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from tests.live import parse_events


class Answer(NamedTuple):
    """`said` is a JSON value, or the events of a stream with their names, or bytes."""

    status: int
    media: str
    said: Any


class Served(NamedTuple):
    """A model ID, what bare vLLM calls that model, and which of its servers has it."""

    ours: str
    theirs: str
    server: str


@dataclass(frozen=True)
class Sides:
    """`theirs` has a client of `vllm serve` for each engine model."""

    ours: httpx.Client
    theirs: Mapping[str, httpx.Client]

    def ask(self, path: str, served: Served, body: dict[str, Any]) -> tuple[Answer, Answer]:
        """What both answer to a JSON body."""
        return (
            _answer(self.ours.post(path, json={"model": served.ours, **body})),
            _answer(self.theirs[served.server].post(path, json={"model": served.theirs, **body})),
        )

    def ask_form(
        self, path: str, served: Served, fields: dict[str, str], file: bytes | None
    ) -> tuple[Answer, Answer]:
        """What both answer to a form, with a file if there is one."""
        files = {"file": ("a.wav", b"" if file is None else file)} if file is not None else None
        return (
            _answer(self.ours.post(path, data={"model": served.ours, **fields}, files=files)),
            _answer(
                self.theirs[served.server].post(
                    path, data={"model": served.theirs, **fields}, files=files
                )
            ),
        )


def _answer(response: httpx.Response) -> Answer:
    media = response.headers.get("content-type", "").partition(";")[0]
    said: Any = response.content
    if media == "application/json":
        said = json.loads(response.content)
    elif media == "text/event-stream":
        said = [
            [event.name, event.data if event.data == "[DONE]" else event.json]
            for event in parse_events(response.text)
        ]
    if "metadata" in response.headers:
        said = [json.loads(response.headers["metadata"]), said]
    return Answer(response.status_code, media, said)
