"""One router by itself, without Ray, in front of replicas at fixed addresses.

    python -m serving.router --models FILE --replica ID MODEL HOST:PORT [--port 8000]

For benchmarks that isolate the router, and for looking at one router alone. Settings come from the
environment (`SERVING_*`). `/health` answers once the router serves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal

from serving import heap
from serving.catalogue.load import load_catalogue
from serving.observability.logs import open_log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.address import split_host_port
from serving.wire.entry import Entry


async def _run(args: argparse.Namespace) -> None:
    settings = Settings(host=args.host, port=args.port)
    router = Router(
        settings,
        router="alone",
        own_host="127.0.0.1",
        drain_s=1.0,
        log=open_log("router", settings.log_dir, router="alone"),
    )
    await router.set_catalogue(load_catalogue(args.models))
    await router.start()
    heap.settle()
    entries = []
    for replica, model, address in args.replica:
        host, port = split_host_port(address)
        entries.append(Entry(replica, "engine", model, host, port, ""))
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
        runner.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
