"""NetworkPolicies let through what the table of ports in docs/kubernetes.md has, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helm.network import End, may
from tests.helm.rendered import (
    NAMESPACE,
    ROOT,
    SCENARIOS,
    Object,
    Rendered,
    merged,
    render,
    scenario_values,
)

RAY = ("head", "router", "engine")
# Ports that no row names, some of which other programs like.
OTHERS = (22, 80, 443, 2379, 8004, 10000, 11000, 32768, 40000, 60999, 65535)
CALLER = End("callers", {}, "ingress-nginx")
PROMETHEUS = End("Prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
KUBERAY = End("KubeRay", {"app.kubernetes.io/name": "kuberay-operator"}, "kuberay")
STRANGERS = (
    End("a pod beside them", {"app": "other"}, NAMESPACE),
    End("another namespace", {}, "default"),
    End("of another release", {"app.kubernetes.io/name": "serving"}, NAMESPACE),
    End("Prometheus of another namespace", PROMETHEUS.labels, "default"),
    End("a false operator", KUBERAY.labels, "default"),
    End("an address", address="203.0.113.9"),
)


def table() -> dict[tuple[str, int], set[str]]:
    """Who may reach which port of which pod, as the document has it."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split("\n## Security\n")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == ["pod", "port", "what for", "who may reach it", "what guards it"]
    names = {
        "nobody": set(),
        "callers": {"callers"},
        "tests": {"client"},
        "Prometheus": {"Prometheus"},
        "routers": {"router"},
        "KubeRay": {"KubeRay"},
        "Ray's pods": set(RAY),
    }
    found = {}
    for pod, port, _, who, _ in rows[2:]:
        allowed = set().union(*(names[each.strip()] for each in who.split(",")))
        for component in RAY if pod == "all" else (pod,):
            for number in ports(port):
                found[component, number] = allowed
    assert len(found) > 30
    return found


def ports(text: str) -> Iterator[int]:
    if text == "others":
        yield from OTHERS
        return
    first, _, last = text.partition("-")
    yield int(first)
    if last:
        yield from (int(first) + 1, int(last))


def ends(rendered: Rendered) -> list[End]:
    pods = {pod.component: End(pod.component, pod.labels) for pod in rendered.pods}
    return list(pods.values())


@pytest.fixture(scope="module")
def policies() -> list[Object]:
    return list(render(scenario_values("everything")).kind("NetworkPolicy").values())


def test_ports_are_open_to_those_of_the_table_and_no_other(
    everything: Rendered, policies: list[Object]
) -> None:
    pods = {end.name: end for end in ends(everything)}
    sources = [*pods.values(), CALLER, PROMETHEUS, KUBERAY, *STRANGERS]
    wrong = []
    wanted = table()
    every = {port for _, port in wanted}
    for component in (*RAY, "client"):
        for port in sorted(every):
            allowed = wanted.get((component, port), set())
            for source in sources:
                if may(policies, source, pods[component], port) != (source.name in allowed):
                    wrong.append((source.name, component, port))
    assert not wrong


def test_the_table_has_every_port_of_the_pods(everything: Rendered) -> None:
    wanted = table()
    for pod in everything.ray_pods:
        for port in pod.ports.values():
            assert (pod.component, port) in wanted
        for name, port in pod.start.items():
            if name.endswith("-port"):
                assert (pod.component, int(port)) in wanted, name


def test_nobody_reaches_jobs_and_tests(everything: Rendered, policies: list[Object]) -> None:
    for target in ends(everything):
        if target.name not in RAY:
            for source in (*ends(everything), CALLER, PROMETHEUS, KUBERAY, *STRANGERS):
                assert not may(policies, source, target, 8000)


DNS = End("dns", {"k8s-app": "kube-dns"}, "kube-system")
REDIS = End("redis", {}, "data")
OUTSIDE = {
    "the internet": (End("internet", address="203.0.113.9"), 443),
    "the internet's port of a provider": (End("internet", address="203.0.113.9"), 8443),
    "a private address": (End("private", address="10.9.9.9"), 443),
    "the cloud's metadata": (End("metadata", address="169.254.169.254"), 80),
    "the database": (End("database", address="10.20.0.5"), 5432),
    "beside the database": (End("database", address="10.20.0.6"), 5432),
    "redis": (REDIS, 6379),
    "kubernetes": (End("api", address="10.0.0.1"), 6443),
    "mail": (End("internet", address="203.0.113.9"), 25),
}
WAYS_OUT = {
    "router": {"the internet", "the internet's port of a provider", "the database"},
    "engine": {"the internet"},
    "head": {"redis", "kubernetes"},
    "client": set(),
    "download": {"the internet"},
    "migration": {"the database"},
}


def test_ways_out_are_those_that_are_configured(
    everything: Rendered, policies: list[Object]
) -> None:
    for source in ends(everything):
        found = {name for name, (to, port) in OUTSIDE.items() if may(policies, source, to, port)}
        assert found == WAYS_OUT[source.name], source.name
        for protocol in ("UDP", "TCP"):
            assert may(policies, source, DNS, 53, protocol)
        assert not may(policies, source, End("a resolver", address="203.0.113.53"), 53, "UDP")


@pytest.mark.parametrize(
    ("change", "component"),
    [
        ({"cache": {"offline": True}}, "engine"),
        (
            {"models": {"repositories": [], "fetchesImages": False}, "cache": {"download": False}},
            "engine",
        ),
        ({"models": {"providers": []}}, "router"),
        ({"ray": {"autoscaler": {"enabled": False}, "gcs": {"redisAddress": ""}}}, "head"),
    ],
)
def test_what_is_not_configured_is_closed(change: Object, component: str) -> None:
    off = {"models": {"fetchesImages": False}}
    found = render(merged(scenario_values("everything"), off, change))
    policies = list(found.kind("NetworkPolicy").values())
    (source,) = [end for end in ends(found) if end.name == component]
    left = {name for name, (to, port) in OUTSIDE.items() if may(policies, source, to, port)}
    assert left == ({"the database"} if component == "router" else set())


def test_by_default_everybody_may_call_and_nobody_scrapes() -> None:
    found = render(scenario_values("one-gpu"))
    policies = list(found.kind("NetworkPolicy").values())
    (router,) = [end for end in ends(found) if end.name == "router"]
    assert may(policies, CALLER, router, 8000)
    assert may(policies, STRANGERS[-1], router, 8000)
    for port in (8001, 8080):
        assert not may(policies, PROMETHEUS, router, port)


@pytest.mark.parametrize("name", SCENARIOS)
def test_nobody_but_kuberay_reaches_the_dashboard_by_default(name: str) -> None:
    """Whoever does, runs anything in these pods."""
    values = scenario_values(name)
    values.get("networkPolicy", {}).pop("operator", None)
    rendered = render(values)
    policies = list(rendered.kind("NetworkPolicy").values())
    pods = ends(rendered)
    (head,) = [end for end in pods if end.name == "head"]
    for source in (*pods, KUBERAY, CALLER, PROMETHEUS, *STRANGERS):
        # In whatever namespace it runs.
        operator = source.labels == KUBERAY.labels
        assert may(policies, source, head, 8265) is operator, source.name


def test_without_policies_all_is_open(everything: Rendered) -> None:
    (head,) = [end for end in ends(everything) if end.name == "head"]
    assert all(may([], each, head, 8265) for each in STRANGERS)


def test_policies_may_be_left_out() -> None:
    values = merged(scenario_values("one-gpu"), {"networkPolicy": {"enabled": False}})
    assert not render(values).kind("NetworkPolicy")
