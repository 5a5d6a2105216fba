"""What Prometheus is told to scrape, and with which token."""

from __future__ import annotations

from tests.helm.rendered import Object, Rendered, merged, render, scenario_values


def monitors(rendered: Rendered) -> dict[str, Object]:
    return {
        name.rpartition("-")[2]: each["spec"] for name, each in rendered.kind("PodMonitor").items()
    }


def test_they_are_there_where_they_are_asked_for(rendered: Rendered) -> None:
    wanted = rendered.all_values["monitoring"]
    kinds = {"router", "engine", "ray"} if wanted["podMonitors"] else set()
    assert monitors(rendered).keys() == kinds
    assert bool(rendered.kind("PrometheusRule")) is wanted["alerts"]


def test_ours_are_asked_with_the_token_that_they_want(everything: Rendered) -> None:
    for component in ("router", "engine"):
        (endpoint,) = monitors(everything)[component]["podMetricsEndpoints"]
        (pod, *_) = everything.of(component)
        given = pod.env("SERVING_METRICS_TOKEN")["secretKeyRef"]
        assert endpoint["authorization"] == {"type": "Bearer", "credentials": given}
    # Ray's ask for none, and are not given ours.
    for endpoint in monitors(everything)["ray"]["podMetricsEndpoints"]:
        assert "authorization" not in endpoint


def test_they_look_at_pods_of_the_release_alone(everything: Rendered) -> None:
    for spec in monitors(everything).values():
        assert spec["namespaceSelector"] == {"matchNames": ["models"]}
        assert spec["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "my-release"


def test_their_times_and_labels_are_those_of_the_values(everything: Rendered) -> None:
    wanted = everything.all_values["monitoring"]
    for spec in monitors(everything).values():
        for endpoint in spec["podMetricsEndpoints"]:
            assert (endpoint["interval"], endpoint["path"]) == (wanted["interval"], "/metrics")
    for kind in ("PodMonitor", "PrometheusRule"):
        for each in everything.kind(kind).values():
            labels = each["metadata"]["labels"]
            assert labels == {**labels, **wanted["labels"]}


def test_every_pod_of_rays_is_scraped(everything: Rendered) -> None:
    """The head's ports beyond the node's are its autoscaler's and its dashboard's."""
    named = {each["port"] for each in monitors(everything)["ray"]["podMetricsEndpoints"]}
    for pod in everything.ray_pods:
        assert {name for name in pod.ports if name.endswith("metrics")} <= named
        assert "metrics" in pod.ports


def test_without_engines_none_are_watched() -> None:
    change = {
        "monitoring": {"podMonitors": True},
        "networkPolicy": {"prometheus": [{"podSelector": {}}]},
    }
    assert "engine" not in monitors(render(merged(scenario_values("hosted"), change)))
