"""Which nodes each pod may be put on, and whose place it takes there: labels, taints, priority."""

from __future__ import annotations

import pytest

from tests.helm.nodes import Node, takes
from tests.helm.rendered import Object, Pod, Rendered, merged, render, scenario_values

GPU = ("nvidia.com/gpu", "present", "NoSchedule")
# As NVIDIA's feature discovery labels an L4 and an H100, in MiB.
L4 = {"nvidia.com/gpu.memory": "23034"}
H100 = {"nvidia.com/gpu.memory": "81559"}


def where(values: Object, pod: Pod) -> Object:
    """The values that say where a pod may be: `head`, `router`, or its group's."""
    if pod.component == "engine":
        found: Object = values["engine"]["groups"].get(pod.name, {})
    else:
        found = values.get(pod.component, {})
    return found


def group_of(rendered: Rendered, pod: Pod) -> Object:
    (found,) = [each for each in rendered.values["models"]["groups"] if each["name"] == pod.name]
    assert isinstance(found, dict)
    return found


def tolerations(rendered: Rendered, pod: Pod) -> list[Object]:
    """Of the values: those of all GPUs, and the group's own beside them."""
    values = rendered.all_values
    of_gpus = pod.component == "engine" and group_of(rendered, pod)["gpus"] > 0
    found = [*values["engine"]["tolerations"]] if of_gpus else []
    return found + where(values, pod).get("tolerations", [])


def selector(rendered: Rendered, pod: Pod) -> Object:
    """Of the values: the labels of its GPUs' size, and the group's own, which come first."""
    values = rendered.all_values
    found: Object = {}
    if pod.component == "engine" and (memory := group_of(rendered, pod)["gpuMemoryGiB"]):
        found = values["engine"]["nodeSelectors"].get(f"{memory:g}", {})
    return merged(found, where(values, pod).get("nodeSelector", {}))


def test_a_pod_bears_the_taints_of_its_values_and_no_other(rendered: Rendered) -> None:
    for pod in rendered.pods:
        assert pod.spec.get("tolerations", []) == tolerations(rendered, pod), pod.name


def test_a_pod_selects_the_nodes_of_its_values_and_no_other(rendered: Rendered) -> None:
    for pod in rendered.pods:
        assert pod.spec.get("nodeSelector", {}) == selector(rendered, pod), pod.name


def test_a_pod_has_the_priority_of_its_values_and_no_other(rendered: Rendered) -> None:
    for pod in rendered.pods:
        wanted = where(rendered.all_values, pod).get("priorityClassName", "")
        assert pod.spec.get("priorityClassName", "") == wanted, pod.name


def test_what_runs_without_a_gpu_stays_off_gpus(rendered: Rendered) -> None:
    """By the taint that GPU pools have, and with the runtime that they ask for."""
    runtime = rendered.all_values["engine"]["runtimeClassName"]
    for pod in rendered.pods:
        wants = pod.component == "engine" and group_of(rendered, pod)["gpus"] > 0
        large = Node({**selector(rendered, pod), "nvidia.com/gpu.memory": "999999"}, (GPU,))
        assert takes(large, pod) is wants, pod.name
        assert pod.spec.get("runtimeClassName", "") == (runtime if wants else ""), pod.name


def test_replicas_are_put_on_gpus_that_are_large_enough(rendered: Rendered) -> None:
    for pod in rendered.of("engine"):
        if needed := group_of(rendered, pod)["gpuMemoryGiB"]:
            labels, key = selector(rendered, pod), "nvidia.com/gpu.memory"
            assert takes(Node({**labels, key: str(int(needed * 1024 * 0.95))}, (GPU,)), pod)
            assert not takes(Node({**labels, key: str(int(needed * 1024 * 0.85))}, (GPU,)), pod)
            assert not takes(Node(labels, (GPU,)), pod)


@pytest.mark.parametrize(
    ("node", "pods"),
    [
        (Node({"pool": "system"}, (("system", "", "NoSchedule"),)), {"head"}),
        (Node({"pool": "routers"}, (("routers", "", "NoExecute"),)), {"router"}),
        (Node({"pool": "l4", **L4}, (GPU,)), {"gpu-1x24", "gpu-1"}),
        (Node(L4, (GPU,)), {"gpu-1"}),
        (Node({"pool": "reserved", **L4}, (GPU, ("reserved", "urgent", "NoSchedule"))), {"urgent"}),
        (Node({"pool": "reserved", **L4}, (GPU, ("reserved", "others", "NoSchedule"))), set()),
        (Node({"pool": "reserved"}, (GPU, ("reserved", "urgent", "NoSchedule"))), set()),
        # Whose GPUs' size is not known needs a node with a GPU, and that is a resource.
        (Node(), {"cpu-2", "gpu-1"}),
    ],
)
def test_each_pool_has_the_pods_that_it_is_for(
    everything: Rendered, node: Node, pods: set[str]
) -> None:
    """Of Ray's; jobs and the test may run wherever nothing keeps them out."""
    assert {pod.name for pod in everything.ray_pods if takes(node, pod)} == pods


def test_models_of_one_size_share_the_nodes_of_that_size() -> None:
    large = Node({"cloud.example.com/gpu": "h100", **H100}, (GPU,))
    pods = render(scenario_values("eight-models")).of("engine")
    assert {pod.name for pod in pods if takes(large, pod)} == {pod.name for pod in pods}
    other = Node(H100, (GPU,))
    assert {pod.name for pod in pods if takes(other, pod)} == {"gpu-1x24", "gpu-1x12"}


def test_a_groups_own_labels_come_before_those_of_its_size() -> None:
    change = {"engine": {"groups": {"gpu-1x24": {"nodeSelector": {"pool": "a100", "a": "b"}}}}}
    found = render(merged(scenario_values("everything"), change))
    selected = {pod.name: pod.spec.get("nodeSelector") for pod in found.of("engine")}
    assert selected["gpu-1x24"] == {"pool": "a100", "a": "b"}
    assert selected["urgent"] == {"pool": "reserved"}


def test_without_the_label_of_memory_nodes_are_taken_as_they_are() -> None:
    change = {"engine": {"matchGpuMemory": False}}
    for pod in render(merged(scenario_values("one-gpu"), change)).of("engine"):
        assert takes(Node({}, (GPU,)), pod)


def test_a_model_with_a_priority_is_alone_in_its_group(everything: Rendered) -> None:
    """Or others would have it too."""
    for pod in everything.of("engine"):
        if pod.spec.get("priorityClassName"):
            assert len(group_of(everything, pod)["models"]) == 1


def test_spread_is_as_strict_as_the_values_say(rendered: Rendered) -> None:
    wanted = rendered.all_values["topology"]["whenUnsatisfiable"]
    for pod in rendered.ray_pods:
        for each in pod.spec.get("topologySpreadConstraints", ()):
            assert each["maxSkew"] == 1
            strict = wanted if pod.component == "router" else "ScheduleAnyway"
            assert each["whenUnsatisfiable"] == strict


def test_routers_are_spread_over_zones_too(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    keys = {each["topologyKey"] for each in router.spec.get("topologySpreadConstraints", ())}
    assert keys in ({"kubernetes.io/hostname", "topology.kubernetes.io/zone"}, set())
    # But for a store that is a file on one node.
    assert bool(keys) is (rendered.all_values["store"]["type"] != "sqlite")


def test_engines_may_fill_nodes_one_by_one() -> None:
    change = {"topology": {"spreadEngines": False}}
    for pod in render(merged(scenario_values("everything"), change)).of("engine"):
        assert "topologySpreadConstraints" not in pod.spec
