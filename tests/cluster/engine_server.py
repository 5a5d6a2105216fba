"""An engine server by itself, started as its replica would start it: no Ray, no router."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deployments.code import engine_code
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.launcher import Zygotes, fork
from serving.observability.logs import Log
from serving.router.answer import Answer
from serving.router.replica import ReplicaLink
from serving.wire.fingerprint import Fingerprint
from serving.wire.launch import EngineLaunch, EngineReady
from serving.wire.messages import AdapterRef, Call, HttpCall
from tests.live import free_port

TOKEN = "token"
REPLICA = "r#1"


@dataclass(frozen=True)
class EngineServer:
    ready: EngineReady
    process: psutil.Process
    output: Path


@contextmanager
def engine_server(
    spec: EngineSpec,
    folder: Path,
    images: ImageLimits = ImageLimits(),  # noqa: B008 - frozen
) -> Iterator[EngineServer]:
    """Yield it once it is ready; it stops at the end. Its output is a file in `folder`."""
    launch = EngineLaunch(
        spec=spec.model_dump(),
        replica=REPLICA,
        token=TOKEN,
        drain_s=1,
        images=images.model_dump(),
    )
    output = folder / "engine.out"
    env = os.environ | spec.env | {"VLLM_PORT": str(free_port())}
    zygotes = Zygotes(os.getpid(), engine_code(), str(folder))
    server = fork(zygotes, launch, env, str(output))
    try:
        ready = server.ready()
        assert ready is not None, output.read_text()[-4000:]
        yield EngineServer(ready, psutil.Process(server.pid), output)
        server.terminate()
        server.wait(30)
    finally:
        server.kill_group()


class EngineLink(ReplicaLink):
    """A router's link to an engine server, and what a router would send on it. `told` are the
    suspects that the engine server has named."""

    def __init__(self, port: int, log: Log) -> None:
        self.told: list[Fingerprint] = []
        super().__init__(
            *(REPLICA, "127.0.0.1", port),
            router="r1",
            token=TOKEN,
            log=log,
            on_change=lambda: None,
            on_adapter=lambda *_: None,
            on_suspects=self.told.extend,
        )

    async def call(self, call: Call, body: bytes = b"") -> tuple[Answer, bytes]:
        """The answer once it has ended, and what it said.

        Raises:
            AttemptFailed: it failed.
        """
        answer = self.open(call, body)
        said = b""
        while answer.end is None:
            await answer.wait()
            if answer.failed is not None:
                raise answer.failed
            said += answer.take()
        return answer, said

    async def post(
        self, path: str, model: str, adapter: AdapterRef | None = None, **fields: Any
    ) -> tuple[Answer, Any]:
        """Send a request for a model ID as the router would; returns the answer and its JSON.

        Raises: as `call`.
        """
        answer, said = await self.call(*http_call(path, model, adapter, **fields))
        return answer, json.loads(said)


def http_call(
    path: str, model: str, adapter: AdapterRef | None = None, **fields: Any
) -> tuple[HttpCall, bytes]:
    """What a router would send for this request."""
    headers = (("content-type", "application/json"),)
    call = HttpCall("req-1", model, "POST", path, headers=headers, adapter=adapter)
    return call, json.dumps({"model": model, **fields}).encode()


@asynccontextmanager
async def engine_link(engine: EngineServer, log: Log) -> AsyncIterator[EngineLink]:
    """A link to an engine server."""
    link = EngineLink(engine.ready.link_port, log)
    yield link
    await link.close()
