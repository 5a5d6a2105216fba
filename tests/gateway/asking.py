"""The endpoints that a model answers, asked of a router in process."""

from __future__ import annotations

import json
from typing import Any

import httpx

from serving.api.audio import PATHS as AUDIO
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.wire.messages import JSON_HEAD, SSE_HEAD, HttpCall
from tests.asking import Asking
from tests.gateway.conftest import Site

BASE, ADAPTER, ADAPTER_ALIAS, ALIAS = "echo", "echo.pirate", "latest", "short"
WORDS = ("one ", "two")


async def ask(
    asking: Asking,
    client: httpx.AsyncClient,
    model: str = BASE,
    body: dict[str, Any] | None = None,
    **more: Any,
) -> httpx.Response:
    """Send one of the endpoint's examples, or another body."""
    return await client.post(asking.path(model), **asking.sent(model, body), **more)


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
