from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.observability import engine_metrics, router_metrics
from serving.observability.engine_metrics import AdapterMetrics
from serving.observability.router_metrics import RouterMetrics

BOUNDED = {
    "code",
    "model",
    "kind",
    "endpoint",
    "outcome",
    "state",
    "result",
    "provider",
    "phase",
    "priority",
    "reason",
    # Whose limit it is (account, key, model), and which.
    "of",
    "limit",
}
OPERATIONS = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
UNITS = ("_seconds", "_rows")


def registries() -> Iterator[CollectorRegistry]:
    yield RouterMetrics().registry
    engine = CollectorRegistry()
    for name, cls in (vars(router_metrics) | vars(engine_metrics)).items():
        if name.endswith("Metrics") and cls is not RouterMetrics:
            cls(engine)
    yield engine


def families() -> list[Metric]:
    """Ours; the `process_*` ones beside them are prometheus_client's."""
    every = [family for registry in registries() for family in registry.collect()]
    return [family for family in every if not family.name.startswith("process_")]


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_names_units_and_help(family: Metric) -> None:
    assert family.name.startswith("serving_")
    assert len(family.documentation) > 10
    if family.type == "histogram":
        assert family.name.endswith(UNITS)
    if family.type == "gauge":
        assert not family.name.endswith("_total")


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_the_documentation_says_what_it_is(family: Metric) -> None:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    rows = [line for line in OPERATIONS.splitlines() if line.startswith("| `serving_")]
    assert any(f"`{name}`" in row for row in rows), name


def test_labels_are_bounded() -> None:
    collectors = [each for registry in registries() for each in registry._collector_to_names]
    assert {name for each in collectors for name in getattr(each, "_labelnames", ())} == BOUNDED


def test_two_routers_in_one_process_do_not_meet() -> None:
    one, two = RouterMetrics(), RouterMetrics()
    one.retries.labels("m").inc()
    assert two.registry.get_sample_value("serving_retries_total", {"model": "m"}) is None


def test_the_text_can_be_parsed() -> None:
    ours = RouterMetrics()
    ours.requests.labels('odd"name', "base", "/v4/completions", "ok").inc()
    names = {family.name for family in text_string_to_metric_families(ours.text().decode())}
    assert "serving_requests" in names


def test_adapter_loads_are_counted_by_result() -> None:
    registry = CollectorRegistry()
    adapters = AdapterMetrics(registry)
    with adapters.loading():
        pass
    with pytest.raises(ValueError, match="no"), adapters.loading():
        raise ValueError("no")
    adapters.unloaded()
    loads = "serving_adapter_loads_total"
    assert registry.get_sample_value(loads, {"result": "ok"}) == 1
    assert registry.get_sample_value(loads, {"result": "error"}) == 1
    assert registry.get_sample_value("serving_adapters_held") == 0
