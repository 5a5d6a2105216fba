"""The engine server: the process that holds one engine and answers routers' calls.

    python -m serving.engine.server     (configuration in $SERVING_ENGINE, JSON)

The Ray Serve replica starts it as its child. It is a process of its own so that the token path
shares an event loop with nothing else, so that each engine has its own environment, and so that
an engine can be run and tested without Ray. When it is ready it writes one JSON line with its
ports to the file descriptor it was given. SIGTERM drains it; if the engine dies, it exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys

import msgspec

from serving import heap
from serving.catalogue.spec import EngineSpec, Images
from serving.engine.lifetime import die_with_parent
from serving.engine.link import LinkServer
from serving.engine.metrics import CallMetrics
from serving.engine.ops import ops_app
from serving.engine.protocol import Engine
from serving.errors import EngineFailed
from serving.http_server import HttpServer, listen
from serving.observability.logs import Log, open_log

CHECK_INTERVAL_S = 0.2
EXIT_ENGINE_DEAD = 70
# By `EngineSpec.runtime`. Named and not imported: each takes seconds to import.
ENGINES = {
    "vllm": "serving.engine.vllm:VllmEngine",
    "transformers": "serving.engine.hf_engine:HfEngine",
}


class ServerConfig(msgspec.Struct, frozen=True):
    """What the parent tells the engine server.

    `engine` names the class that runs the model (`module:Class` with a `start(spec, images)`);
    empty: the one of the model's `runtime`. Tests name a double here. `images` are the limits of
    the models file (`Images`).
    """

    spec: dict[str, object]
    replica: str
    host: str = "127.0.0.1"
    token: str = ""
    log_dir: str | None = None
    ready_fd: int | None = None
    drain_s: float = 30.0
    engine: str = ""
    images: dict[str, object] = {}


class Ready(msgspec.Struct, frozen=True):
    """Where the engine server listens."""

    link_port: int
    ops_port: int
    max_model_len: int


async def serve(config: ServerConfig, log: Log) -> int:
    """Run until told to stop; returns the exit status."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    spec = EngineSpec.model_validate(config.spec)
    log.info("engine_starting", weights=spec.weights, context=spec.context)
    started = loop.time()
    name = config.engine or ENGINES[spec.runtime]
    engine = await _start_engine(name, spec, Images.model_validate(config.images))
    links = LinkServer(
        engine,
        replica=config.replica,
        model=spec.id,
        token=config.token,
        log=log,
        on_call_end=CallMetrics().on_call_end,
    )
    port = await links.start(config.host)
    app = ops_app(engine, model=spec.id, replica=config.replica)
    ops = HttpServer(app, [listen(config.host)])
    await ops.start()
    heap.settle()
    ready = Ready(port, ops.port, engine.max_model_len)
    if config.ready_fd is not None:
        with os.fdopen(config.ready_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(ready) + b"\n")
    log.info("engine_ready", seconds=round(loop.time() - started, 1), link_port=port)
    alive = await _until(stop, engine)
    if alive:
        log.info("engine_draining", in_flight=links.in_flight)
        await links.drain(config.drain_s)
    else:
        log.error("engine_died", in_flight=links.in_flight)
        await asyncio.sleep(CHECK_INTERVAL_S)  # lets the calls' last frames out
    await links.close()
    await ops.close()
    if alive:
        await engine.close()
        log.info("engine_stopped")
        return 0
    return EXIT_ENGINE_DEAD


async def _start_engine(name: str, spec: EngineSpec, images: Images) -> Engine:
    module, _, cls = name.partition(":")
    engine = await getattr(importlib.import_module(module), cls).start(spec, images)
    assert isinstance(engine, Engine)
    return engine


async def _until(stop: asyncio.Event, engine: Engine) -> bool:
    """True when told to stop, False when the engine died."""
    while not stop.is_set():
        try:
            await engine.check()
        except EngineFailed:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CHECK_INTERVAL_S)
    return True


def main() -> None:
    """Entry point of the process."""
    import uvloop

    die_with_parent()
    config = msgspec.json.decode(os.environ.pop("SERVING_ENGINE").encode(), type=ServerConfig)
    log = open_log(
        "engine", config.log_dir, model=str(config.spec.get("id")), replica=config.replica
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(serve(config, log))
    except Exception as error:
        log.exception("engine_failed_to_start", error)
        status = 1
    sys.stdout.flush()
    # Not sys.exit: vLLM's threads may hold the interpreter; what mattered is closed by now, and
    # a dead engine's children die with this process.
    os._exit(status)


if __name__ == "__main__":
    main()
