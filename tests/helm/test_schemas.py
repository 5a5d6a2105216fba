"""Strict validation: Kubernetes' schemas of several versions, and those of the custom resources."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.helm.rendered import LOADER, ROOT, Object, Rendered, merged, render, scenario_values

FOLDER = Path(__file__).parent / "schemas"
CUSTOM = {
    "RayService": "rayservice",
    "PodMonitor": "podmonitor",
    "PrometheusRule": "prometheusrule",
    "HTTPRoute": "httproute",
}
# The oldest that Chart.yaml allows, and the newest.
VERSIONS = ("1.29", "1.33", "1.37")
# The whole schemas, a megabyte each, where a checkout has them beside it.
KUBERAY = ROOT.parent / "shared" / "kuberay" / "ray.io_rayservices.yaml"


def test_the_oldest_version_is_that_of_the_chart() -> None:
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(rendered: Rendered, version: str) -> None:
    for each in kubernetes_objects(rendered):
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{each['kind']} {each['metadata']}: {list(error.path)}: {error.message}")


def kubernetes_objects(rendered: Rendered) -> list[Object]:
    """All that are of Kubernetes' own kinds, also where they are parts of others."""
    found = [each for each in rendered.objects if each["kind"] not in CUSTOM]
    for pod in rendered.ray_pods:
        found.append(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name}, "spec": pod.spec}
        )
    service = rendered.service["spec"]["serveService"]
    found.append({"apiVersion": "v1", "kind": "Service", **service})
    if options := rendered.cluster.get("autoscalerOptions"):
        parts = ("env", "securityContext", "volumeMounts", "resources")
        container = {name: options[name] for name in parts}
        spec = {"containers": [{"name": "autoscaler", **container}]}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    return found


def test_the_validation_would_notice(rendered: Rendered) -> None:
    pod = {"name": "p"}
    spec = {"containers": [{"name": "c", "imagee": "i"}]}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec}, "1.37", strict=True
        )


def test_custom_resources_fit_their_schemas(rendered: Rendered) -> None:
    for each in rendered.objects:
        if each["kind"] in CUSTOM:
            schema = json.loads((FOLDER / f"{CUSTOM[each['kind']]}.json").read_text())
            check(schema, each)


@pytest.mark.parametrize("unknown", ["spec", "spec.rayClusterConfig", "spec.rayClusterConfig.x"])
def test_a_field_that_kuberay_does_not_know_is_refused(everything: Rendered, unknown: str) -> None:
    schema = json.loads((FOLDER / "rayservice.json").read_text())
    broken = json.loads(json.dumps(everything.service))
    place = broken
    for word in unknown.split("."):
        place = place.setdefault(word, {})
    place["none"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(schema, broken)


@pytest.mark.skipif(
    not KUBERAY.exists(), reason="KubeRay's own schemas are not beside this checkout"
)
def test_kuberays_whole_schema_takes_it(rendered: Rendered) -> None:
    check(whole(), rendered.service)


@functools.cache
def whole() -> Any:
    crd = yaml.load(KUBERAY.read_text(), Loader=LOADER)
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    return strict(version["schema"]["openAPIV3Schema"])


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON Schema that refuses what it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items() if name != "format"}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    open_end = "x-kubernetes-preserve-unknown-fields" in found or "additionalProperties" in found
    if isinstance(found.get("properties"), dict) and not open_end:
        found["additionalProperties"] = False
    return found


def check(schema: Any, value: Object) -> None:
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(value)
    )
    if error is not None:
        error.message = f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        raise error


def test_a_cluster_without_an_autoscaler_fits_too() -> None:
    values = merged(scenario_values("everything"), {"ray": {"autoscaler": {"enabled": False}}})
    found = render(values)
    schema = json.loads((FOLDER / "rayservice.json").read_text())
    check(schema, found.service)
    for group in found.cluster["workerGroupSpecs"]:
        # KubeRay 1.7.0 asks for this where nothing scales (utils/validation.go).
        assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
