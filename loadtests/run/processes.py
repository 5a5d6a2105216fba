"""The processes that send: started together, one start time for all, merged at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loadtests.measure.aggregate import Aggregate, Live
from loadtests.run.messages import (
    Beat,
    Channel,
    Failed,
    Finished,
    Go,
    Job,
    Message,
    Ready,
    Stop,
)
from loadtests.run.shard import Shard
from loadtests.scenarios.model import Scenario

# An interrupted process has nothing to do but to pack its figures.
STOP_S = 10.0


class ProcessFailed(Exception):
    """A process that sends could not start, or has died."""


@dataclass(slots=True)
class Sent:
    """What all processes of this machine came to."""

    aggregate: Aggregate
    end_s: float = 0.0
    limited: int = 0
    unfinished: int = 0
    cut: int = 0
    lost: int = 0
    connections: int = 0
    failures: tuple[str, ...] = ()
    records_problems: tuple[str, ...] = ()


class Sender:
    """One process and the connection to it."""

    def __init__(self, name: str, channel: Channel, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.channel = channel
        self._process = process

    @classmethod
    async def start(cls, name: str) -> Self:
        """Start a process."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "loadtests.run.child",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(name, Channel(reader, writer), process)

    async def receive(self) -> Message:
        """Wait for what it says. Raises ProcessFailed if it has ended, or says that it cannot."""
        try:
            message = await self.channel.receive()
        except EOFError:
            status = await self._process.wait()
            raise ProcessFailed(f"process {self.name} has ended with status {status}") from None
        if isinstance(message, Failed):
            raise ProcessFailed(f"process {self.name}: {message.reason}")
        return message

    async def end(self) -> None:
        """Let it end, or end it."""
        self.channel.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End it whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class Processes:
    """All processes of this machine."""

    def __init__(self, scenario: Scenario, senders: list[Sender]) -> None:
        self._scenario = scenario
        self._senders = senders
        self._beats: dict[str, Beat] = {}
        self._stopping = False

    @classmethod
    async def start(
        cls,
        scenario: Scenario,
        keys: Mapping[str, str],
        shard: Shard,
        records: Callable[[str], Path] | None = None,
    ) -> Self:
        """Start them and wait until all are ready. Raises ProcessFailed."""
        count = scenario.client.processes
        document = scenario.model_dump_json().encode()
        senders: list[Sender] = []
        self = cls(scenario, senders)
        try:
            for number in range(shard.number * count, (shard.number + 1) * count):
                sender = await Sender.start(str(number))
                senders.append(sender)
                path = None if records is None else str(records(sender.name))
                job = Job(document, dict(keys), number, shard.count * count, sender.name, path)
                sender.channel.send(job)
            for sender in senders:
                message = await sender.receive()
                if not isinstance(message, Ready):
                    raise ProcessFailed(f"process {sender.name} said {type(message).__name__}")
        except BaseException:
            await self.end()
            raise
        return self

    def go(self, start: float) -> None:
        """Have the run start at this time of CLOCK_MONOTONIC."""
        for sender in self._senders:
            sender.channel.send(Go(start))

    def stop(self) -> None:
        """Have the run end now; asked again, end the processes whatever they are doing."""
        for sender in self._senders:
            if self._stopping:
                sender.kill()
            else:
                sender.channel.send(Stop())
        self._stopping = True

    async def finish(self) -> Sent:
        """Wait for all of them. One that dies is told of; the figures of the others count."""
        sent = Sent(Aggregate.of(self._scenario))
        for outcome in await asyncio.gather(*map(self._follow, self._senders)):
            if isinstance(outcome, str):
                sent.failures += (outcome,)
                continue
            sent.aggregate.merge(Aggregate.from_bytes(outcome.aggregate))
            problem = outcome.records_problem
            if problem is not None and problem not in sent.records_problems:
                sent.records_problems += (problem,)
            sent.end_s = max(sent.end_s, outcome.end_s)
            sent.limited += outcome.limited
            sent.unfinished += outcome.unfinished
            sent.cut += outcome.cut
            sent.lost += outcome.lost
            sent.connections += outcome.connections
        return sent

    async def _follow(self, sender: Sender) -> Finished | str:
        while True:
            try:
                message = await sender.receive()
            except ProcessFailed as error:
                return str(error)
            if isinstance(message, Finished):
                self._beats.pop(sender.name, None)
                return message
            if isinstance(message, Beat):
                last = self._beats.get(sender.name)
                if last is not None:
                    # Times to the first token are those since the last look.
                    message.live.ttft_us = [*last.live.ttft_us, *message.live.ttft_us]
                self._beats[sender.name] = message

    def live(self) -> tuple[Live, int]:
        """Return the figures for the terminal, and how many requests are in flight."""
        total, in_flight = Live(), 0
        for beat in self._beats.values():
            total = total.plus(beat.live)
            beat.live.ttft_us = []
            in_flight += beat.in_flight
        return total, in_flight

    def problems(self) -> list[str]:
        """Return why records are missing, as far as is known yet."""
        said = (beat.records_problem for beat in self._beats.values())
        return sorted({problem for problem in said if problem is not None})

    async def end(self) -> None:
        """End all processes."""
        await asyncio.gather(*(sender.end() for sender in self._senders))
