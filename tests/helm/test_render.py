"""What every scenario renders: names, labels and selectors, and what refers to something else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from click.testing import CliRunner

from serving.cli import main as cli
from tests.helm.rendered import (
    CHART,
    NAMESPACE,
    RELEASE,
    SCENARIOS,
    Rendered,
    scenario_values,
    walk,
)

# What the operator of each scenario has made before.
GIVEN_SECRETS = {
    *("hugging-face", "redis", "providers", "providers-gemini", "providers-gateway", "callers"),
    *("serving-database", "serving-database-owner", "registry"),
}
GIVEN_CLAIMS = {"weights", "our-models", "results"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_passes_helms_own_lint(name: str) -> None:
    report = helm_python.lint(
        CHART, scenario_values(name), strict=True, namespace=NAMESPACE, kube_version="v1.31.0"
    )
    worse = [each for each in report["messages"] if each["severity"] > 1]
    assert (report["errors"], worse) == ([], [])


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_values_of_its_models_are_current(name: str) -> None:
    folder = CHART / "scenarios" / name
    args = ["--group", "urgent-8b=urgent"] if name == "everything" else []
    result = CliRunner().invoke(cli.main, ["render-values", str(folder / "models.yaml"), *args])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (folder / "models-values.yaml").read_text(), (
        f"run: serving render-values {folder / 'models.yaml'} {' '.join(args)}"
    )


def test_everything_is_this_releases(rendered: Rendered) -> None:
    for each in rendered.objects:
        metadata = each["metadata"]
        assert metadata["namespace"] == NAMESPACE, metadata
        assert metadata["labels"]["app.kubernetes.io/instance"] == RELEASE
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert len(metadata["name"]) <= 63
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", metadata["name"])


def test_no_two_objects_have_a_name(rendered: Rendered) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.objects]
    assert len(names) == len(set(names))


def test_it_is_small_enough_for_kubernetes(rendered: Rendered) -> None:
    for each in rendered.objects:
        # etcd takes 1.5 MB; Helm keeps the whole release in a secret of 1 MB.
        assert len(yaml.safe_dump(each)) < 300_000


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return all(labels.get(key) == value for key, value in wanted.items())


def test_every_selector_selects_pods(rendered: Rendered) -> None:
    labels = [pod.labels for pod in rendered.pods]
    for kind in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        for name, each in rendered.kind(kind).items():
            selector = each["spec"].get("podSelector") or each["spec"]["selector"]
            assert any(matches(selector, each) for each in labels), (kind, name)
    for pod in rendered.pods:
        for spread in pod.spec.get("topologySpreadConstraints", ()):
            assert matches(spread["labelSelector"], pod.labels)


def test_what_may_be_lost_with_a_node_is_spread(rendered: Rendered) -> None:
    """Routers over nodes and zones, but for a store that is one node's file; groups over nodes."""
    for pod in (*rendered.of("router"), *rendered.of("engine")):
        spread = pod.spec.get("topologySpreadConstraints", ())
        together = "podAffinity" in pod.spec.get("affinity", {})
        assert bool(spread) != together, pod.name
        keys = {each["topologyKey"] for each in spread}
        assert together or "kubernetes.io/hostname" in keys
        if pod.component == "engine":
            others = [each for each in rendered.of("engine") if each.name != pod.name]
            for each in spread:
                assert not any(matches(each["labelSelector"], other.labels) for other in others)


def test_every_pod_that_may_talk_has_one_policy(rendered: Rendered) -> None:
    policies = rendered.kind("NetworkPolicy").values()
    for pod in rendered.pods:
        found = [each for each in policies if matches(each["spec"]["podSelector"], pod.labels)]
        assert len(found) == 1, pod.name


def test_every_secret_is_there(rendered: Rendered) -> None:
    made = {name: set(each["data"]) for name, each in rendered.kind("Secret").items()}

    def check(name: str, key: str | None) -> None:
        if name in made:
            assert key is None or key in made[name], (name, key)
        else:
            assert name in GIVEN_SECRETS, name

    for each in walk(rendered.objects):
        for word in ("secretKeyRef", "credentials"):
            if isinstance(each.get(word), dict):
                check(each[word]["name"], each[word]["key"])
        if isinstance(each.get("secret"), dict) and "secretName" in each["secret"]:
            check(each["secret"]["secretName"], None)
            for item in each["secret"].get("items", ()):
                check(each["secret"]["secretName"], item["key"])
    check(rendered.cluster["authOptions"]["secretName"], "auth_token")


