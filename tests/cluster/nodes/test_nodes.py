"""Machines that vanish, networks that part, and a head that dies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving.router.replica import SILENCE_S
from tests.cluster.nodes.cluster import KEY, PORT, Cluster, address
from tests.cluster.nodes.load import Load
from tests.live import BASE

pytestmark = pytest.mark.long

APP = f"model-{BASE}"
ENGINES = [address("engine-a"), address("engine-b")]
ROUTERS = [address("router-a"), address("router-b")]
# Ray takes a node for dead that has missed its health checks for so long, with room.
NODE_DEAD_S = 90.0


def replicas_seen(router: str) -> list[str]:
    """The state of each replica, as one router sees it."""
    answer = httpx.get(f"http://{router}:{PORT}/status", headers={"x-api-key": KEY}, timeout=5)
    (model,) = [each for each in answer.json()["models"] if each["id"] == BASE]
    return sorted(replica["state"] for replica in model["replicas"])


def ready(router: str) -> bool:
    try:
        return replicas_seen(router) == ["ready", "ready"]
    except (httpx.HTTPError, KeyError):
        return False


def whole(nodes: Cluster) -> None:
    nodes.wait("both routers see both replicas", lambda: all(map(ready, ROUTERS)), 150)


def replace(nodes: Cluster, node: str) -> None:
    """End an engine of a node, and wait for the replica that comes instead, wherever."""
    known = len(nodes.events("engine_ready"))
    nodes.end_engine(node)
    nodes.wait("a new replica", lambda: len(nodes.events("engine_ready")) > known)
    whole(nodes)


def spread(nodes: Cluster) -> None:
    """Bring a replica to each engine node; one that was replaced may be where the other is."""
    whole(nodes)
    for _ in range(8):
        places = nodes.replicas()[APP]
        if places == ENGINES:
            return
        replace(nodes, "engine-a" if places[0] == ENGINES[0] else "engine-b")
    raise AssertionError(f"Serve puts both replicas on {places[0]}, again and again")


def complete(router: str, tokens: int = 4) -> httpx.Response:
    body = {"model": BASE, "prompt": "Once", "model_parameters": {"max_tokens": tokens}}
    url = f"http://{router}:{PORT}/v4/completions"
    return httpx.post(url, json=body, headers={"x-api-key": KEY}, timeout=60)


def test_routers_reach_engines_over_the_network(nodes: Cluster) -> None:
    whole(nodes)
    places = nodes.replicas()
    assert sorted(places["router"]) == ROUTERS
    (engines,) = [where for name, where in places.items() if name != "router"]
    assert engines == ENGINES
    load = Load(ROUTERS, BASE, streams=10, clients=4).start()
    time.sleep(5)
    print(f"\nfive nodes: {load.stop()}")
    assert load.streams.failed == load.short.failed == 0


def test_a_partition_between_a_router_and_an_engine(nodes: Cluster) -> None:
    """What the engine says to one router is lost; everybody else hears it."""
    whole(nodes)
    load = Load(ROUTERS, BASE, clients=4).start()
    try:
        time.sleep(1)
        nodes.mute("engine-a", towards="router-a")
        took_s = nodes.wait(
            "router-a leaves the replica",
            lambda: replicas_seen(ROUTERS[0]) == ["connecting", "ready"],
            within_s=20,
        )
        assert took_s < SILENCE_S + 3
        assert ready(ROUTERS[1]), "the other one hears it"
        for _ in range(20):  # nothing goes into the void
            started = time.monotonic()
            assert complete(ROUTERS[0]).status_code == 200
            assert time.monotonic() - started < SILENCE_S
    finally:
        nodes.unmute("engine-a", towards="router-a")
        load.stop()
    print(f"\na partition: left after {took_s:.1f} s; {load}")
    assert load.short.failed == 0
    whole(nodes)


def test_the_head_dies_and_comes_back(nodes: Cluster) -> None:
    whole(nodes)
    before = nodes.replicas()
    load = Load(ROUTERS, BASE, streams=20, clients=4).start()
    try:
        time.sleep(3)
        nodes.kill("head")
        time.sleep(15)
        assert all(map(ready, ROUTERS)), "links need no head"
        assert complete(ROUTERS[0]).status_code == 200
        nodes.add("head")
        nodes.wait("Serve is back", lambda: nodes.replicas() == before)
        time.sleep(10)
    finally:
        load.stop()
    print(f"\nthe head was killed and came back: {load}")
    assert load.streams.sent >= 20
    assert load.streams.failed == load.short.failed == 0
    # All is found again: a replica that ends is replaced, and its routers find the new one.
    replace(nodes, "engine-b")


def test_a_machine_that_vanishes(nodes: Cluster) -> None:
    """Its link is cut, not closed: nobody is told."""
    spread(nodes)
    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(complete, ROUTERS[at % 2], 300) for at in range(8)]
        load = Load(ROUTERS, BASE, clients=4).start()
        try:
            time.sleep(0.5)
            nodes.cut("engine-b")
            left_s = nodes.wait(
                "routers leave its replica",
                lambda: all(replicas_seen(each).count("ready") == 1 for each in ROUTERS),
                within_s=20,
            )
            back_s = nodes.wait(
                "its replica is somewhere else",
                lambda: nodes.replicas()[APP] == [ENGINES[0]] * 2,
                within_s=NODE_DEAD_S,
            )
            whole(nodes)
        finally:
            load.stop()
        statuses = [each.result().status_code for each in running]
    print(f"\na machine vanished: left after {left_s:.1f} s, replaced after {back_s:.1f} s more")
    print(f"{load}; answers that were being made: {statuses}")
    assert left_s < SILENCE_S + 3
    assert load.short.failed == 0
    assert statuses == [200] * 8, "nothing of them had left: they are made again elsewhere"
