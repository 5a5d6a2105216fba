"""The engine deployment: one Ray Serve deployment per model, one engine server per replica.

Ray Serve places the replica on its GPUs, health-checks it and replaces it. The replica starts the
engine server (`serving/engine/server.py`), announces where it listens, and ends when the server
ends: a dead engine is a dead replica at once, and is never restarted in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import ray
from ray import serve

from deployments.code import engine_code
from deployments.directory import Directory, keep_announced
from deployments.ray_internals import open_no_grpc_port
from serving.catalogue.grace import ENGINE_STOP_S, LEASE_S
from serving.catalogue.spec import EngineSpec
from serving.engine.launcher import EngineProcess, Zygotes, fork, spawn
from serving.observability.logs import open_log
from serving.observability.tasks import background
from serving.settings import Settings, is_loopback
from serving.wire.address import host_port
from serving.wire.entry import Entry
from serving.wire.launch import EngineLaunch, EngineReady


class EngineReplica:
    """One replica: a supervisor of one engine server.

    Args:
        spec: the model, as plain data (`EngineSpec`).
        images: limits on images, as plain data (`ImageLimits`).
        drain_s: how long running requests may go on when the replica is taken down.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits an async constructor
        self, spec: dict[str, Any], drain_s: float, images: dict[str, Any]
    ) -> None:
        open_no_grpc_port()
        self._spec = EngineSpec.model_validate(spec)
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._drain_s = drain_s
        started = asyncio.get_running_loop().time()
        self._images = images
        settings = Settings()
        self._log = open_log(
            "replica", settings.log_dir, model=self._spec.id, replica=self._replica
        )
        self._directory = Directory()
        host = ray.util.get_node_ip_address()
        code = engine_code()
        self._server, ready = await self._start_server(spec, settings, host)
        self._entry = Entry(
            id=self._replica,
            kind="engine",
            model=self._spec.id,
            host=host,
            port=ready.link_port,
            ops=host_port(host, ready.ops_port),
            start_s=round(asyncio.get_running_loop().time() - started, 1),
            code=code,
        )
        self._announcing = background(
            keep_announced(self._directory, self._entry), "announce", self._log
        )
        self._watching = background(self._end_with_server(), "watch_server", self._log)

    async def _start_server(
        self, spec: dict[str, Any], settings: Settings, host: str
    ) -> tuple[EngineProcess, EngineReady]:
        """Start the engine server and wait until it is ready.

        Raises:
            RuntimeError: it ended or said nothing within the model's `start_timeout_s`, or anybody
                could send it calls.
        """
        if not (settings.cluster_token.get_secret_value() or is_loopback(host)):
            raise RuntimeError(
                f"engines listen on {host}, where other machines may call them without a secret; "
                "set SERVING_CLUSTER_TOKEN, to the same secret on all nodes"
            )
        launch = EngineLaunch(
            spec=spec,
            replica=self._replica,
            host=host,
            token=settings.cluster_token.get_secret_value(),
            metrics_token=settings.metrics_token.get_secret_value(),
            log_dir=settings.log_dir,
            drain_s=self._drain_s,
            stuck_s=settings.stuck_s,
            images=self._images,
            link_port=settings.link_port,
            ops_port=settings.ops_port,
        )
        output = None
        if settings.log_dir:
            output = os.path.join(settings.log_dir, f"engine-{self._replica}.out")
        server = await asyncio.to_thread(self._start_process, launch, settings, output)
        self._log.info("engine_server_started", pid=server.pid)
        try:
            ready = await asyncio.wait_for(
                asyncio.to_thread(server.ready), self._spec.start_timeout_s
            )
        except TimeoutError:
            server.kill_group()
            raise RuntimeError(
                f"model {self._spec.id}: not ready after {self._spec.start_timeout_s:g} s "
                "(start_timeout_s in its spec)"
            ) from None
        if ready is None:
            server.kill_group()
            raise RuntimeError(
                f"model {self._spec.id}: the engine server ended with status {server.wait()} "
                f"while starting; see engine-{self._replica}.out or this replica's log"
            )
        return server, ready

    def _start_process(
        self, launch: EngineLaunch, settings: Settings, output: str | None
    ) -> EngineProcess:
        env = os.environ | self._spec.env
        if settings.zygote == "on" or (settings.zygote == "auto" and self._spec.gpus == 0):
            # This process's parent is Ray's node process.
            zygotes = Zygotes(os.getppid(), engine_code(), settings.log_dir)
            try:
                return fork(zygotes, launch, env, output)
            except OSError as error:
                self._log.warning("zygote_failed", error=str(error))
        return spawn(launch, env, output)

    async def _end_with_server(self) -> None:
        """When the engine server ends, take what is left of it down and end this replica.

        Serve replaces an actor that is gone at its next look; a failing health check would take
        three looks.
        """
        while self._server.poll() is None:
            await asyncio.sleep(0.1)
        self._log.error("engine_server_ended", status=self._server.poll())
        self._server.kill_group()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._directory.withdraw(self._replica)
        os._exit(1)

    async def hold_lease(self) -> None:
        """Called by routers that need this model; see `deployments/leases.py`."""
        await asyncio.sleep(LEASE_S)

    async def check_health(self) -> None:
        """Called by Ray Serve."""
        if self._server.poll() is not None:
            raise RuntimeError(f"the engine server ended with status {self._server.poll()}")

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is taken down: drain, then stop the engine."""
        if not hasattr(self, "_watching"):
            return
        self._watching.cancel()
        self._announcing.cancel()
        self._server.terminate()
        deadline = asyncio.get_running_loop().time() + self._drain_s + ENGINE_STOP_S
        while self._server.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        self._server.kill_group()
        with contextlib.suppress(Exception):
            await self._directory.withdraw(self._replica)
