"""Requests are spread evenly; an adapter's go to a replica that holds it, until that is busy."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.live import BASE, ENDLESS, MAGPIE, Server, Target, poll

REQUESTS = 400
CLIENTS = 32
WAVE = 100
SHARE = 0.15


@pytest.fixture
def replicas(live: Server) -> list[Target]:
    """The replicas of the base model; looked up once, they are the same throughout a test."""
    poll(live.idle, 10, "nothing runs")
    return live.engines(BASE)


def calls(live: Server, replicas: list[Target]) -> list[float]:
    return [live.calls(replica) for replica in replicas]


def grown(live: Server, replicas: list[Target], before: list[float]) -> list[float]:
    """Calls since `before` by replica, fewest first."""
    now = calls(live, replicas)
    return sorted(count - old for count, old in zip(now, before, strict=True))


def test_the_shared_port_reaches_every_router(live: Server) -> None:
    """The kernel spreads connections over them; a kept one stays where it is."""

    def router() -> str:
        answer = httpx.get(f"{live.url}/-/healthz", trust_env=False)
        assert answer.status_code == 200
        return str(answer.json()["router"])

    assert {router() for _ in range(40)} == {target.replica for target in live.routers()}
    with httpx.Client(trust_env=False) as client:
        kept = {client.get(f"{live.url}/-/healthz").json()["router"] for _ in range(10)}
    assert len(kept) == 1


def test_both_replicas_get_the_same_share_of_mixed_lengths(
    live: Server, replicas: list[Target]
) -> None:
    """Requests go through both routers at once, in waves. The policy evens out the open requests,
    so a slower replica may end a wave later, but must get the same share of it. All requests are
    long enough to stay open until the last of their wave is sent.

    The bound is wide because a burst outruns the load reports: on two busy cores a replica may not
    run for a moment. It then reports late, looks idle to both routers and gets more (seen: 38 and
    62 of one wave). The next test has the narrower bound that random choice misses by far."""
    rng = random.Random(7)
    routers = live.routers()
    assert len(routers) == 2

    def one(item: tuple[str, int]) -> int:
        url, length = item
        parameters = {**ENDLESS, "max_tokens": length}
        return live.complete(BASE, "Once upon a time", url, model_parameters=parameters).status_code

    first = calls(live, replicas)
    differences = []
    # Threads of their own for each router: a router's own port takes 64 connections.
    with ThreadPoolExecutor(WAVE // 2) as some, ThreadPoolExecutor(WAVE // 2) as others:
        for _ in range(REQUESTS // WAVE):
            poll(live.idle, 10, "nothing runs")
            before = calls(live, replicas)
            wave = [
                threads.submit(one, (router.url, rng.choice([160, 200, 250, 320])))
                for _ in range(WAVE // 2)
                for threads, router in zip((some, others), routers, strict=True)
            ]
            assert {each.result() for each in wave} == {200}
            few, many = grown(live, replicas, before)
            assert few + many == WAVE
            differences.append(many - few)
    few, many = grown(live, replicas, first)
    print(f"shares {few:.0f} and {many:.0f}; differences by wave {differences}")
    assert many - few <= 2 * SHARE * REQUESTS / 2


def test_open_requests_stay_even_while_they_come_and_go(live: Server) -> None:
    """Each router counts its own requests and hears of the other's, so the two replicas always hold
    about the same number."""
    poll(live.idle, 10, "nothing runs")
    rng = random.Random(8)
    routers = live.routers()
    work = [
        (routers[number % 2].url, rng.choice([1, 2, 4, 8, 16, 32, 64, 120]))
        for number in range(REQUESTS)
    ]

    def one(item: tuple[str, int]) -> int:
        url, length = item
        parameters = {"temperature": 0, "max_tokens": length}
        return live.complete(BASE, "Once upon a time", url, model_parameters=parameters).status_code

    held: list[list[int]] = []
    with ThreadPoolExecutor(CLIENTS) as threads:
        pending = [threads.submit(one, item) for item in work]
        while not all(future.done() for future in pending):
            seen = live.status(routers[len(held) % 2].url)[BASE]["replicas"]
            counts = [replica["in_flight"] for replica in seen]
            if sum(counts) >= CLIENTS / 2:
                held.append(counts)
        assert {future.result() for future in pending} == {200}
    assert len(held) >= 10
    few, many = sorted(map(sum, zip(*held, strict=True)))
    # Twice as wide: a look may come before a late report has corrected the counts.
    assert many - few <= SHARE * (few + many), f"{few} and {many} in {len(held)} looks"


def test_a_custom_model_stays_where_it_is_loaded_and_spreads_when_that_is_busy(
    live: Server, replicas: list[Target]
) -> None:
    routers = live.routers()
    holders = [r["id"] for r in live.status()[BASE]["replicas"] if MAGPIE in r["adapters"]]
    assert not holders, "no other test may use this adapter"
    before = calls(live, replicas)
    for number in range(16):
        live.text(MAGPIE, "A spider has", url=routers[number % 2].url)
    assert grown(live, replicas, before) == [0, 16]

    before = calls(live, replicas)
    with ThreadPoolExecutor(40) as threads:
        texts = threads.map(
            lambda number: live.text(MAGPIE, "Once upon a time", url=routers[number % 2].url),
            range(80),
        )
        assert len(set(texts)) == 1
    few, many = grown(live, replicas, before)
    assert few + many == 80
    assert few >= 20, f"{few:.0f} and {many:.0f}"

    def both_hold_it() -> bool:
        return all(MAGPIE in r["adapters"] for r in live.status()[BASE]["replicas"])

    poll(both_hold_it, 5)
