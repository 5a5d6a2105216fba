"""Alerts ask for metrics that there are, and each has its entry in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helm.rendered import CHART, ROOT, Object, Rendered, merged, render, scenario_values

MANUAL = (ROOT / "docs" / "kubernetes.md").read_text()


def rules(rendered: Rendered) -> list[Object]:
    (found,) = rendered.kind("PrometheusRule").values()
    (group,) = found["spec"]["groups"]
    alerts: list[Object] = group["rules"]
    return alerts


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\bserving_\w+", expression))


def known_metrics() -> dict[str, set[str]]:
    """What a router shows, with its labels."""
    from serving.observability.router_metrics import LedgerMetrics, RouterMetrics

    found = RouterMetrics()
    LedgerMetrics(found.registry).watch(
        unwritten=lambda: 0, unshipped=lambda: 0, store_away_s=lambda: 0
    )
    known = {}
    for collector in found.registry._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for name in found.registry._collector_to_names[collector]:
            known[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return known


def test_alerts_ask_for_metrics_that_there_are(everything: Rendered) -> None:
    known = known_metrics()
    for rule in rules(everything):
        for metric in metrics_of(rule["expr"]):
            assert metric in known, (rule["alert"], metric)
        labels = set().union(*(known[name] for name in metrics_of(rule["expr"])))
        for group in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert {each.strip() for each in group.split(",")} <= labels, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in rule["expr"]


def test_alerts_watch_the_jobs_of_the_monitors(everything: Rendered) -> None:
    """Prometheus Operator calls a job NAMESPACE/NAME of its PodMonitor."""
    jobs = {f"models/{name}" for name in everything.kind("PodMonitor")}
    ports = {
        endpoint["port"]
        for monitor in everything.kind("PodMonitor").values()
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    }
    for rule in rules(everything):
        assert set(re.findall(r'job="([^"]*)"', rule["expr"])) <= jobs
        assert set(re.findall(r'endpoint="([^"]*)"', rule["expr"])) <= ports
        assert "job=" in rule["expr"]


def test_states_and_results_are_those_of_the_code(everything: Rendered) -> None:
    values = {
        value
        for rule in rules(everything)
        for value in re.findall(r'(?:outcome|state|result)="([^"]*)"', rule["expr"])
    }
    assert values == {"error", "ready", "open", "misconfigured"}


def test_every_alert_has_its_entry_and_every_entry_its_alert(everything: Rendered) -> None:
    text = MANUAL.split("\n## Alerts\n")[1].split("\n## ")[0]
    entries = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in rules(everything))
    # Of those that are there on a condition, too.
    template = (CHART / "templates" / "alerts.yaml").read_text()
    assert sorted(entries) == sorted(re.findall(r'\(list "(Serving\w+)"', template))
    for rule in rules(everything):
        place = rule["annotations"]["runbook_url"].partition("#")[2]
        assert place == rule["alert"].lower()
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["labels"]["team"] == "ml"


def test_every_probe_has_its_entry(everything: Rendered) -> None:
    text = MANUAL.split("\n## Probes\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    for pod in everything.ray_pods:
        for word in ("readiness", "liveness"):
            path = pod.main[f"{word}Probe"]["httpGet"]["path"]
            wanted = re.compile(rf"(all|.*\b{pod.component}\b.*), {word} \(`{path}`\)")
            assert [row for row in rows if wanted.fullmatch(row)], (pod.name, word)


def test_alerts_of_what_is_not_there_are_left_out() -> None:
    values = merged(
        scenario_values("everything"),
        {
            "store": {"type": "none"},
            "ledger": {"mode": "off"},
            "models": {"providers": []},
            "secrets": {"providers": []},
        },
    )
    names = {rule["alert"] for rule in rules(render(values))}
    assert not any("Ledger" in name or "Store" in name or "Provider" in name for name in names)
    assert "ServingErrors" in names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_prometheus_takes_the_rules(everything: Rendered, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    (found,) = everything.kind("PrometheusRule").values()
    file.write_text(yaml.safe_dump(found["spec"]))
    subprocess.run(["promtool", "check", "rules", str(file)], check=True, timeout=60)
