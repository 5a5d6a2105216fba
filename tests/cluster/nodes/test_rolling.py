"""A hundred streams and a storm of short requests lose nothing while the service is rolled."""

from __future__ import annotations

import time

import pytest

from tests.cluster.conftest import local_model
from tests.cluster.nodes.cluster import Cluster, address, models_file
from tests.cluster.nodes.load import Load
from tests.live import BASE

pytestmark = pytest.mark.long


@pytest.fixture
def load(nodes: Cluster) -> Load:
    hosts = [address("router-a"), address("router-b")]
    return Load(hosts, BASE, streams=100, clients=6)


def nothing_lost(load: Load, what: str) -> None:
    print(f"\n{what}: {load}")
    assert load.streams.sent >= 100
    assert load.short.sent > 20
    for figures in (load.streams, load.short):
        assert (figures.failed, figures.reset) == (0, 0), str(load)


def started(nodes: Cluster) -> tuple[int, int]:
    """How many engines and routers have started until now."""
    return len(nodes.events("engine_ready")), len(nodes.events("router_ready"))


def test_a_changed_model(nodes: Cluster, load: Load) -> None:
    engines, routers = started(nodes)
    load.start()
    args = {**local_model(BASE)["engine_args"], "max_num_seqs": 200}
    file = models_file(nodes.folder, local_model(BASE), engine_args=args)
    try:
        nodes.deploy(file)
    finally:
        load.stop()
    assert started(nodes) == (engines + 2, routers)
    nothing_lost(load, "a changed model")


def test_other_routers(nodes: Cluster, load: Load) -> None:
    engines, routers = started(nodes)
    args = {**local_model(BASE)["engine_args"], "max_num_seqs": 200}
    load.start()
    router = {"leave_s": 3.1}
    file = models_file(nodes.folder, local_model(BASE), engine_args=args, router=router)
    try:
        nodes.deploy(file)
    finally:
        load.stop()
    assert started(nodes) == (engines, routers + 2)
    nothing_lost(load, "other routers")


@pytest.mark.parametrize("node", ["engine-a", "router-a"])
def test_a_node_that_is_drained(nodes: Cluster, load: Load, node: str) -> None:
    """Or whose pod is deleted: in both cases all of it gets SIGTERM, and has the grace period."""
    grace = nodes.grace_of(node)
    load.start()
    try:
        time.sleep(3)
        started = time.monotonic()
        nodes.drain(node).wait(timeout=grace.termination_s)
        took_s = time.monotonic() - started
        time.sleep(2)
    finally:
        load.stop()
        nodes.add(node)
    nothing_lost(load, f"{node} drained in {took_s:.0f} s of {grace.termination_s} s")
