"""KubeRay 1.7.0 as it is: what its operator asks of a RayService, and what it would put in itself.

The files that are named are those of ray-operator/controllers/ray at v1.7.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.helm.rendered import ROOT, Object, Pod, Rendered, merged, render, scenario_values

MANUAL = (ROOT / "docs" / "kubernetes.md").read_text()


def test_only_routers_pods_are_callers_to_reach(rendered: Rendered) -> None:
    # The head has no router, and `serve.run`'s proxy is off (test_models.py).
    assert rendered.service["spec"]["excludeHeadPodFromServeSvc"] is True
    service = rendered.service["spec"]["serveService"]
    # KubeRay selects itself, `ray.io/serve=true` of the active cluster (common/service.go).
    assert "selector" not in service["spec"]


def test_the_service_is_that_of_the_values(rendered: Rendered) -> None:
    wanted = rendered.all_values["service"]
    service = rendered.service["spec"]["serveService"]
    (port,) = service["spec"]["ports"]
    assert (service["spec"]["type"], port["port"]) == (wanted["type"], wanted["port"])
    assert service["metadata"].get("annotations", {}) == wanted["annotations"]


def test_the_strategy_is_that_of_the_values(rendered: Rendered) -> None:
    strategy = rendered.service["spec"]["upgradeStrategy"]
    assert strategy == {"type": rendered.all_values["ray"]["upgradeStrategy"]}


def test_rays_version_is_that_of_the_image(rendered: Rendered) -> None:
    """KubeRay decides by it, as about token authentication (utils/validation.go)."""
    version = rendered.cluster["rayVersion"]
    for lock in ("cpu", "cuda"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert re.findall(r"^ray==(\S+)", text, re.MULTILINE) == [version]


def test_the_head_is_kept_by_redis_where_there_is_one(rendered: Rendered) -> None:
    wanted = rendered.all_values["ray"]["gcs"]
    options = rendered.cluster.get("gcsFaultToleranceOptions")
    if not wanted["redisAddress"]:
        assert options is None
        return
    assert options["redisAddress"] == wanted["redisAddress"]
    secret = wanted["redisSecret"]
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": secret}}


def test_redis_may_have_no_password() -> None:
    change = {"ray": {"gcs": {"redisSecret": {"name": ""}}}}
    found = render(merged(scenario_values("everything"), change))
    assert found.cluster["gcsFaultToleranceOptions"] == {"redisAddress": "redis.data.svc:6379"}


def test_each_cluster_has_a_place_of_its_own_in_redis(rendered: Rendered) -> None:
    """The UID of the RayCluster, by default (`configureRedisFT` in common/pod.go). With a name of
    ours the second cluster of an upgrade would take up what the first one's head knows."""
    options = rendered.cluster.get("gcsFaultToleranceOptions", {})
    assert "externalStorageNamespace" not in options
    assert "ray.io/external-storage-namespace" not in annotations(rendered)


def annotations(rendered: Rendered) -> Object:
    """Of the RayService, which KubeRay copies to the RayCluster."""
    found: Object = rendered.service["metadata"].get("annotations", {})
    return found


def test_redis_is_named_in_one_place(rendered: Rendered) -> None:
    """`ValidateRayClusterSpec` (utils/validation.go) refuses the older ways beside the options."""
    (head,) = rendered.of("head")
    assert not {name for name in head.start if name.startswith("redis-")}
    for name in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"):
        assert head.env(name) is None
    assert "ray.io/ft-enabled" not in annotations(rendered)


def test_the_head_has_an_account_of_its_own(rendered: Rendered) -> None:
    """KubeRay gives the role that its autoscaler needs to the account of the head's pod, which must
    be there (`BuildRoleBinding`, `reconcileAutoscalerServiceAccount`); nobody else has that one."""
    (head,) = rendered.of("head")
    mine = head.spec["serviceAccountName"]
    assert mine in rendered.kind("ServiceAccount")
    assert not [each.name for each in rendered.pods if account(each) == mine and each != head]
    for pod in (*rendered.of("router"), *rendered.of("engine")):
        assert account(pod) in rendered.kind("ServiceAccount")


def account(pod: Pod) -> str:
    return str(pod.spec.get("serviceAccountName", "default"))


def test_accounts_have_the_annotations_of_the_values(rendered: Rendered) -> None:
    wanted = rendered.all_values["serviceAccount"]["annotations"]
    for each in rendered.kind("ServiceAccount").values():
        assert each["metadata"].get("annotations", {}) == wanted


def test_rays_container_is_the_first_and_the_only_one(rendered: Rendered) -> None:
    """`RayContainerIndex` is 0. With Never as `restartPolicy` a pod of which another container
    runs on would stay after Ray's end; a native sidecar ends with it."""
    for pod in rendered.ray_pods:
        assert [each["name"].partition("-")[0] for each in pod.spec["containers"]] == ["ray"]
        for each in pod.spec.get("initContainers", ()):
            assert each["restartPolicy"] == "Always"


def test_no_volume_is_put_in_twice(rendered: Rendered) -> None:
    """KubeRay mounts these where nothing is mounted (`addEmptyDir` in common/pod.go)."""
    for pod in rendered.ray_pods:
        mounts = {each["mountPath"]: each["name"] for each in pod.main["volumeMounts"]}
        assert (mounts["/dev/shm"], mounts["/tmp/ray"]) == ("shared-mem", "ray-logs")
        volumes = {each["name"]: each.get("emptyDir") for each in pod.spec["volumes"]}
        assert (volumes["ray-logs"], volumes["shared-mem"]["medium"]) == ({}, "Memory")


def probes(rendered: Rendered) -> Iterator[tuple[Pod, str, Object]]:
    for pod in rendered.ray_pods:
        for word in ("readinessProbe", "livenessProbe"):
            yield pod, word, pod.main[word]


def test_every_pod_has_its_own_probes(rendered: Rendered) -> None:
    """Where one is missing KubeRay puts in its own (`initLivenessAndReadinessProbe`), which asks
    for a router in every worker. Ray's path is `RayNodeHealthPath`."""
    for pod, word, probe in probes(rendered):
        asked = probe["httpGet"]
        if pod.component == "router" and word == "readinessProbe":
            assert asked == {"path": "/-/healthz", "port": "serve"}
        else:
            assert asked["path"] == "/api/healthz"
            assert str(asked["port"]) == pod.start["dashboard-agent-listen-port"]


def test_rays_agent_has_the_page_that_is_asked_for() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    # Without the token, which a kubelet does not have.
    assert "/api/healthz" in PUBLIC_EXACT_PATHS


def test_a_pod_is_given_up_after_the_time_of_the_runbook(rendered: Rendered) -> None:
    assert "the raylet has been away for two minutes" in MANUAL
    for pod, word, probe in probes(rendered):
        away_s = probe["periodSeconds"] * probe["failureThreshold"]
        assert away_s == (120 if word == "livenessProbe" else 15), pod.name


@pytest.mark.parametrize("kind", ["head", "router"])
def test_annotations_of_pods_are_those_of_the_values(rendered: Rendered, kind: str) -> None:
    for pod in rendered.of(kind):
        template = pod.group["template"]
        wanted = rendered.all_values[kind]["podAnnotations"]
        assert template["metadata"].get("annotations", {}) == wanted
