"""What a replica says of its load, and its drain."""

from __future__ import annotations

import asyncio

import pytest

from serving.observability.logs import Log
from serving.router.answer import AttemptFailed
from serving.router.replica import ReplicaLink
from serving.wire.messages import AdapterRef, Load
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import Pair, completion, read


async def test_load_reports_tell_ours_from_others(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    other = pair.link(router="other")
    await eventually(lambda: other.up)
    pair.engine.interval_s = 60
    ours = [link.open(completion(adapter=AdapterRef("a", "/w"))) for _ in range(2)]
    theirs = [other.open(completion()) for _ in range(3)]
    assert link.busy == 2
    assert pair.held == [(link, "a", True)], "known before any report, and once"
    await eventually(lambda: link.busy == other.busy == 5)
    await eventually(lambda: link.load.running == 5)
    assert link.load == Load(5, 2, 5, 0, ("a",), routers=2)
    assert (link.others, other.others) == (3, 2)
    for answer in ours + theirs:
        answer.abandon()
    await eventually(lambda: link.busy == other.busy == 0)


async def test_a_draining_replica_finishes_but_takes_nothing_new(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.02
    answer = link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    changes = pair.changes
    drain = asyncio.create_task(pair.server.drain(5))
    await eventually(lambda: not link.up)
    assert link.connected
    assert pair.changes == changes + 1
    with pytest.raises(AttemptFailed) as caught:
        link.open(completion())
    assert caught.value.retryable
    assert (await read(answer)).count(b"data: ") == 4
    assert answer.end is not None
    await drain


async def test_a_drain_does_not_wait_forever(pair: Pair, link: ReplicaLink) -> None:
    pair.engine.interval_s = 60
    link.open(completion())
    async with asyncio.timeout(2):
        await pair.server.drain(0.1)


async def test_what_a_late_report_cannot_know_is_assumed_of_the_others_too(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    other = pair.link(router="other")
    await eventually(lambda: other.up and link.load.routers == 2)
    for _ in range(3):
        link.open(completion())
    assert link.busy == 6  # three of ours, and as many that the other may have added
    await eventually(lambda: link.load.yours == 3)
    assert link.busy == 3  # the report is in: the other has none


async def test_a_server_that_closes_stops_reporting_whatever_happens_at_that_moment(
    log: Log,
) -> None:
    before = asyncio.all_tasks()
    server = Pair(log).new_server()
    await server.start("127.0.0.1")
    (reporter,) = asyncio.all_tasks() - before
    await asyncio.sleep(0.05)
    server.changed()
    await server.close()
    await asyncio.wait([reporter], timeout=0.5)
    assert reporter.cancelled()
