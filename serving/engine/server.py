"""The engine server: the process that holds one engine and answers routers' calls.

    python -m serving.engine.server     (configuration in $SERVING_ENGINE, JSON)

The Ray Serve replica starts it (`launcher.py`). It is a process of its own so that the token path
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
from typing import NoReturn

import msgspec
from setproctitle import setproctitle

from serving import heap
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.interface import Engine
from serving.engine.lifetime import die_with_parent
from serving.engine.link_server import LinkServer
from serving.engine.ops import MAX_CONNECTIONS, ops_app
from serving.engine.watchdog import Watchdog
from serving.errors import EngineFailed
from serving.http.listener import HttpServer, listen
from serving.observability.engine_metrics import CallMetrics
from serving.observability.logs import Log, open_log
from serving.observability.tasks import background
from serving.wire.launch import EngineLaunch, EngineReady

CHECK_INTERVAL_S = 0.2
# How long a thread may keep the interpreter from the event loop, in seconds: Python's 5 ms would be
# added to every turn of the loop while a thread writes an answer or reads a chat.
SWITCH_S = 0.001
EXIT_ENGINE_DEAD = 70
EXIT_ENGINE_STUCK = 71
# By `EngineSpec.runtime`. Named and not imported: each takes seconds to import.
ENGINES = {
    "vllm": "serving.engine.vllm.engine:VllmEngine",
    "transformers": "serving.engine.hf.engine:HfEngine",
}


async def run(config: EngineLaunch, log: Log) -> int:
    """Run until told to stop; returns the exit status."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    spec = EngineSpec.model_validate(config.spec)
    log.info("engine_starting", weights=spec.weights, context=spec.context)
    started = loop.time()
    module, _, cls = engine_class(config).partition(":")
    chosen = getattr(importlib.import_module(module), cls)
    log.info("engine_imported", seconds=round(loop.time() - started, 1))
    engine = await chosen.start(spec, ImageLimits.model_validate(config.images))
    assert isinstance(engine, Engine)
    links = LinkServer(
        engine,
        replica=config.replica,
        model=spec.id,
        token=config.token,
        log=log,
        on_call_end=CallMetrics().count,
    )
    port = await links.start(config.host, config.link_port)
    app = ops_app(engine, model=spec.id, replica=config.replica, token=config.metrics_token)
    ops = HttpServer(app, listen(config.host, config.ops_port), max_connections=MAX_CONNECTIONS)
    await ops.start()
    heap.settle()
    sys.setswitchinterval(SWITCH_S)
    ready = EngineReady(port, ops.port, engine.max_model_len)
    if config.ready_fd is not None:
        with os.fdopen(config.ready_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(ready) + b"\n")
    log.info("engine_ready", seconds=round(loop.time() - started, 1), link_port=port)
    watchdog = Watchdog(
        engine,
        lambda: links.in_flight,
        quiet_s=config.stuck_s,
        proof_s=config.stuck_s / 2,
        log=log,
    )
    watching = background(watchdog.run(), "watchdog", log)
    alive = await _until(stop, engine, watchdog)
    watching.cancel()
    if alive:
        log.info("engine_draining", in_flight=links.in_flight)
        await links.drain(config.drain_s)
    else:
        log.error("engine_died", in_flight=links.in_flight)
        links.blame.tell()  # of suspects whose callers have left: no call has failed of them
        await asyncio.sleep(CHECK_INTERVAL_S)  # lets the calls' last frames out
    await links.close()
    await ops.close()
    if alive:
        await engine.close()
        log.info("engine_stopped")
        return 0
    return EXIT_ENGINE_STUCK if watchdog.stuck.is_set() else EXIT_ENGINE_DEAD


async def _until(stop: asyncio.Event, engine: Engine, watchdog: Watchdog) -> bool:
    """True when told to stop, False when the engine died or is stuck."""
    while not stop.is_set():
        if watchdog.stuck.is_set():
            return False
        try:
            await engine.check()
        except EngineFailed:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CHECK_INTERVAL_S)
    return True


def engine_class(config: EngineLaunch) -> str:
    """`module:Class` of the engine that the server is to run."""
    return config.engine or ENGINES[str(config.spec.get("runtime", "vllm"))]


def main() -> None:
    """Entry point of a process that is started by itself."""
    config = msgspec.json.decode(os.environ["SERVING_ENGINE"].encode(), type=EngineLaunch)
    # Before the environment changes, whose place in memory the title needs.
    set_title(config)
    del os.environ["SERVING_ENGINE"]
    die_with_parent()
    serve(config)


def set_title(config: EngineLaunch) -> None:
    """What process lists show."""
    setproctitle(f"serving.engine.server {config.spec.get('id')} {config.replica}")


def serve(config: EngineLaunch) -> NoReturn:
    """Be the engine server of this process until it ends."""
    import uvloop

    log = open_log(
        "engine", config.log_dir, model=str(config.spec.get("id")), replica=config.replica
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(run(config, log))
    except Exception as error:
        log.exception("engine_failed_to_start", error)
        status = 1
    sys.stdout.flush()
    # Not sys.exit: vLLM's threads may hold the interpreter. Everything that matters is closed by
    # now, and a dead engine's children die with this process.
    os._exit(status)


if __name__ == "__main__":
    main()
