"""Secrets that the chart makes are made once: a release finds those of the last one and keeps them.

Helm itself, installing as far as it can without writing, beside a server that has the objects.
"""

from __future__ import annotations

import base64

import helm_python
import yaml

from tests.helm.api_server import api_server
from tests.helm.rendered import (
    CHART,
    LOADER,
    NAMESPACE,
    RELEASE,
    Object,
    merged,
    scenario,
    scenario_values,
)

KUBECONFIG = "apiVersion: v1\nkind: Config\n"


def secrets(values: Object, there: list[Object]) -> dict[str, Object]:
    """What Helm would write into a cluster that has these objects."""
    with (
        api_server(scenario("everything").objects, there) as url,
        helm_python.Config(
            kube_apiserver=url,
            kubeconfig_content=KUBECONFIG,
            namespace=NAMESPACE,
            storage_driver="memory",
        ) as cluster,
        helm_python.Chart.load(CHART) as chart,
    ):
        release = cluster.install(chart, RELEASE, values, namespace=NAMESPACE, dry_run="server")
    written = [each for each in yaml.load_all(release["manifest"], Loader=LOADER) if each]
    return {each["metadata"]["name"]: each for each in written if each["kind"] == "Secret"}


def owned(secret: Object) -> Object:
    """As it lies in a cluster; Helm refuses what no release of this name has made."""
    notes = {
        "meta.helm.sh/release-name": RELEASE,
        "meta.helm.sh/release-namespace": NAMESPACE,
    }
    return merged(secret, {"metadata": {"annotations": notes}})


def test_the_next_release_keeps_every_secret() -> None:
    values = scenario_values("cpu-demo")
    first = secrets(values, [])
    assert len(first) == 2
    second = secrets(values, [owned(each) for each in first.values()])
    assert {name: each["data"] for name, each in second.items()} == {
        name: each["data"] for name, each in first.items()
    }


def test_what_is_missing_is_made_beside_what_is_kept() -> None:
    """As after an upgrade from a chart that had one secret fewer, or a key that was taken out."""
    values = scenario_values("cpu-demo")
    first = secrets(values, [])
    name = f"{RELEASE}-secrets"
    kept = {key: value for key, value in first[name]["data"].items() if key != "metrics-token"}
    second = secrets(values, [owned({**first[name], "data": kept})])[name]["data"]
    assert second.keys() == first[name]["data"].keys()
    assert {key: second[key] for key in kept} == kept
    assert second["metrics-token"] != first[name]["data"]["metrics-token"]


def test_one_that_is_given_is_not_made() -> None:
    named = {
        "clusterToken": {"name": "mine"},
        "metricsToken": {"name": "mine"},
        "rayToken": {"name": "rays"},
    }
    found = secrets(merged(scenario_values("cpu-demo"), {"secrets": named}), [])
    assert {name: set(each["data"]) for name, each in found.items()} == {
        f"{RELEASE}-secrets": {"keys", "caller"}
    }
    every = named | {"apiKeys": {"name": "mine"}, "callerKey": {"name": "mine"}}
    assert not secrets(merged(scenario_values("cpu-demo"), {"secrets": every}), [])


def test_secrets_are_long_enough() -> None:
    """At least 160 bits, of letters and digits."""
    for each in secrets(scenario_values("cpu-demo"), []).values():
        for name, data in each["data"].items():
            value = base64.b64decode(data).decode().partition(" ")[0].removeprefix("sk-")
            assert value.isalnum(), name
            assert len(value) >= 40, name
