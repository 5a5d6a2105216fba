"""Short requests on new connections, while the servers of one port leave and come, one by one.

    python -m tests.storm --leaves 40      # one JSON line: sent, failed, reset, ...

Servers and clients are in one process: what is proven is the kernel's part and ours, not speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from serving.http.listener import HttpServer, listen
from serving.http.patience import Patience

SERVERS = 3
CLIENTS = 8
# Fewer of them prove nothing.
LEAST = 100
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
MIGRATES = Path("/proc/sys/net/ipv4/tcp_migrate_req")


async def app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class Storm:
    """Clients that open a connection for each request, in threads of their own."""

    def __init__(self, port: int) -> None:
        self.ends: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> Counter[str]:
        """Stop; how the requests ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return Counter(self.ends)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ends.append(self._ask())

    def _ask(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(REQUEST)
                answer = b""
                while b"\r\n\r\nok" not in answer:
                    data = connection.recv(4096)
                    if not data:
                        return "cut"
                    answer += data
        except ConnectionResetError:
            return "reset"
        except OSError as error:
            return type(error).__name__
        return "ok" if answer.startswith(b"HTTP/1.1 200") else "failed"


async def made(port: int = 0) -> HttpServer:
    patience = Patience(leaving_s=0.05)
    server = HttpServer(app, listen("127.0.0.1", port, shared=True), drain_s=5.0, patience=patience)
    await server.start()
    return server


async def run(leaves: int, *, grow: bool) -> dict[str, Any]:
    """Roll servers until so many have left and `LEAST` requests were sent. With `grow`, the new one
    comes before the old one goes."""
    servers = [await made()]
    port = servers[0].port
    servers += [await made(port) for _ in range(SERVERS - 1)]
    storm = Storm(port)
    rolled = 0
    try:
        while rolled < leaves or len(storm.ends) < LEAST:
            await asyncio.sleep(0.02)
            if grow:
                servers.append(await made(port))
            await servers.pop(0).close()
            if not grow:
                servers.append(await made(port))
            rolled += 1
    finally:
        ends = await asyncio.to_thread(storm.end)
        for server in servers:
            await server.close()
    return {
        "migrate": int(MIGRATES.read_text()) if MIGRATES.exists() else 0,
        "rolled": rolled,
        "sent": ends.total(),
        "ok": ends["ok"],
        "ends": dict(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=40, help="how many servers leave")
    parser.add_argument("--grow", action="store_true")
    given = parser.parse_args()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(given.leaves, grow=given.grow))))


if __name__ == "__main__":
    main()
