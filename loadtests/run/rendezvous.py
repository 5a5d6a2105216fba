"""How the shards of a run, on machines of their own, begin at one time.

Shard 0 leads: it listens at an address, and the others join there. When all are there, each
compares its clocks with the leader's, by the fastest of some questions and answers as NTP does
(RFC 5905, section 8: half the round trip is the most that it can be wrong by), and then the leader
hands out one start time. It holds whatever the machines' own clocks say; how far those differ is
told, since logs of servers go by them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.run.messages import (
    Channel,
    Compare,
    Join,
    Kind,
    Ping,
    Pong,
    Refused,
    Start,
    Synced,
)
from loadtests.run.shard import Shard

WAIT_S = 600.0  # for all shards to be there
LEAD_S = 1.0  # from the last word to the start
QUESTIONS = 16
SMALL = 4096  # bytes that a message of a rendezvous has at most


class NoMeeting(Exception):
    """The shards did not come together."""


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """By how much a shard's Unix time is ahead of the leader's, in seconds, give or take."""

    shard: int
    ahead_s: float
    within_s: float

    def __str__(self) -> str:
        way = "ahead of" if self.ahead_s >= 0 else "behind"
        return (
            f"the clock of shard {self.shard} is {abs(self.ahead_s) * 1000:.1f} ms {way} "
            f"the leader's (within {self.within_s * 1000:.1f} ms)"
        )


@dataclass(frozen=True, slots=True)
class Meeting:
    """What was agreed: the start, in this machine's CLOCK_MONOTONIC."""

    start: float
    clocks: tuple[ClockDifference, ...] = ()  # the leader knows them all, a shard its own


def start_at(wall: float) -> Meeting:
    """Start at a Unix time, which all shards are given. Raises NoMeeting if it has passed."""
    wait = wall - time.time()
    if wait <= 0:
        raise NoMeeting(f"the start was {-wait:.1f} s ago, when this shard was ready")
    return Meeting(time.monotonic() + wait)


class Leader:
    """Waits for the other shards."""

    def __init__(self, shard: Shard, scenario: int) -> None:
        """`scenario`: a checksum, which must be the same for all."""
        self._shard = shard
        self._scenario = scenario
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
        channel = Channel(reader, writer, most=SMALL)
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

    async def meet(self, wait_s: float = WAIT_S) -> Meeting:
        """Wait for all, compare clocks, and give the start. Raises NoMeeting."""
        try:
            async with asyncio.timeout(wait_s):
                await self._all.wait()
                found = await asyncio.gather(
                    *(self._compare(shard, each) for shard, each in self._joined.items())
                )
        except TimeoutError:
            missing = sorted(set(range(1, self._shard.count)) - set(self._joined))
            raise NoMeeting(f"after {wait_s:g} s these shards are not there: {missing}") from None
        start = time.monotonic() + LEAD_S
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

    async def close(self) -> None:
        """Listen no more."""
        for channel in self._joined.values():
            channel.close()
        if self._server is not None:
            self._server.close()


async def join(
    shard: Shard,
    host: str,
    port: int,
    scenario: int,
    wait_s: float = WAIT_S,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Meeting:
    """Join the leader, which may be there later, and wait for the start. Raises NoMeeting."""
    try:
        async with asyncio.timeout(wait_s):
            channel = await _connect(host, port)
            try:
                channel.send(Join(shard.number, shard.count, scenario))
                await _expect(channel, Compare)
                ahead, within, offset = await _clocks(channel, monotonic, wall)
                channel.send(Synced(ahead, within))
                start = await _expect(channel, Start)
            finally:
                channel.close()
    except TimeoutError:
        raise NoMeeting(f"no start from the leader at {host}:{port} in {wait_s:g} s") from None
    return Meeting(start.at - offset, (ClockDifference(shard.number, ahead, within),))


async def _connect(host: str, port: int) -> Channel:
    while True:
        try:
            return Channel(*await asyncio.open_connection(host, port), most=SMALL)
        except OSError:
            await asyncio.sleep(0.2)


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
        raise NoMeeting("the leader has left before the start") from None
    if isinstance(message, Refused):
        raise NoMeeting(f"the leader refuses this shard: {message.reason}")
    if not isinstance(message, kind):
        raise NoMeeting(f"the leader said {type(message).__name__}, not {kind.__name__}")
    return message
