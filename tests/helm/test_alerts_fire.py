"""Each alert fires when it should, and none while all is well: Prometheus' own rule tests.

Needs promtool, which comes with Debian's `prometheus`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helm.rendered import Object, Rendered

ROUTER, RAY = 'job="models/llm-router"', 'job="models/llm-ray"'
# Half an hour, a sample each half minute.
AT = "30m"
STEADY, RISING, ZERO, ONE = "7x60", "0+30x60", "0x60", "1x60"

WELL = {
    **{f'up{{{ROUTER}, pod="{pod}"}}': ONE for pod in ("a", "b", "c")},
    f'up{{{RAY}, endpoint="dash-metrics"}}': ONE,
    f'serving_requests_total{{{ROUTER}, model="m", outcome="ok"}}': RISING,
    f'serving_requests_total{{{ROUTER}, model="m", outcome="error"}}': ZERO,
    f'serving_replicas{{{ROUTER}, model="m", state="ready"}}': ONE,
    f'serving_requests_in_flight{{{ROUTER}, model="m"}}': ONE,
    f'serving_time_to_first_token_seconds_bucket{{{ROUTER}, model="m", le="1"}}': RISING,
    f'serving_time_to_first_token_seconds_bucket{{{ROUTER}, model="m", le="60"}}': RISING,
    f'serving_time_to_first_token_seconds_bucket{{{ROUTER}, model="m", le="+Inf"}}': RISING,
    f'serving_queue_seconds_bucket{{{ROUTER}, model="m", le="1"}}': RISING,
    f'serving_queue_seconds_bucket{{{ROUTER}, model="m", le="60"}}': RISING,
    f'serving_queue_seconds_bucket{{{ROUTER}, model="m", le="+Inf"}}': RISING,
    f'serving_retries_refused_total{{{ROUTER}, model="m"}}': STEADY,
    f'serving_suspects_total{{{ROUTER}, model="m"}}': STEADY,
    f'serving_http_refused_total{{{ROUTER}, code="overloaded"}}': STEADY,
    f'serving_upstream_circuit{{{ROUTER}, provider="p", state="open"}}': ZERO,
    f'serving_upstream_attempts_total{{{ROUTER}, provider="p", result="misconfigured"}}': STEADY,
    f"serving_store_up{{{ROUTER}}}": ONE,
    f"serving_ledger_entries_unwritten{{{ROUTER}}}": ZERO,
    f"serving_ledger_entries_lost_total{{{ROUTER}}}": STEADY,
    f"serving_ledger_store_away_seconds{{{ROUTER}}}": ZERO,
}
# What changes in it, by the beginning of a series' name, and which alerts that is.
CASES: list[tuple[dict[str, str], set[str]]] = [
    ({}, set()),
    # It is gone, and scrapes fail.
    ({"up{" + ROUTER: "_x60"}, {"ServingNoRouter"}),
    ({"up{" + ROUTER: ZERO}, {"ServingNoRouter"}),
    ({f'up{{{ROUTER}, pod="a"': ZERO}, {"ServingRoutersMissing"}),
    ({"up{" + RAY: "_x60"}, {"ServingHeadDown"}),
    ({f'serving_requests_total{{{ROUTER}, model="m", outcome="e': "0+1x60"}, {"ServingErrors"}),
    ({"serving_replicas": ZERO}, {"ServingModelDown"}),
    # Asleep.
    ({"serving_replicas": ZERO, "serving_requests_in_flight": ZERO}, set()),
    (
        {f'serving_time_to_first_token_seconds_bucket{{{ROUTER}, model="m", le="1"': ZERO},
        {"ServingFirstTokenSlow"},
    ),
    (
        {f'serving_queue_seconds_bucket{{{ROUTER}, model="m", le="1"': ZERO},
        {"ServingQueueLong"},
    ),
    ({"serving_retries_refused_total": RISING}, {"ServingRetriesRefused"}),
    ({"serving_suspects_total": "0x58 1x2"}, {"ServingEngineKilled"}),
    ({"serving_http_refused_total": "0+60x60"}, {"ServingClientsRefused"}),
    ({"serving_upstream_circuit": ONE}, {"ServingProviderAway"}),
    ({"serving_upstream_attempts_total": "0x58 1x2"}, {"ServingProviderMisconfigured"}),
    ({"serving_store_up": ZERO}, {"ServingStoreAway"}),
    ({"serving_ledger_entries_unwritten": "200x60"}, {"ServingLedgerUnwritten"}),
    ({"serving_ledger_entries_lost_total": "0x58 1x2"}, {"ServingLedgerLost"}),
    ({"serving_ledger_store_away_seconds": RISING}, {"ServingLedgerBehind"}),
]


def case(change: dict[str, str], alerts: set[str]) -> Object:
    series = []
    for name, values in WELL.items():
        changed = [new for start, new in change.items() if name.startswith(start)]
        series.append({"series": name, "values": changed[0] if changed else values})
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": AT,
        "exp_samples": [
            {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)
        ],
    }
    return {
        "name": " ".join(change) or "well",
        "interval": "30s",
        "input_series": series,
        "promql_expr_test": [firing],
    }


def test_every_alert_has_a_case(everything: Rendered) -> None:
    (found,) = everything.kind("PrometheusRule").values()
    (group,) = found["spec"]["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set().union(*(each for _, each in CASES))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_they_fire_when_they_should_and_no_other_does(everything: Rendered, tmp_path: Path) -> None:
    (found,) = everything.kind("PrometheusRule").values()
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(found["spec"]))
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [case(*each) for each in CASES],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
