"""The parser against prometheus_client's, which writes the pages."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.measure.prometheus import Sample, is_counter, parse

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@given(st.lists(st.tuples(texts, texts, st.floats(allow_nan=False)), max_size=5))
def test_what_prometheus_client_writes(values: list[tuple[str, str, float]]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("vllm:gauge", "A gauge.\nOf two lines.", ["model", "x"], registry=registry)
    histogram = Histogram("h_seconds", "A histogram.", ["model"], registry=registry)
    Counter("c", "A counter.", registry=registry).inc(3)
    for model, x, value in values:
        gauge.labels(model, x).set(value)
        histogram.labels(model).observe(0.5)
    page = generate_latest(registry).decode()
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert {(one.name, one.labels, one.value) for one in parse(page)} == theirs


def test_lines_of_all_kinds() -> None:
    page = (
        "# HELP a_total something\n# TYPE a_total counter\n"
        'a_total{model="m, \\"x\\" {y} \\\\ \\n",le="+Inf"} 3 1700000000000\n'
        "b 1e3\nc{} +Inf\nd NaN\nbroken{\nalso broken x\n\n"
    )
    found = list(parse(page))
    assert found[0] == Sample("a_total", (("le", "+Inf"), ("model", 'm, "x" {y} \\ \n')), 3.0)
    assert found[1] == Sample("b", (), 1000.0)
    assert found[2] == Sample("c", (), math.inf)
    assert found[3].name == "d"
    assert len(found) == 4


def test_only_what_is_wanted() -> None:
    page = "a 1\nb_total 2\n"
    assert [sample.name for sample in parse(page, "b_total".__eq__)] == ["b_total"]


def test_which_only_grow() -> None:
    assert [is_counter(name) for name in ("a_total", "a_sum", "a_count", "a")] == [True] * 3 + [
        False
    ]
