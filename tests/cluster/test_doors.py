"""The ports of a running service, compared with the table of docs/operations.md, and what they
answer to whoever has no token."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import httpx
import psutil

from tests.cluster.conftest import apply
from tests.live import ROOT, Server

ANY = 10**6
TOKEN_GRPC, TOKEN_HTTP = "Ray's token (gRPC)", "Ray's token (HTTP)"
# Of each of Ray's servers a few; each has some of them.
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.CoreWorkerService/KillActor",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.LogService/ListLogs",
    "/ray.serve.ASGIService/HandleRequest",
)


@dataclass(frozen=True)
class Row:
    """A row of the table. `port` is 0 where the system chooses, then there are `count` of them."""

    processes: tuple[str, ...]
    port: int
    count: int
    guard: str

    def is_of(self, command: str) -> bool:
        return any(process in command for process in self.processes)


def table(live: Server) -> list[Row]:
    """The table, as the document has it."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.split("\n## Open ports\n")[1].split("\n## ")[0]
    rows = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 6 or "`" not in cells[0]:
            continue
        ports = cells[1].strip("`").replace("SERVING_PORT", str(live.port))
        count = ANY if ports == "any" else int(ports)
        port = count if 10 < count < ANY else 0
        processes = tuple(part.strip(" `") for part in cells[0].split(","))
        rows.append(Row(processes, port, 1 if port else count, cells[5]))
    assert len(rows) > 10
    return rows


@dataclass(frozen=True)
class Opened:
    """A socket that takes what comes from outside: TCP that listens, or UDP without a peer."""

    command: str
    pid: int
    kind: str
    address: str
    port: int

    @property
    def loopback(self) -> bool:
        address = ipaddress.ip_address(self.address)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def opened(live: Server) -> list[Opened]:
    """Every such socket of every process of the run: the descendants of `serving up`, which adopts
    orphans, and what has its mark. (A title that a process gives itself may hide the mark.)"""
    assert live.process is not None
    up = psutil.Process(live.process.pid)
    processes = {up, *up.children(recursive=True), *live.left()}
    return [socket for process in processes for socket in sockets(process)]


def sockets(process: psutil.Process) -> Iterator[Opened]:
    try:
        found = process.net_connections("inet")
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return
    for at in found:
        tcp = at.type.name == "SOCK_STREAM"
        if (at.status == psutil.CONN_LISTEN) if tcp else (at.laddr and not at.raddr):
            yield Opened(command, process.pid, "tcp" if tcp else "udp", at.laddr.ip, at.laddr.port)


def test_every_open_port_is_in_the_table(live: Server) -> None:
    rows, found = table(live), opened(live)
    assert len(found) > 20
    assert [socket for socket in found if not socket.loopback] == []
    assert [socket for socket in found if socket.kind != "tcp"] == []
    for pid in {socket.pid for socket in found}:
        mine = [socket for socket in found if socket.pid == pid]
        own = [row for row in rows if row.is_of(mine[0].command)]
        fixed = {row.port for row in own if row.port}
        free = [socket for socket in mine if socket.port not in fixed]
        assert len(free) <= sum(row.count for row in own if not row.port), free


def test_every_row_of_the_table_is_open(live: Server) -> None:
    commands = {socket.command for socket in opened(live)}
    for row in table(live):
        # A process that Ray has in hand sometimes.
        for process in set(row.processes) - {"ray::IDLE"}:
            assert any(process in command for command in commands), process


def test_ray_refuses_calls_without_its_token(live: Server) -> None:
    rows, found = table(live), opened(live)
    asked = 0
    for pid in {socket.pid for socket in found}:
        mine = [socket for socket in found if socket.pid == pid]
        own = [row for row in rows if row.is_of(mine[0].command)]
        for guard, refuses in ((TOKEN_GRPC, refuses_grpc), (TOKEN_HTTP, refuses_http)):
            wanted = sum(row.count for row in own if row.guard.startswith(guard))
            if wanted:
                refused = [socket for socket in mine if refuses(socket)]
                assert len(refused) >= wanted, (guard, mine)
                asked += len(refused)
    assert asked > 10


def refuses_grpc(socket: Opened) -> bool:
    """True if its server speaks gRPC and asks for authentication; no call may succeed."""
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{socket.port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5)
            except grpc.RpcError as error:
                codes.add(error.code())
            else:
                raise AssertionError(f"{socket} answered {method}")
    return grpc.StatusCode.UNAUTHENTICATED in codes


def refuses_http(socket: Opened) -> bool:
    try:
        url = f"http://127.0.0.1:{socket.port}/get_or_create_runtime_env"
        return httpx.post(url, content=b"", timeout=5, trust_env=False).status_code == 401
    except httpx.TransportError:
        return False


def test_the_token_is_this_runs_own(live: Server) -> None:
    file = live.folder / f"ray-{live.port}.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) == 64
    apply(live, live.models, "--dry-run")
    file.rename(file.with_suffix(".away"))
    try:
        assert "uthentication" in apply(live, live.models, "--dry-run", status=3)
    finally:
        file.with_suffix(".away").rename(file)
