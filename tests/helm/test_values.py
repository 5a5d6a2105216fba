"""The chart's values: each is documented and in the schema, and wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest

from docs import chart
from tests.helm.rendered import CHART, DEFAULTS, Object, merged, render, scenario_values

SCHEMA: Any = json.loads((CHART / "values.schema.json").read_text())


def test_the_readme_is_current() -> None:
    assert chart.main(["--check"]) == 0, "run `python -m docs.chart`"


def test_a_stale_readme_is_told_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chart, "FILE", tmp_path / "README.md")
    assert chart.main(["--check"]) == 1
    assert "is stale" in capsys.readouterr().err
    assert chart.main([]) == 0
    assert chart.main(["--check"]) == 0


def test_every_value_is_documented_where_it_stands() -> None:
    found = list(chart.values((CHART / "values.yaml").read_text()))
    assert len(found) > 80
    assert [each.path for each in found if not each.comment] == []


def resolved(schema: Object) -> Object:
    if "$ref" in schema:
        found: Object = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def objects(schema: Object, path: str = "") -> list[tuple[str, Object]]:
    schema = resolved(schema)
    found = [(path, schema)] if schema.get("type") == "object" else []
    for name, each in schema.get("properties", {}).items():
        found += objects(each, f"{path}/{name}")
    if "items" in schema:
        found += objects(schema["items"], f"{path}/*")
    if isinstance(schema.get("additionalProperties"), dict):
        found += objects(schema["additionalProperties"], f"{path}/?")
    return found


def test_no_object_takes_what_the_schema_does_not_name() -> None:
    for path, schema in objects(SCHEMA):
        # Helm's own, of charts that have this one as a part.
        if path != "/global":
            assert "additionalProperties" in schema, path


def test_the_schema_has_what_the_values_have() -> None:
    def compare(schema: Object, default: Any, path: str) -> None:
        schema = resolved(schema)
        named = schema.get("properties")
        if isinstance(default, dict) and named is not None:
            optional = path.startswith(("/models", "/image/cpu", "/networkPolicy/operator"))
            assert default.keys() <= named.keys(), path
            assert optional or not default or default.keys() == named.keys(), path
            for name in default:
                compare(named[name], default[name], f"{path}/{name}")

    for name, schema in SCHEMA["properties"].items():
        if name != "global":
            assert name in DEFAULTS
            compare(schema, DEFAULTS[name], f"/{name}")


def refusal(name: str, change: Object) -> str:
    with pytest.raises(helm_python.HelmError) as refused:
        render(merged(scenario_values(name), change))
    return str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routers": {}}, "additional properties 'routers' not allowed"),
        ({"router": {"replicas": 3}}, "at '/router': additional properties 'replicas' not allowed"),
        ({"image": {"pullPolicy": "always"}}, "must be one of 'IfNotPresent', 'Always', 'Never'"),
        ({"image": {"digest": "sha256:1"}}, "sha256_and_64_digits"),
        ({"cache": {"size": "100 GB"}}, "a_quantity_of_Kubernetes_as_500m_or_16Gi"),
        ({"service": {"port": 0}}, "at '/service/port': minimum: got 0, want 1"),
        ({"service": {"port": "80"}}, "at '/service/port': got string, want integer"),
        ({"networkPolicy": {"private": ["10.0.0.0"]}}, "a_network_as_10_0_0_0_8"),
        ({"networkPolicy": {"clients": [{}]}}, "at '/networkPolicy/clients/0'"),
        ({"engine": {"settings": {"hold": 1}}}, "a_setting_s_name_as_SERVING_HOLD_S"),
        ({"ray": {"upgradeStrategy": "NewClusterWithIncrementalUpgrade"}}, "'NewCluster', 'None'"),
        ({"loadTests": {"startAt": "noon"}}, "a_time_as_2026_01_31T12_00_00Z"),
        (
            {"loadTests": {"jobs": [{"name": "a" * 50, "scenario": "smoke", "pods": 1}]}},
            "more than 63 characters; shorten `name`",
        ),
        ({"models": {"file": "models: [gpt-4o]"}}, "render them again: serving render-values"),
        ({"nameOverride": "A"}, "must begin with a letter and have lower-case letters"),
        ({"nameOverride": "a" * 41}, "more than 40 characters"),
        ({"router": {"requestTimeoutSeconds": 901}}, "Write `drain_s: 901` into the models file"),
        ({"router": {"settings": {"SERVING_PORT": 1}}}, "SERVING_PORT is set by the chart"),
        ({"engine": {"groups": {"gpu": {}}}}, "no group is called 'gpu'; there are: gpu-1x24"),
        ({"secrets": {"apiKeys": {"name": "mine"}}}, "secrets.callerKey"),
        ({"secrets": {"providers": [{"name": "a", "key": "k"}]}}, "either `env` or `file`"),
        ({"cache": {"type": "hostPath"}}, "cache.hostPath: is needed"),
        ({"cache": {"type": "claim"}}, "cache.claim: is needed"),
        ({"cache": {"type": "emptyDir", "download": True}}, "there is no volume to fetch into"),
        (
            {"cache": {"volumes": [{"name": "a", "mountPath": "/a"}]}},
            "either `claim` or `hostPath`",
        ),
        ({"store": {"type": "postgresql"}}, "store.postgresql.secret.name: is needed"),
        ({"store": {"type": "none"}, "ledger": {"mode": "store"}}, "needs a store"),
        (
            {
                "store": {"type": "postgresql", "postgresql": {"secret": {"name": "a"}}},
                "ledger": {"mode": "journal"},
            },
            "a pod's own disk ends with the pod",
        ),
        (
            {"store": {"type": "postgresql", "postgresql": {"secret": {"name": "a"}}}},
            "networkPolicy.database: routers may not reach the database",
        ),
        ({"ray": {"gcs": {"redisAddress": "r:1"}}}, "networkPolicy.redis"),
        ({"monitoring": {"podMonitors": True}}, "networkPolicy.prometheus"),
        ({"monitoring": {"alerts": True}}, "enable both"),
        ({"gateway": {"enabled": True}}, "name one"),
    ],
)
def test_wrong_values_are_refused_with_the_reason(change: Object, words: str) -> None:
    assert words in refusal("one-gpu", change)


def test_a_provider_without_a_key_is_refused() -> None:
    said = refusal("hosted", {"secrets": {"providers": []}})
    assert "models of provider 'openai', and no secret gives its key" in said
    assert "add {env: OPENAI_API_KEY, name: SECRET, key: KEY}" in said


def test_without_models_it_says_how_to_render_them() -> None:
    with pytest.raises(helm_python.HelmError, match=r"serving render-values models\.yaml"):
        render({})


def test_no_secret_is_built_in() -> None:
    """Without a cluster each rendering has others; with one: test_made_once.py."""
    first, second = (render(scenario_values("one-gpu")).kind("Secret") for _ in range(2))
    assert first.keys() == second.keys()
    for name, each in first.items():
        assert each["data"].keys() == second[name]["data"].keys()
        assert all(second[name]["data"][key] != value for key, value in each["data"].items())