def test_every_claim_and_account_is_there(rendered: Rendered) -> None:
    claims = {*rendered.kind("PersistentVolumeClaim"), *GIVEN_CLAIMS}
    accounts = rendered.kind("ServiceAccount")
    for pod in rendered.pods:
        for volume in pod.spec["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
        if name := pod.spec.get("serviceAccountName"):
            assert name in accounts


def test_every_mount_has_its_volume(rendered: Rendered) -> None:
    for pod in rendered.pods:
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        assert len(volumes) == len(set(volumes))
        mounted = set()
        for container in pod.containers:
            mounts = container.get("volumeMounts", ())
            paths = [mount["mountPath"] for mount in mounts]
            assert len(paths) == len(set(paths)), pod.name
            mounted |= {mount["name"] for mount in mounts}
        assert mounted == set(volumes), pod.name
    options = rendered.cluster.get("autoscalerOptions", {})
    head = {volume["name"] for volume in rendered.of("head")[0].spec["volumes"]}
    assert {mount["name"] for mount in options.get("volumeMounts", ())} <= head


def test_every_port_that_is_named_is_there(rendered: Rendered) -> None:
    routers, others = rendered.of("router"), [*rendered.of("engine"), *rendered.of("head")]
    (port,) = rendered.service["spec"]["serveService"]["spec"]["ports"]
    assert [pod.ports[port["targetPort"]] for pod in routers] == [8000]
    # An engine's pod is in KubeRay's service too, and must get no callers.
    assert not any(port["targetPort"] in pod.ports for pod in others)
    for monitor in rendered.kind("PodMonitor").values():
        chosen = [p for p in rendered.pods if matches(monitor["spec"]["selector"], p.labels)]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert any(endpoint["port"] in pod.ports for pod in chosen), endpoint
    for pod in rendered.ray_pods:
        for word in ("readinessProbe", "livenessProbe"):
            port = pod.main[word]["httpGet"]["port"]
            assert port in pod.ports or port == int(pod.start["dashboard-agent-listen-port"])


def test_the_way_in_leads_to_the_service(rendered: Rendered) -> None:
    service = rendered.service["spec"]["serveService"]["metadata"]["name"]
    backends = [
        path["backend"]["service"]["name"]
        for ingress in rendered.kind("Ingress").values()
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    backends += [
        backend["name"]
        for route in rendered.kind("HTTPRoute").values()
        for rule in route["spec"]["rules"]
        for backend in rule["backendRefs"]
    ]
    assert set(backends) <= {service}
    test = rendered.of("client")[0]
    assert test.env("URL") == f"http://{service}.{NAMESPACE}.svc:80"


def test_a_budget_leaves_room_for_a_drain(rendered: Rendered) -> None:
    always = {"router": rendered.values["models"]["router"]["replicas"]} | {
        group["name"]: group["always"] for group in rendered.values["models"]["groups"]
    }
    budgets = {
        each["spec"]["selector"]["matchLabels"]["serving/group"]: each["spec"]["minAvailable"]
        for each in rendered.kind("PodDisruptionBudget").values()
    }
    assert budgets == {name: number - 1 for name, number in always.items() if number > 1}


def test_what_the_notes_end_in_is_a_call(rendered: Rendered, tmp_path: Path) -> None:
    lines = rendered.notes.rstrip().splitlines()
    call = "\n".join(lines[-2:])
    assert call.lstrip().startswith("curl http://127.0.0.1:8000/v4/completions")
    assert f'"model": "{rendered.values["models"]["first"]["id"]}"' in call
    # It is a command as bash reads it.
    script = "\n".join(lines[-4:])
    subprocess.run(["bash", "-nc", script], check=True, timeout=10)
    secret, key = re.findall(r"get secret (\S+) -o jsonpath='\{\.data\.(\S+)\}'", script)[0]
    if secret in rendered.kind("Secret"):
        assert key in rendered.kind("Secret")[secret]["data"]


def test_secrets_that_are_made_outlive_the_release(rendered: Rendered) -> None:
    for kind in ("Secret", "PersistentVolumeClaim"):
        for each in rendered.kind(kind).values():
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
