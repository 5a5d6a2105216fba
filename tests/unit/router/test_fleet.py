from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator

import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.link_server import LinkServer
from serving.errors import ModelUnavailable
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router.fleet import Fleet
from serving.wire.entry import Entry
from tests.conftest import Eventually


class Site:
    """A fleet for models `a` and `b`, and the engine servers of a test."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.metrics = RouterMetrics()
        self.servers: dict[str, LinkServer] = {}
        self.fleet = Fleet(
            router="r",
            token="t",
            metrics=self.metrics,
            log=log,
            rng=random.Random(1),
        )
        self.fleet.set_models(["a", "b"])

    async def replica(self, name: str, model: str = "a") -> Entry:
        engine = EchoEngine(EngineSpec(id=model, weights="w", context=100))
        server = LinkServer(
            engine, replica=name, model=model, token="t", log=self.log, on_call_end=lambda _: None
        )
        port = await server.start("127.0.0.1")
        self.servers[name] = server
        return Entry(name, "engine", model, "127.0.0.1", port, f"127.0.0.1:{port + 1}")

    def gauge(self, model: str, state: str) -> float | None:
        labels = {"model": model, "state": state}
        return self.metrics.registry.get_sample_value("serving_replicas", labels)


@pytest.fixture
async def site(log: Log) -> AsyncIterator[Site]:
    site = Site(log)
    yield site
    await site.fleet.close()
    for server in site.servers.values():
        await server.close()


async def test_nobody_there(site: Site) -> None:
    with pytest.raises(ModelUnavailable, match="'a'") as caught:
        site.fleet.pick("a")
    assert caught.value.retry_after_s


async def test_listed_replicas_come_up(site: Site, eventually: Eventually) -> None:
    one, two, other = (
        await site.replica("a1"),
        await site.replica("a2"),
        await site.replica("b1", "b"),
    )
    router = Entry("r2", "router", "", "127.0.0.1", 1, "127.0.0.1:1")
    stranger = Entry("z1", "engine", "z", "127.0.0.1", 1, "127.0.0.1:1")
    site.fleet.update([one, two, other, router, stranger])
    await eventually(lambda: (site.fleet.ready("a"), site.fleet.ready("b")) == (2, 1))
    assert {site.fleet.pick("a").replica for _ in range(30)} == {"a1", "a2"}
    assert site.fleet.pick("a", exclude=frozenset({"a1"})).replica == "a2"
    assert site.fleet.pick("b").replica == "b1"
    assert site.gauge("a", "ready") == 2
    assert site.fleet.listed == (one, two, other, router, stranger)
    with pytest.raises(ModelUnavailable):
        site.fleet.pick("b", exclude=frozenset({"b1"}))


async def test_the_same_list_again_changes_nothing(site: Site, eventually: Eventually) -> None:
    entry = await site.replica("a1")
    site.fleet.update([entry])
    await eventually(lambda: site.fleet.ready("a"))
    link = site.fleet.pick("a")
    site.fleet.update([entry])
    assert site.fleet.pick("a") is link


async def test_a_directory_that_forgot_takes_nothing_out_of_service(
    site: Site, eventually: Eventually
) -> None:
    site.fleet.update([await site.replica("a1")])
    await eventually(lambda: site.fleet.ready("a"))
    site.fleet.update([])
    assert site.fleet.pick("a").replica == "a1"
    await site.servers["a1"].close()
    await eventually(lambda: not site.fleet.ready("a"))
    assert site.gauge("a", "not_ready") == 1
    site.fleet.update([])
    assert site.fleet.links("a") == []
    assert site.gauge("a", "not_ready") == 0


async def test_a_replica_that_moved_is_followed(site: Site, eventually: Eventually) -> None:
    site.fleet.update([await site.replica("a1")])
    await eventually(lambda: site.fleet.ready("a"))
    old = site.servers["a1"]
    moved = await site.replica("a1")
    site.fleet.update([moved])
    await eventually(lambda: site.fleet.ready("a"))
    assert site.fleet.pick("a").address == ("127.0.0.1", moved.port)
    assert len(site.fleet.links("a")) == 1
    await old.close()


async def test_a_draining_replica_gets_nothing_new(site: Site, eventually: Eventually) -> None:
    site.fleet.update([await site.replica("a1"), await site.replica("a2")])
    await eventually(lambda: site.fleet.ready("a") == 2)
    await site.servers["a1"].drain(1)
    await eventually(lambda: site.fleet.ready("a") == 1)
    assert {site.fleet.pick("a").replica for _ in range(10)} == {"a2"}


async def test_when_a_model_lost_its_last_replica(site: Site, eventually: Eventually) -> None:
    lost_at = site.fleet.lost_at("a")
    assert lost_at is not None, "since the fleet knows of it"
    assert lost_at <= time.monotonic()
    assert not site.fleet.seen("a")
    assert site.fleet.lost_at("b of another fleet") is None
    entries = [await site.replica("a1"), await site.replica("a2")]
    site.fleet.update(entries)
    await eventually(lambda: site.fleet.ready("a") == 2)
    await site.servers["a1"].close()
    await eventually(lambda: site.fleet.ready("a") == 1)
    assert site.fleet.lost_at("a") is None
    before = time.monotonic()
    await site.servers["a2"].drain(0)
    await eventually(lambda: not site.fleet.ready("a"))
    lost_at = site.fleet.lost_at("a")
    assert lost_at is not None
    assert before <= lost_at <= time.monotonic()
    assert site.fleet.seen("a")
    site.fleet.update([*entries, await site.replica("a3")])
    await eventually(lambda: site.fleet.ready("a"))
    assert site.fleet.lost_at("a") is None


async def test_who_watches_is_woken_for_every_replica_that_comes_up(
    site: Site, eventually: Eventually
) -> None:
    woken: list[int] = []
    with site.fleet.watch("a", lambda: woken.append(site.fleet.ready("a"))):
        entries = [await site.replica("a1")]
        site.fleet.update(entries)
        await eventually(lambda: woken == [1])
        site.fleet.update([*entries, await site.replica("a2")])
        await eventually(lambda: woken == [1, 2])
        await site.servers["a1"].close()
        await eventually(lambda: site.fleet.ready("a") == 1)
    assert woken == [1, 2]
