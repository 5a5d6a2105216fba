"""No deadline comes before what it waits for, whatever the models file says."""

from __future__ import annotations

import pytest

from deployments.app import engine_app, router_app
from serving.catalogue import grace as module
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.grace import LEASE_S, NodeGrace, grace

Catalogues = list[Catalogue]


def catalogue(*starts_s: float, drain_s: float = 30.0, leave_s: float = 10.0) -> Catalogue:
    models = [
        {
            "id": f"m{at}",
            "kind": "engine",
            "weights": "w",
            "context": 16,
            "start_timeout_s": start_s,
        }
        for at, start_s in enumerate(starts_s)
    ]
    return Catalogue.model_validate(
        {"models": models, "drain_s": drain_s, "router": {"leave_s": leave_s}}
    )


CASES = [
    catalogue(1800.0),
    catalogue(20.0, 300.0, drain_s=900.0, leave_s=0.0),
    catalogue(drain_s=3600.5, leave_s=45.0),
    catalogue(0.1, drain_s=0.0, leave_s=600.0),
]


@pytest.mark.parametrize("each", CASES)
def test_each_deadline_is_later_than_what_it_waits_for(each: Catalogue) -> None:
    times = grace(each)
    longest_start_s = max((spec.start_timeout_s for spec in each.engines), default=0.0)
    assert times.router_s > times.leave_s + times.drain_s + module.ROUTER_STOP_S
    assert times.engine_s > LEASE_S + times.drain_s + module.ENGINE_STOP_S
    assert times.router_node.drain_s > module.ROUTER_START_S + times.router_s
    # Routers may run beside engines.
    assert times.engine_node.drain_s > longest_start_s + max(times.engine_s, times.router_s)
    for node in (times.router_node, times.engine_node):
        assert node.termination_s > node.drain_s


@pytest.mark.parametrize("each", CASES)
def test_serve_is_told_these_times(each: Catalogue) -> None:
    times = grace(each)
    assert _timeout_s(router_app(each)) == times.router_s
    for spec in each.engines:
        assert _timeout_s(engine_app(spec, each)) == times.engine_s


def test_the_numbers_of_fifteen_minute_streams() -> None:
    times = grace(catalogue(600.0, drain_s=900.0, leave_s=20.0))
    assert (times.router_s, times.engine_s) == (935.0, 920.0)
    assert times.router_node == NodeGrace(drain_s=1000, termination_s=1020)
    assert times.engine_node == NodeGrace(drain_s=1540, termination_s=1560)


def _timeout_s(app: object) -> float:
    return app._bound_deployment._deployment_config.graceful_shutdown_timeout_s  # type: ignore[attr-defined, no-any-return]
