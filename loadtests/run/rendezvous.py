"""How the shards of a run, on machines of their own, begin at one time.

Shard 0 leads: it listens at an address, and the others join there. When all are there, each
compares its clocks with the leader's, by the fastest of some questions and answers as NTP does
(RFC 5905, section 8: half the round trip is the most that it can be wrong by), and then the leader
hands out one start time. It holds whatever the machines' own clocks say; how far those differ is
told, since logs of servers go by them.

The connections stay for the run. At its end each shard hands over what it has measured, so that the
leader knows when all have ended, and has the figures of all.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from loadtests.run.messages import (
    Channel,
    Compare,
    Join,
    Kind,
    Part,
    Ping,
    Pong,
    Refused,
    Start,
    Synced,
    Taken,
)
from loadtests.run.shard import Shard
from loadtests.run.together import LEAD_S, ClockDifference, Meeting, NoMeeting, until

WAIT_S = 600.0  # for all shards to be there
QUESTIONS = 16
SMALL = 4096  # bytes that a message of a rendezvous has at most
PART = 1 << 28  # and what a shard has measured
IDLE_S = 60  # then the kernel asks whether the other machine is still there


class Leader:
    """Waits for the other shards."""

    def __init__(
        self, shard: Shard, scenario: int, at: float | None = None, wait_s: float = WAIT_S
    ) -> None:
        """`scenario`: a checksum, which must be the same for all. `at`: the Unix time at which
        all start, if not at once. `wait_s`: for the others to be there."""
        self._shard = shard
        self._scenario = scenario
        self._at = at
        self._wait_s = wait_s
        self._joined: dict[int, Channel] = {}
        self._all = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen, before this shard itself is ready; return the port."""
        self._server = await asyncio.start_server(self._connected, host, port)
        if self._shard.count == 1:
            self._all.set()
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = _channel(reader, writer)
        try:
            join = await channel.expect(Join)
        except (EOFError, ValueError):
            channel.close()  # a probe, say
            return
        reason = self._wrong(join)
        if reason is not None:
            channel.send(Refused(reason))
            channel.close()
            return
        self._joined[join.shard] = channel
        if len(self._joined) == self._shard.count - 1:
            self._all.set()

    def _wrong(self, join: Join) -> str | None:
        if join.shards != self._shard.count:
            return f"this run has {self._shard.count} shards, not {join.shards}"
        if not 0 < join.shard < self._shard.count:
            return f"there is no shard {join.shard} to join; 0 leads"
        if join.shard in self._joined:
            return f"shard {join.shard} is there already"
        if join.scenario != self._scenario:
            return "its scenario is not the leader's"
        return None

    async def meet(self) -> Meeting:
        """Wait for all, compare clocks, and give the start. Raises NoMeeting."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._all.wait()
                found = await asyncio.gather(
                    *(self._compare(shard, each) for shard, each in self._joined.items())
                )
        except TimeoutError:
            missing = sorted(set(range(1, self._shard.count)) - set(self._joined))
            raise NoMeeting(
                f"after {self._wait_s:g} s these shards are not there: {missing}"
            ) from None
        start = time.monotonic() + LEAD_S if self._at is None else until(self._at)
        for channel in self._joined.values():
            channel.send(Start(start))
            await channel.flush()
        return Meeting(start, tuple(sorted(found, key=lambda each: each.shard)))

    async def _compare(self, shard: int, channel: Channel) -> ClockDifference:
        channel.send(Compare())
        try:
            while not isinstance(message := await channel.receive(), Synced):
                channel.send(Pong(time.monotonic(), time.time()))
        except EOFError:
            raise NoMeeting(f"shard {shard} has left before the start") from None
        return ClockDifference(shard, message.ahead_s, message.within_s)

    async def parts(self, wait_s: float) -> list[bytes] | None:
        """Return what the others have handed over; one that has left by then hands over nothing."""
        tasks = [asyncio.ensure_future(self._part(each)) for each in self._joined.values()]
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=wait_s)
        for task in late:
            task.cancel()
        return [part for task in done if (part := task.result()) is not None]

    async def _part(self, channel: Channel) -> bytes | None:
        try:
            part = await channel.expect(Part, PART)
        except (EOFError, ValueError):
            return None
        channel.send(Taken())
        return part.state

    async def hand_over(self, part: bytes) -> None:
        """The leader's own part stays with it."""

    async def close(self) -> None:
        """Listen no more."""
        for channel in self._joined.values():
            channel.close()
        if self._server is not None:
            self._server.close()


class Follower:
    """Joins the leader."""

    def __init__(
        self,
        shard: Shard,
        host: str,
        port: int,
        scenario: int,
        wait_s: float = WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wait_s`: for the leader, which may be there later, and for the start."""
        self._shard = shard
        self._host = host
        self._port = port
        self._scenario = scenario
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._wall = wall
        self._channel: Channel | None = None

    async def meet(self) -> Meeting:
        """Join, and wait for the start. Raises NoMeeting."""
        try:
            async with asyncio.timeout(self._wait_s):
                self._channel = channel = await _connect(self._host, self._port)
                channel.send(Join(self._shard.number, self._shard.count, self._scenario))
                await _expect(channel, Compare)
                ahead, within, offset = await _clocks(channel, self._monotonic, self._wall)
                channel.send(Synced(ahead, within))
                start = await _expect(channel, Start)
        except TimeoutError:
            leader = f"{self._host}:{self._port}"
            raise NoMeeting(f"no start from the leader at {leader} in {self._wait_s:g} s") from None
        return Meeting(start.at - offset, (ClockDifference(self._shard.number, ahead, within),))

    async def parts(self, wait_s: float) -> list[bytes] | None:
        """The leader has them."""
        return None

    async def hand_over(self, part: bytes) -> None:
        """Give the leader this shard's part, when its own requests have ended, too. Raises
        NoMeeting if it has left."""
        assert self._channel is not None
        self._channel.send(Part(part))
        await _expect(self._channel, Taken)

    async def close(self) -> None:
        """Leave the leader."""
        if self._channel is not None:
            self._channel.close()


async def _connect(host: str, port: int) -> Channel:
    while True:
        try:
            return _channel(*await asyncio.open_connection(host, port))
        except OSError:
            await asyncio.sleep(0.2)


def _channel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Channel:
    """A machine that vanishes while a run goes on is missed after some minutes."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
    return Channel(reader, writer, most=SMALL)


async def _clocks(
    channel: Channel, monotonic: Callable[[], float], wall: Callable[[], float]
) -> tuple[float, float, float]:
    """Return how far Unix time is ahead here, within what, and what to add to CLOCK_MONOTONIC
    for the leader's."""
    best: tuple[float, float, float] | None = None
    for _ in range(QUESTIONS):
        asked, asked_wall = monotonic(), wall()
        channel.send(Ping())
        pong = await _expect(channel, Pong)
        half = (monotonic() - asked) / 2
        if best is None or half < best[1]:
            best = (asked_wall + half - pong.wall, half, pong.monotonic - (asked + half))
    assert best is not None
    return best


async def _expect(channel: Channel, kind: type[Kind]) -> Kind:
    try:
        message = await channel.receive()
    except EOFError:
        raise NoMeeting("the leader has left") from None
    if isinstance(message, Refused):
        raise NoMeeting(f"the leader refuses this shard: {message.reason}")
    if not isinstance(message, kind):
        raise NoMeeting(f"the leader said {type(message).__name__}, not {kind.__name__}")
    return message
