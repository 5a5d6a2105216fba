"""What the chart renders, by Helm's own engine, as objects that tests ask."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
SCENARIOS = sorted(path.name for path in (CHART / "scenarios").iterdir())
RELEASE, NAMESPACE = "my-release", "models"
DEFAULTS: Any = yaml.safe_load((CHART / "values.yaml").read_text())

Object = dict[str, Any]
# libyaml's, where PyYAML has it: five times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Pod:
    """A pod as Kubernetes would have it: of a worker group with what KubeRay adds."""

    name: str
    labels: dict[str, str]
    spec: Object
    start: dict[str, str] = field(default_factory=dict)
    group: Object = field(default_factory=dict)

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def main(self) -> Object:
        container: Object = self.spec["containers"][0]
        return container

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.main.get("ports", ())}

    def env(self, name: str) -> Any:
        """The value of a variable, or where it comes from; None if there is none."""
        for each in self.main["env"]:
            if each["name"] == name:
                return each.get("value", each.get("valueFrom"))
        return None


@dataclass(frozen=True)
class Rendered:
    """Everything of one rendering; `values` are those that were given."""

    values: Object
    objects: list[Object]
    notes: str

    def kind(self, kind: str) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    @functools.cached_property
    def all_values(self) -> Object:
        """With the chart's defaults."""
        return merged(DEFAULTS, self.values)

    @property
    def service(self) -> Object:
        (found,) = self.kind("RayService").values()
        return found

    @property
    def cluster(self) -> Object:
        config: Object = self.service["spec"]["rayClusterConfig"]
        return config

    @property
    def serve(self) -> Object:
        config = yaml.load(self.service["spec"]["serveConfigV2"], Loader=LOADER)
        assert isinstance(config, dict)
        return config

    @property
    def ray_pods(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.component in ("head", "router", "engine")]

    @functools.cached_property
    def pods(self) -> list[Pod]:
        return list(self._pods())

    def of(self, component: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.component == component]

    def _pods(self) -> Iterator[Pod]:
        head = self.cluster["headGroupSpec"]
        yield self._ray_pod("head", head, "headgroup")
        for group in self.cluster["workerGroupSpecs"]:
            yield self._ray_pod(group["groupName"], group, group["groupName"])
        for name, job in self.kind("Job").items():
            template = job["spec"]["template"]
            yield Pod(name, template["metadata"]["labels"], template["spec"])
        for name, pod in self.kind("Pod").items():
            yield Pod(name, pod["metadata"]["labels"], pod["spec"])

    def _ray_pod(self, name: str, group: Object, group_label: str) -> Pod:
        """With KubeRay's labels, as `labelPod` and `BuildPod` set them (controllers/ray/common)."""
        template = group["template"]
        kuberays = {
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator",
            "ray.io/is-ray-node": "yes",
        }
        kept = {
            "ray.io/group": group_label,
            "ray.io/serve": "false" if group_label == "headgroup" else "true",
        }
        labels = {**kuberays, **template["metadata"]["labels"], **kept}
        return Pod(name, labels, template["spec"], group["rayStartParams"], group)


def merged(*values: Mapping[str, Any]) -> Object:
    """As Helm merges several `-f`: mappings key by key, everything else as a whole."""
    found: Object = {}
    for each in values:
        for key, value in each.items():
            old = found.get(key)
            both = isinstance(value, Mapping) and isinstance(old, Mapping)
            found[key] = merged(old, value) if both and old is not None else value
    return found


def scenario_values(name: str) -> Object:
    folder = CHART / "scenarios" / name
    files = (folder / "models-values.yaml", folder / "values.yaml")
    return merged(*(yaml.load(file.read_text(), Loader=LOADER) for file in files))


def render(values: Object, **more: Any) -> Rendered:
    """Raises helm_python.HelmError as Helm refuses to install."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE, **more)
    notes = files.pop("serving/templates/NOTES.txt")
    objects = [
        each
        for text in files.values()
        for each in yaml.load_all(text, Loader=LOADER)
        if each is not None
    ]
    return Rendered(values, objects, notes)


@functools.cache
def scenario(name: str) -> Rendered:
    return render(scenario_values(name))


def walk(value: Any) -> Iterator[Any]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)
