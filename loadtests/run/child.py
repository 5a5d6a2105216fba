"""A process that sends: `python -m loadtests.run.child FD`, started by `processes.py`.

It speaks with the process that conducts the run over the socket FD, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loadtests.clock import Clock
from loadtests.load.plan import plans
from loadtests.loop import run, tune_collector
from loadtests.measure.aggregate import Aggregate
from loadtests.measure.record import Record
from loadtests.output.records import RecordWriter
from loadtests.run.messages import Beat, Channel, Failed, Finished, Go, Job, Ready, Stop
from loadtests.run.worker import Worker
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.wire.client import Client
from loadtests.wire.service import Service

BEAT_S = 0.5
# Before the run's start there is no time.
NEVER = float("inf")


async def work(channel: Channel) -> None:
    """Do one job, as far as the conductor lets it be done."""
    job = await channel.expect(Job)
    scenario = Scenario.model_validate_json(job.scenario)
    aggregate = Aggregate.of(scenario)
    clock = Clock(NEVER)
    writer = None
    if job.records is not None:
        writer = RecordWriter(Path(job.records), lambda: time.time() - clock.now(), job.name)
    service = Service(scenario.target.url)
    await service.addresses()
    client = Client(service, clock, scenario.target.timeout_s)
    shares = plans(scenario, job.keys, job.shard, job.shards)
    worker = Worker(shares, client, clock, _both(aggregate, writer), job.name)
    tune_collector()
    channel.send(Ready())
    go = await channel.receive()
    if not isinstance(go, Go):
        return
    clock.start = go.start
    sending = asyncio.create_task(worker.drive())
    listening = asyncio.create_task(_listen(channel, worker))
    beating = asyncio.create_task(_beat(channel, worker, aggregate, writer))
    try:
        driven = await sending
    finally:
        listening.cancel()
        beating.cancel()
        if writer is not None:
            writer.close()
    aggregate.clients.append(driven.figures)
    counts = driven.counts
    channel.send(
        Finished(
            aggregate.to_bytes(),
            driven.limited,
            driven.unfinished,
            counts.cut,
            counts.lost,
            driven.connections,
            clock.now(),
            None if writer is None else writer.problem,
        )
    )
    await channel.flush()


def _both(aggregate: Aggregate, writer: RecordWriter | None) -> Callable[[Record], None]:
    if writer is None:
        return aggregate.add

    def sink(record: Record) -> None:
        aggregate.add(record)
        writer.write(record)

    return sink


async def _listen(channel: Channel, worker: Worker) -> None:
    """End the run when it is told to, or when nobody is there any more."""
    try:
        while not isinstance(await channel.receive(), Stop):
            pass
    except EOFError:
        pass
    worker.interrupt()


async def _beat(
    channel: Channel, worker: Worker, aggregate: Aggregate, writer: RecordWriter | None
) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        due = sum(worker.counts.due.values())
        problem = None if writer is None else writer.problem
        channel.send(Beat(aggregate.live(due=due, sent=due), worker.in_flight, problem))


async def main(fd: int) -> None:
    """Work for whoever holds the other end."""
    # Ctrl-C reaches all processes of the terminal; the conductor decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    channel = Channel(reader, writer)
    try:
        await work(channel)
    except (EOFError, ConnectionError):
        pass  # the conductor is gone
    except (OSError, ScenarioError, ValueError) as error:
        channel.send(Failed(str(error)))
        await channel.flush()
    finally:
        channel.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


if __name__ == "__main__":
    run(main(int(sys.argv[1])))
