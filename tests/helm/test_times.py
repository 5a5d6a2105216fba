"""How long pods, Ray and Serve wait fits together, by the figures of the code."""

from __future__ import annotations

import pytest

from deployments.app import router_app
from serving.catalogue.load import load_text
from serving.catalogue.spec import EngineSpec
from tests.helm.rendered import Pod, Rendered

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
# What Kubernetes must leave after Ray's drain: Ray's own processes end within seconds.
LEAST_AFTER_S = 15


def stop_s(rendered: Rendered, component: str) -> float:
    """How long Ray Serve lets a replica end."""
    from deployments.app import engine_app

    catalogue = load_text(rendered.values["models"]["file"])
    if component == "router":
        app = router_app(catalogue)
    else:
        spec = EngineSpec.model_validate({"id": "m", "weights": "/w", "context": 64})
        app = engine_app(spec, catalogue)
    found = app._bound_deployment._deployment_config.graceful_shutdown_timeout_s
    assert isinstance(found, float)
    return found


def pre_stop_s(pod: Pod) -> float:
    hook = pod.main.get("lifecycle", {}).get("preStop")
    return float(hook["exec"]["command"][1]) if hook else 0


def test_a_stream_may_end_while_its_replica_is_taken_down(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    longest = float(router.env("SERVING_REQUEST_TIMEOUT_S"))
    assert rendered.values["models"]["drainSeconds"] >= longest
    for component in ("router", "engine"):
        assert stop_s(rendered, component) > longest


def test_ray_drains_for_longer_than_serve_waits(rendered: Rendered) -> None:
    """Serve ends a replica on a node that drains so long before the node's end as it may take."""
    for component in ("router", "engine"):
        for pod in rendered.of(component):
            assert float(pod.env(DRAIN)) > stop_s(rendered, component)


def test_an_engine_lives_until_its_replacement_should_be_ready(rendered: Rendered) -> None:
    catalogue = load_text(rendered.values["models"]["file"])
    for pod in rendered.of("engine"):
        wait = max(spec.start_timeout_s for spec in catalogue.engines)
        assert float(pod.env(DRAIN)) >= stop_s(rendered, "engine") + wait


def test_kubernetes_kills_after_all_that(rendered: Rendered) -> None:
    for component in ("router", "engine"):
        for pod in rendered.of(component):
            before = pre_stop_s(pod) + float(pod.env(DRAIN))
            assert pod.spec["terminationGracePeriodSeconds"] >= before + LEAST_AFTER_S
    # By default the two are equal, and the kill races the drain.
    (head,) = rendered.of("head")
    assert float(head.env(DRAIN)) == 0


def test_routers_leave_load_balancers_first(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    assert pre_stop_s(router) == rendered.all_values["router"]["deregisterSeconds"]


def test_the_old_cluster_outlives_its_streams(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    delay = rendered.service["spec"]["rayClusterDeletionDelaySeconds"]
    assert delay > pre_stop_s(router) + float(router.env("SERVING_REQUEST_TIMEOUT_S"))


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_what_stands_before_waits_longer_than_the_service(everything: Rendered, kind: str) -> None:
    (router,) = everything.of("router")
    longest = float(router.env("SERVING_REQUEST_TIMEOUT_S"))
    (found,) = everything.kind(kind).values()
    if kind == "Ingress":
        notes = found["metadata"]["annotations"]
        seconds = [
            notes[f"nginx.ingress.kubernetes.io/proxy-{w}-timeout"] for w in ("read", "send")
        ]
        assert all(float(each) > longest for each in seconds)
    else:
        assert float(found["spec"]["rules"][0]["timeouts"]["request"].removesuffix("s")) > longest
