"""A catalogue that changes while requests run."""

from __future__ import annotations

import asyncio

from tests.conftest import Eventually
from tests.gateway.upstream.conftest import World, text_of
from tests.providers import Step


async def test_a_new_catalogue_keeps_what_has_not_changed(
    world: World, eventually: Eventually
) -> None:
    upstreams, catalogue = world.site.router.hosted, world.site.catalogue
    replicas, clients = dict(upstreams.replicas), dict(upstreams._clients)
    world.openai.script = [Step(words=("word ",) * 30, pace_s=0.02)]
    running = asyncio.create_task(world.complete(stream=True))
    await eventually(lambda: world.openai.requests)
    openai = catalogue.providers["openai"].model_copy(update={"timeout_s": 7.0})
    changed = catalogue.model_copy(
        update={
            "models": tuple(m for m in catalogue.models if not m.id.endswith("-gemini")),
            "providers": {**catalogue.providers, "openai": openai},
        }
    )
    upstreams.update(changed)
    assert set(upstreams.replicas) == {"m-openai", "e-openai", "m-anthropic"}
    assert upstreams.replicas["m-anthropic"] is replicas["m-anthropic"]
    assert upstreams._clients["openai"] is not clients["openai"]
    assert text_of(await running) == "word " * 30, "what had begun ends"
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200
    await eventually(lambda: clients["openai"]._connection.openai.is_closed())
    await eventually(lambda: clients["gemini"]._connection.openai.is_closed())
    gauge = "serving_upstream_circuit"
    assert world.metric(gauge, provider="openai", state="closed") == 1
    value = world.site.metrics.registry.get_sample_value
    assert value(gauge, {"provider": "gemini", "state": "closed"}) is None
    for gauge in ("serving_upstream_requests_in_flight", "serving_upstream_requests_waiting"):
        assert value(gauge, {"provider": "openai"}) == 0
        assert value(gauge, {"provider": "gemini"}) is None
