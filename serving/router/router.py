"""One router: the gateway, its fleet and its listeners, put together.

The Ray Serve deployment runs it (`deployments/router.py`). By itself, without Ray, it serves
replicas at fixed addresses; for benchmarks that isolate the router, and to look at one alone:

    python -m serving.router.router --models FILE --replica ID MODEL HOST:PORT [--port 8000]

Settings come from the environment (`SERVING_*`); `/health` answers when it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
from collections.abc import Callable

from serving import heap
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.load import load_catalogue
from serving.http.listener import HttpServer, listen
from serving.observability.logs import Log, open_log
from serving.observability.metrics import RouterMetrics
from serving.router.fleet import Fleet
from serving.router.hosted import Upstreams
from serving.router.pipeline import Gateway
from serving.router.waiting import Demand
from serving.settings import Settings
from serving.wire.entry import Entry


def _nobody_starts_models(model: str, wanted: bool) -> None:
    """Without Ray, replicas are where they are."""


class Router:
    """A gateway that serves on the port all routers of a machine share, and on one of its own.

    Args:
        router: this router's ID.
        own_host: address of the listener that only this router has.
        drain_s: how long `close` lets requests go on, in seconds.
        want: called with a model that sleeps and whether it is needed now (`demand.py`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        router: str,
        own_host: str,
        drain_s: float,
        log: Log,
        want: Callable[[str, bool], None] = _nobody_starts_models,
    ) -> None:
        metrics = RouterMetrics()
        self._demand = Demand(want)
        self.upstreams = Upstreams(metrics, log)
        self.fleet = Fleet(
            router=router,
            token=settings.cluster_token.get_secret_value(),
            metrics=metrics,
            log=log,
            rng=random.Random(),
            local=self.upstreams.replicas,
            on_up=self._demand.woke,
        )
        self._gateway = Gateway(
            settings=settings,
            fleet=self.fleet,
            demand=self._demand,
            metrics=metrics,
            log=log,
            router=router,
        )
        sockets = [listen(own_host), listen(settings.host, settings.port, shared=True)]
        self._http = HttpServer(self._gateway, sockets, drain_s=drain_s)
        address = f"{own_host}:{self._http.port}"
        self.entry = Entry(router, "router", "", own_host, self._http.port, address)

    @property
    def serving(self) -> bool:
        return self._http.serving

    async def serve(self, catalogue: Catalogue) -> None:
        """Take over a catalogue; requests that run are not touched."""
        await self.upstreams.prepare(catalogue)
        self.upstreams.update(catalogue)
        self._gateway.serve(catalogue)

    async def start(self) -> None:
        await self._http.start()

    async def close(self) -> None:
        """Other routers take what comes; this one ends what it has."""
        await self._http.close()
        self._demand.close()
        await self.fleet.close()
        await self.upstreams.close()


async def _serve(args: argparse.Namespace) -> None:
    settings = Settings(host=args.host, port=args.port)
    router = Router(
        settings,
        router="alone",
        own_host="127.0.0.1",
        drain_s=1.0,
        log=open_log("router", settings.log_dir, router="alone"),
    )
    await router.serve(load_catalogue(args.models))
    await router.start()
    heap.settle()
    entries = []
    for replica, model, address in args.replica:
        host, _, port = address.rpartition(":")
        entries.append(Entry(replica, "engine", model, host, int(port), ""))
    router.fleet.update(entries)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await router.close()


def main() -> None:
    """Command line."""
    import uvloop

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--replica", nargs=3, action="append", default=[], metavar=("ID", "MODEL", "HOST:PORT")
    )
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
