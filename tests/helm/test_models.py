"""One models file is the source of the local run, of the plan and of the pods."""

from __future__ import annotations

import math
from typing import Any

from deployments.environment import serve_environment
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.load import load_text
from serving.catalogue.plan import plan
from tests.helm.rendered import Pod, Rendered

GPU = "nvidia.com/gpu"


def catalogue(rendered: Rendered) -> Catalogue:
    return load_text(rendered.values["models"]["file"])


def gpus(pod: Pod) -> int:
    resources = pod.main["resources"]
    assert resources["limits"].get(GPU, 0) == resources["requests"].get(GPU, 0)
    return int(resources["limits"].get(GPU, 0))


def memory_of(pod: Pod) -> float | None:
    """Of each GPU, as the node's label must say, in GiB."""
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity")
    if affinity is None:
        return None
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (wanted,) = term["matchExpressions"]
    assert (wanted["key"], wanted["operator"]) == ("nvidia.com/gpu.memory", "Gt")
    return int(wanted["values"][0]) / 1024 / 0.9


def test_the_pods_have_the_gpus_of_the_plan(rendered: Rendered) -> None:
    planned = plan(catalogue(rendered).engines)
    found: dict[float | None, int] = {}
    for pod in rendered.of("engine"):
        if gpus(pod):
            memory = memory_of(pod)
            size = None if memory is None else round(memory)
            found[size] = found.get(size, 0) + gpus(pod) * pod.group["replicas"]
    assert found == {size and round(size): count for size, count in planned.gpus.items()}


def test_every_replica_has_a_pod_that_holds_it(rendered: Rendered) -> None:
    groups = {pod.name: pod for pod in rendered.of("engine")}
    places = dict.fromkeys(groups, 0)
    specs = {spec.id: spec for spec in catalogue(rendered).engines}
    for engine in rendered.values["models"]["engines"]:
        spec, pod = specs.pop(engine["id"]), groups[engine["group"]]
        places[pod.name] += spec.replicas
        assert gpus(pod) == spec.gpus_per_replica
        assert int(pod.start["num-gpus"]) == spec.gpus_per_replica
        assert int(pod.start["num-cpus"]) >= spec.cpus
        asked = pod.main["resources"]["requests"]["cpu"]
        assert int(asked.removesuffix("m")) > spec.cpus * 1000
    assert not specs
    assert places == {name: pod.group["replicas"] for name, pod in groups.items()}


def test_a_pod_takes_one_replica(rendered: Rendered) -> None:
    for pod in (*rendered.of("router"), *rendered.of("engine")):
        # In the shell's quotes, as KubeRay passes it to `ray start`.
        assert pod.start["resources"] == f'"{{\\"{pod.name}\\": 1}}"'
    (head,) = rendered.of("head")
    assert (head.start["num-cpus"], head.start["num-gpus"]) == ("0", "0")


def test_routers_have_pods_of_their_own(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    wanted = catalogue(rendered).router
    assert router.group["replicas"] == wanted.replicas
    assert int(router.start["num-cpus"]) == math.ceil(wanted.cpus)
    assert rendered.cluster["workerGroupSpecs"][0]["groupName"] == "router"


def test_ray_serve_takes_the_configuration(rendered: Rendered) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(rendered.serve)
    assert config.proxy_location == "Disabled"
    names = [application.name for application in config.applications]
    assert all(application.route_prefix is None for application in config.applications)
    from deployments.app import run_targets

    assert names == [target.name for target in run_targets(catalogue(rendered))]


def test_what_is_built_fits_the_pods(rendered: Rendered) -> None:
    from ray.serve._private.utils import import_attr  # as Ray Serve finds a builder

    pods = {pod.name: pod for pod in rendered.ray_pods}
    for application in rendered.serve["applications"]:
        built = import_attr(application["import_path"])(application["args"])
        options: dict[str, Any] = built._bound_deployment.ray_actor_options
        ((group, one),) = options["resources"].items()
        pod = pods[group]
        assert one == 1
        assert options["num_cpus"] <= int(pod.start["num-cpus"])
        assert (options.get("num_gpus") or 0) == int(pod.start["num-gpus"])


def test_pods_have_the_environment_that_ray_reads(rendered: Rendered) -> None:
    # KubeRay sets the mode of authentication itself.
    wanted = {k: v for k, v in serve_environment().items() if k != "RAY_AUTH_MODE"}
    assert rendered.cluster["authOptions"]["mode"] == "token"
    for pod in rendered.ray_pods:
        assert {name: pod.env(name) for name in wanted} == wanted


def test_routers_and_engines_know_the_settings(rendered: Rendered) -> None:
    from serving.settings import Settings

    for pod in rendered.ray_pods:
        given = {
            each["name"].removeprefix("SERVING_").lower(): each["value"]
            for each in pod.main["env"]
            if each["name"].startswith("SERVING_") and "value" in each
        }
        assert given.keys() <= Settings.model_fields.keys()
        Settings(**given)  # of the right kinds


def test_a_providers_key_is_where_the_models_file_looks(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    mounts = {mount["mountPath"] for mount in router.main["volumeMounts"]}
    known = catalogue(rendered)
    for spec in known.upstreams:
        provider = known.providers[spec.provider]
        if provider.api_key_file:
            assert provider.api_key_file in mounts or any(
                provider.api_key_file.startswith(f"{mount}/") for mount in mounts
            )
        else:
            assert router.env(provider.api_key_env or "")["secretKeyRef"]


def test_a_change_of_the_models_file_reaches_the_routers(everything: Rendered) -> None:
    """KubeRay deploys when `serveConfigV2` changes; a change of a comment is one."""
    text = everything.values["models"]["file"]
    for application in everything.serve["applications"]:
        assert application["args"]["models_yaml"] == text
