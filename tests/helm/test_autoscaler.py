"""Ray's autoscaler, as KubeRay starts it, asks for the pods of the plan: by its own code.

`ray kuberay-autoscaler` reads groups and options from the RayCluster and asks KubeRay for pods by
what Ray Serve wants to place (ray/autoscaler/v2, Ray 2.60). Here its reader and its scheduler get
what the chart renders; KubeRay's operator and the API in between are not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from serving.catalogue.load import load_text
from tests.helm.rendered import NAMESPACE, SCENARIOS, Rendered, merged, render, scenario_values


@pytest.fixture(params=SCENARIOS, scope="module")
def scaled(request: pytest.FixtureRequest) -> Rendered:
    """With the autoscaler, also where a scenario has it off."""
    return render(
        merged(scenario_values(request.param), {"ray": {"autoscaler": {"enabled": True}}})
    )


def autoscaling(rendered: Rendered) -> Any:
    """What Ray's autoscaler makes of the RayCluster; it validates it by a schema of its own."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    custom = {"metadata": {"name": "c", "namespace": NAMESPACE}, "spec": rendered.cluster}
    return AutoscalingConfig(autoscaling_config._derive_autoscaling_config_from_ray_cr(custom))


def asked_for(rendered: Rendered, wanted: Iterable[dict[str, float]]) -> dict[str, int]:
    """The pods that its scheduler asks for, where nothing but the head runs yet."""
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = autoscaling(rendered)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        idle_timeout_s=config.get_idle_timeout_s(),
        resource_requests=ResourceRequestUtil.group_by_count(
            [ResourceRequestUtil.make(each) for each in wanted]
        ),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {each.instance_type: each.count for each in reply.to_launch}


def demands(rendered: Rendered, more: int = 0) -> list[dict[str, float]]:
    """What Ray Serve asks for while all models are awake, with `more` replicas of each."""
    from ray.serve._private.utils import import_attr  # as Ray Serve finds a builder

    catalogue = load_text(rendered.values["models"]["file"])
    of_model = {spec.id: spec.replicas for spec in catalogue.engines}
    engines = rendered.values["models"]["engines"]
    replicas = {each["app"]: of_model[each["id"]] for each in engines}
    found = []
    for application in rendered.serve["applications"]:
        built = import_attr(application["import_path"])(application["args"])
        options = built._bound_deployment.ray_actor_options
        asked = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus") or 0}
        asked |= options["resources"]
        count = replicas.get(application["name"], catalogue.router.replicas)
        found += [{name: part for name, part in asked.items() if part}] * (count + more)
    return found


def planned(rendered: Rendered) -> dict[str, int]:
    groups = rendered.cluster["workerGroupSpecs"]
    return {each["groupName"]: each["replicas"] for each in groups if each["replicas"]}


def test_it_is_the_second_version_with_the_times_of_the_values(rendered: Rendered) -> None:
    wanted = rendered.all_values["ray"]["autoscaler"]
    cluster = rendered.cluster
    assert cluster["enableInTreeAutoscaling"] is wanted["enabled"]
    assert ("autoscalerOptions" in cluster) is wanted["enabled"]
    if wanted["enabled"]:
        options = cluster["autoscalerOptions"]
        # `IsAutoscalingV2Enabled`; KubeRay then sets RAY_enable_autoscaler_v2 itself.
        assert options["version"] == "v2"
        assert autoscaling(rendered).get_idle_timeout_s() == wanted["idleSeconds"]
        assert options["resources"] == wanted["resources"]


def test_no_pod_is_to_be_started_again_in_its_place(rendered: Rendered) -> None:
    """KubeRay refuses the second version with another `restartPolicy` than Never, which it sets
    itself (`ValidateRayClusterSpec` in utils/validation.go), and with this variable beside it."""
    for pod in rendered.ray_pods:
        assert pod.spec.get("restartPolicy", "Never") == "Never"
        assert pod.env("RAY_enable_autoscaler_v2") is None


def test_it_asks_for_the_pods_of_the_plan(scaled: Rendered) -> None:
    assert asked_for(scaled, demands(scaled)) == planned(scaled)


def test_it_asks_for_no_pod_but_routers_while_all_sleep(scaled: Rendered) -> None:
    assert asked_for(scaled, []) == {"router": scaled.values["models"]["router"]["replicas"]}


def test_it_asks_for_more_up_to_the_room(scaled: Rendered) -> None:
    room = scaled.all_values["ray"]["autoscaler"]["room"]
    most = {name: count + room for name, count in planned(scaled).items()}
    assert asked_for(scaled, demands(scaled, room + 1)) == most


def test_nothing_is_placed_on_the_head(scaled: Rendered) -> None:
    """It has no CPU, no GPU, and nothing that a replica asks for by name."""
    config = autoscaling(scaled)
    head = config.get_node_type_configs()[config.get_head_node_type()].resources
    assert {name for name, part in head.items() if part} == {"memory"}


def test_without_it_the_plans_pods_are_there_from_the_first() -> None:
    change = {"ray": {"autoscaler": {"enabled": False}}}
    found = render(merged(scenario_values("everything"), change))
    for group in found.cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    assert "autoscalerOptions" not in found.cluster
