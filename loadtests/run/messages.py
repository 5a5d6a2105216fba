"""What the process that conducts a run and those that send say to each other.

A message is four bytes of length, big-endian, and a tagged object in MessagePack.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from loadtests.measure.aggregate import Live

MOST = 1 << 30


class Job(msgspec.Struct, tag=True):
    """What a process is to send: its share of a scenario."""

    scenario: bytes  # JSON
    keys: dict[str, str]  # the environment's variables that the scenario names
    shard: int
    shards: int
    name: str
    records: str | None  # the file to write records into


class Ready(msgspec.Struct, tag=True):
    """The first requests are made; it waits for Go."""


class Go(msgspec.Struct, tag=True):
    """The run starts at this time of CLOCK_MONOTONIC."""

    start: float


class Beat(msgspec.Struct, tag=True):
    """How it goes; every half second."""

    live: Live
    in_flight: int
    records_problem: str | None = None  # why records are missing


class Stop(msgspec.Struct, tag=True):
    """End the run now."""


class Finished(msgspec.Struct, tag=True):
    """All is sent and answered."""

    aggregate: bytes
    limited: int  # requests that failed for a limit of the machine
    unfinished: int  # requests that were in flight when the run was ended by hand
    cut: int
    lost: int
    connections: int
    end_s: float
    records_problem: str | None  # why records are missing


class Failed(msgspec.Struct, tag=True):
    """It cannot go on."""

    reason: str


# --- between machines ---


class Join(msgspec.Struct, tag=True):
    """A shard that is ready. `scenario` is a checksum: all must send the same one."""

    shard: int
    shards: int
    scenario: int


class Compare(msgspec.Struct, tag=True):
    """All shards are there: compare your clocks with the leader's now."""


class Ping(msgspec.Struct, tag=True):
    """Asks the leader for its clocks."""


class Pong(msgspec.Struct, tag=True):
    """The leader's clocks: CLOCK_MONOTONIC, and Unix time."""

    monotonic: float
    wall: float


class Synced(msgspec.Struct, tag=True):
    """By how much the shard's Unix time is ahead of the leader's, give or take `within_s`."""

    ahead_s: float
    within_s: float


class Start(msgspec.Struct, tag=True):
    """The run starts at this time of the leader's CLOCK_MONOTONIC."""

    at: float


class Part(msgspec.Struct, tag=True):
    """What a shard has measured (`loadtests.run.state`): all its requests have ended."""

    state: bytes


class Taken(msgspec.Struct, tag=True):
    """The leader has a shard's part."""


class Refused(msgspec.Struct, tag=True):
    """Why a shard cannot take part."""

    reason: str


Message = (
    Job
    | Ready
    | Go
    | Beat
    | Stop
    | Finished
    | Failed
    | Join
    | Compare
    | Ping
    | Pong
    | Synced
    | Start
    | Part
    | Taken
    | Refused
)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)  # type: ignore[arg-type]
Kind = TypeVar("Kind", bound=msgspec.Struct)


class Channel:
    """Sends and receives messages over a connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int = MOST
    ) -> None:
        """`most`: bytes of a message that is received."""
        self._reader = reader
        self._writer = writer
        self._most = most

    def send(self, message: Message) -> None:
        """Send a message; it may leave a little later. Nothing happens when nobody is there."""
        if self._writer.is_closing():
            return
        data = _ENCODER.encode(message)
        self._writer.write(len(data).to_bytes(4, "big") + data)

    async def flush(self) -> None:
        """Wait until what was sent has left. Raises ConnectionError."""
        await self._writer.drain()

    async def receive(self, most: int | None = None) -> Message:
        """Wait for a message, of `most` bytes if the channel's own bound is not meant. Raises
        EOFError at the end of the connection, and ValueError for what is no message."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > (self._most if most is None else most):
                raise ValueError(f"a message of {size} bytes")
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the connection has ended") from error
        try:
            return _DECODER.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError(f"no message: {error}") from error

    async def expect(self, kind: type[Kind], most: int | None = None) -> Kind:
        """Wait for a message of one kind. Raises EOFError, and ValueError for another kind."""
        message = await self.receive(most)
        if not isinstance(message, kind):
            raise ValueError(f"{type(message).__name__} came in the place of {kind.__name__}")
        return message

    def close(self) -> None:
        """End the connection."""
        self._writer.close()
