from __future__ import annotations

import asyncio
import time

import pytest

from loadtests.run.rendezvous import ClockDifference, Leader, Meeting, NoMeeting, join, start_at
from loadtests.run.shard import Shard

HOST = "127.0.0.1"


async def leader(count: int, scenario: int = 7) -> tuple[Leader, int]:
    made = Leader(Shard(0, count), scenario)
    return made, await made.listen(HOST, 0)


async def test_all_start_at_one_time() -> None:
    made, port = await leader(3)
    meetings = await asyncio.gather(
        made.meet(10), *(join(Shard(number, 3), HOST, port, 7, 10) for number in (1, 2))
    )
    await made.close()
    starts = [meeting.start for meeting in meetings]
    assert max(starts) - min(starts) < 0.01
    assert min(starts) > time.monotonic()
    assert [clock.shard for clock in meetings[0].clocks] == [1, 2]
    assert all(abs(clock.ahead_s) < 0.05 for clock in meetings[0].clocks)


async def test_clocks_may_differ() -> None:
    """A shard whose machine has started at another time, and whose wall clock is wrong."""
    made, port = await leader(2)
    shard = join(
        Shard(1, 2),
        HOST,
        port,
        7,
        10,
        monotonic=lambda: time.monotonic() + 1000,
        wall=lambda: time.time() + 3,
    )
    mine, other = await asyncio.gather(made.meet(10), shard)
    await made.close()
    (clock,) = mine.clocks
    assert abs(other.start - 1000 - mine.start) <= clock.within_s
    assert abs(clock.ahead_s - 3) <= clock.within_s + 0.001
    assert other.clocks == (ClockDifference(1, clock.ahead_s, clock.within_s),)


async def test_the_leader_may_come_later() -> None:
    first, port = await leader(2)
    await first.close()
    joining = asyncio.create_task(join(Shard(1, 2), HOST, port, 7, 10))
    await asyncio.sleep(0.3)
    made = Leader(Shard(0, 2), 7)
    await made.listen(HOST, port)
    mine, other = await asyncio.gather(made.meet(10), joining)
    await made.close()
    assert abs(mine.start - other.start) < 0.01


@pytest.mark.parametrize(
    ("shard", "scenario", "reason"),
    [
        (Shard(1, 4), 7, "has 3 shards"),
        (Shard(0, 3), 7, "0 leads"),
        (Shard(1, 3), 8, "scenario is not the leader's"),
    ],
)
async def test_who_does_not_belong_is_refused(shard: Shard, scenario: int, reason: str) -> None:
    made, port = await leader(3)
    with pytest.raises(NoMeeting, match=reason):
        await join(shard, HOST, port, scenario, 10)
    await made.close()


async def test_a_shard_joins_once() -> None:
    made, port = await leader(3)
    first = asyncio.create_task(join(Shard(1, 3), HOST, port, 7, 10))
    await asyncio.sleep(0.1)
    with pytest.raises(NoMeeting, match="is there already"):
        await join(Shard(1, 3), HOST, port, 7, 10)
    first.cancel()
    await made.close()


async def test_who_is_missing_is_named() -> None:
    made, port = await leader(4)
    joining = asyncio.create_task(join(Shard(2, 4), HOST, port, 7, 10))
    with pytest.raises(NoMeeting, match=r"not there: \[1, 3\]"):
        await made.meet(0.3)
    await made.close()
    with pytest.raises(NoMeeting, match="leader has left"):
        await joining


async def test_no_leader() -> None:
    with pytest.raises(NoMeeting, match="no start from the leader"):
        await join(Shard(1, 2), HOST, 9, 7, 0.3)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1x", b"\0\0", b""])
async def test_what_is_no_shard_does_not_disturb(said: bytes) -> None:
    made, port = await leader(2)
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(said)
    mine, _ = await asyncio.gather(made.meet(10), join(Shard(1, 2), HOST, port, 7, 10))
    writer.close()
    await made.close()
    assert isinstance(mine, Meeting)


async def test_one_shard_waits_for_nobody() -> None:
    made, _ = await leader(1)
    assert (await made.meet(1)).clocks == ()
    await made.close()


def test_a_wall_time() -> None:
    meeting = start_at(time.time() + 5)
    assert abs(meeting.start - time.monotonic() - 5) < 0.5
    with pytest.raises(NoMeeting, match="ago"):
        start_at(time.time() - 5)


def test_shards() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    for text in ("8/8", "2", "a/8", "-1/8", "/"):
        with pytest.raises(ValueError, match="no shard"):
            Shard.parse(text)
