"""Every endpoint that a model answers, asked by its example of the API's description: for tests of
what is the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from serving.api.asked import Ability
from serving.api.audio import PATHS as AUDIO
from serving.api.endpoints import ENDPOINTS, NAME, Endpoint, Relayed
from serving.api.openapi.document import text_of
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.wire.messages import JSON_HEAD, SSE_HEAD, HttpCall
from tests.gateway.conftest import Site

BASE, ADAPTER, ADAPTER_ALIAS, ALIAS = "echo", "echo.pirate", "latest", "short"
WORDS = ("one ", "two")
# What a model is for that has an ability; one that generates has all others.
TASKS = {Ability.EMBED: "embed", Ability.SCORE: "score", Ability.TRANSCRIBE: "transcribe"}


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

    async def ask(
        self,
        client: httpx.AsyncClient,
        model: str = BASE,
        body: dict[str, Any] | None = None,
        **more: Any,
    ) -> httpx.Response:
        return await client.post(self.path(model), **self.sent(model, body), **more)


ASKED = [Asking(at, at.answer) for at in ENDPOINTS if isinstance(at.answer, Relayed)]


class NamingEngine(EchoEngine):
    """Its OpenAI app says two words, and its answers have the name of the call's model and all that
    any form of an answer is written from."""

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        self.calls.append(call)
        await self.check()
        if call.path in AUDIO:
            streams = b'name="stream"' in body
        else:
            streams = bool(json.loads(body).get("stream"))
        self.running += 1
        tally.prompt_tokens = 1
        try:
            for word in WORDS:
                await self._step()
                tally.completion_tokens += 1
                if streams:
                    reply.head(SSE_HEAD)
                    reply.data(_event(call, delta={"content": word}, text=word))
            if streams:
                reply.data(b"data: [DONE]\n\n")
            else:
                reply.head(JSON_HEAD)
                said = "".join(WORDS)
                reply.data(_said(call, message={"content": said}, text=said))
        finally:
            self.running -= 1


def _said(call: HttpCall, **choice: Any) -> bytes:
    said = {"model": call.model, "choices": [{"index": 0, **choice}], "text": choice["text"]}
    return json.dumps(said).encode()


def _event(call: HttpCall, **choice: Any) -> bytes:
    return b"data: %b\n\n" % _said(call, **choice)


def names(task: str) -> list[str]:
    """The IDs that a model with this task can be asked by: adapters are for models that
    generate."""
    return [BASE, ALIAS, ADAPTER, ADAPTER_ALIAS] if task == "generate" else [BASE, ALIAS]


def catalogue(site: Site, task: str, **spec: Any) -> Catalogue:
    """The site's, its model with another task or other fields, and an alias of the model."""
    aliases = {ALIAS: BASE}
    if task == "generate" and not spec:
        aliases[ADAPTER_ALIAS] = ADAPTER
        return site.catalogue.model_copy(update={"aliases": aliases})
    given = site.catalogue.engines[0].model_dump() | {"task": task, "lora": None, **spec}
    models = (EngineSpec.model_validate(given),)
    return site.catalogue.model_copy(update={"models": models, "aliases": aliases})


async def serve(site: Site, task: str, **spec: Any) -> None:
    """Let the site's model have this task."""
    await site.router.set_catalogue(catalogue(site, task, **spec))
