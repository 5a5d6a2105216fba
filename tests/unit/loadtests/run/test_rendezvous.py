from __future__ import annotations

import asyncio
import time

import pytest

from loadtests.run.rendezvous import Follower, Leader
from loadtests.run.shard import Shard
from loadtests.run.together import AtTime, ClockDifference, Meeting, NoMeeting

HOST = "127.0.0.1"


async def leader(count: int, wait_s: float = 10, at: float | None = None) -> tuple[Leader, int]:
    made = Leader(Shard(0, count), 7, at, wait_s)
    return made, await made.listen(HOST, 0)


def follower(number: int, count: int, port: int, wait_s: float = 10) -> Follower:
    return Follower(Shard(number, count), HOST, port, 7, wait_s)


async def test_all_start_at_one_time() -> None:
    made, port = await leader(3)
    meetings = await asyncio.gather(
        made.meet(), *(follower(number, 3, port).meet() for number in (1, 2))
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
    shard = Follower(
        Shard(1, 2),
        HOST,
        port,
        7,
        10,
        monotonic=lambda: time.monotonic() + 1000,
        wall=lambda: time.time() + 3,
    )
    mine, other = await asyncio.gather(made.meet(), shard.meet())
    await made.close()
    (clock,) = mine.clocks
    assert abs(other.start - 1000 - mine.start) <= clock.within_s
    assert abs(clock.ahead_s - 3) <= clock.within_s + 0.001
    assert other.clocks == (ClockDifference(1, clock.ahead_s, clock.within_s),)


async def test_the_leader_may_come_later() -> None:
    first, port = await leader(2)
    await first.close()
    joining = asyncio.create_task(follower(1, 2, port).meet())
    await asyncio.sleep(0.3)
    made = Leader(Shard(0, 2), 7)
    await made.listen(HOST, port)
    mine, other = await asyncio.gather(made.meet(), joining)
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
        await Follower(shard, HOST, port, scenario, 10).meet()
    await made.close()


async def test_a_shard_joins_once() -> None:
    made, port = await leader(3)
    first = asyncio.create_task(follower(1, 3, port).meet())
    await asyncio.sleep(0.1)
    with pytest.raises(NoMeeting, match="is there already"):
        await follower(1, 3, port).meet()
    first.cancel()
    await made.close()


async def test_who_is_missing_is_named() -> None:
    made, port = await leader(4, wait_s=0.3)
    joining = asyncio.create_task(follower(2, 4, port).meet())
    with pytest.raises(NoMeeting, match=r"not there: \[1, 3\]"):
        await made.meet()
    await made.close()
    with pytest.raises(NoMeeting, match="leader has left"):
        await joining


async def test_no_leader() -> None:
    with pytest.raises(NoMeeting, match="no start from the leader"):
        await follower(1, 2, 9, wait_s=0.3).meet()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1x", b"\0\0", b""])
async def test_what_is_no_shard_does_not_disturb(said: bytes) -> None:
    made, port = await leader(2)
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(said)
    mine, _ = await asyncio.gather(made.meet(), follower(1, 2, port).meet())
    writer.close()
    await made.close()
    assert isinstance(mine, Meeting)


async def test_one_shard_waits_for_nobody() -> None:
    made, _ = await leader(1)
    assert (await made.meet()).clocks == ()
    assert await made.parts(0) == []
    await made.close()


async def test_a_wall_time() -> None:
    meeting = await AtTime(time.time() + 5).meet()
    assert abs(meeting.start - time.monotonic() - 5) < 0.5
    with pytest.raises(NoMeeting, match="ago"):
        await AtTime(time.time() - 5).meet()


async def test_the_leader_may_know_when() -> None:
    made, port = await leader(2, at=time.time() + 5)
    mine, other = await asyncio.gather(made.meet(), follower(1, 2, port).meet())
    await made.close()
    assert abs(mine.start - time.monotonic() - 5) < 0.5
    assert abs(mine.start - other.start) < 0.01


async def test_the_leader_gets_what_all_have_measured() -> None:
    made, port = await leader(3)
    others = [follower(number, 3, port) for number in (1, 2)]
    await asyncio.gather(made.meet(), *(each.meet() for each in others))
    large = b"x" * 100_000
    parts, *_ = await asyncio.gather(
        made.parts(10), *(each.hand_over(large + b"%d" % n) for n, each in enumerate(others))
    )
    assert sorted(parts or ()) == [large + b"0", large + b"1"]
    for each in (made, *others):
        await each.close()


@pytest.mark.parametrize("leaves", [True, False])
async def test_who_leaves_or_is_late_hands_nothing_over(leaves: bool) -> None:
    made, port = await leader(3)
    first, second = (follower(number, 3, port) for number in (1, 2))
    await asyncio.gather(made.meet(), first.meet(), second.meet())
    if leaves:
        await second.close()
    parts, _ = await asyncio.gather(made.parts(10 if leaves else 0.2), first.hand_over(b"one"))
    assert parts == [b"one"]
    await made.close()
    if not leaves:
        with pytest.raises(NoMeeting, match="the leader has left"):
            await second.hand_over(b"two")
    for each in (first, second):
        await each.close()


def test_shards() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    for text in ("8/8", "2", "a/8", "-1/8", "/"):
        with pytest.raises(ValueError, match="no shard"):
            Shard.parse(text)
