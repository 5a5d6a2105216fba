from __future__ import annotations

import json
from typing import Any

import pytest

from serving.cli import output as cli_output
from tests.unit.cli.conftest import answers, run


def replica(name: str, state: str = "ready", **changes: Any) -> dict[str, Any]:
    load = {"in_flight": 4, "running": 3, "waiting": 1, "adapters": []}
    about = {"id": name, "address": f"10.0.0.1:{name[-1]}", "code": "c0de"}
    return {**about, "state": state, **load, **changes}


def cluster(*, second_ready: bool = True) -> dict[str, Any]:
    tiny = [
        replica("tiny-0", adapters=["tiny.law", "med"]),
        replica("tiny-1", "draining", adapters=["tiny.law"]),
    ]
    big = [replica("big-2", "ready" if second_ready else "connecting")]

    def model(id: str, kind: str, base: str | None, replicas: Any, ready: bool) -> dict[str, Any]:
        return {
            "id": id,
            "kind": kind,
            "base": base,
            "ready": ready,
            "in_flight": 7,
            "replicas": replicas,
        }

    return {
        "router": "prefix",
        "uptime_s": 3725.0,
        "models": [
            model("tiny", "engine", None, tiny, True),
            model("big", "engine", None, big, second_ready),
            model("tiny.law", "adapter", "tiny", tiny, True),
            model("latest", "alias", "big", big, second_ready),
        ],
    }


def test_status_is_an_aligned_table() -> None:
    result = run(answers(200, cluster()), "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "router prefix, up 1h02m, 2 of 2 models ready",
        "MODEL     KIND     READY  REPLICAS  RUNNING  WAITING  IN FLIGHT  ADAPTERS",
        "tiny      engine   yes    1/2             6        2          7  2",
        "big       engine   yes    1/1             3        1          7  0",
        "tiny.law  adapter  yes    1/2             -        -          7  on 2",
        "latest    alias    yes    1/1             -        -          7  -",
    ]


def test_status_replicas_lists_each_replica_once() -> None:
    result = run(answers(200, cluster()), "status", "--replicas")
    assert result.stdout.splitlines()[6:] == [
        "",
        "MODEL  REPLICA  ADDRESS     CODE  STATE     RUNNING  WAITING  IN FLIGHT  ADAPTERS",
        "tiny   tiny-0   10.0.0.1:0  c0de  ready           3        1          4  tiny.law,med",
        "tiny   tiny-1   10.0.0.1:1  c0de  draining        3        1          4  tiny.law",
        "big    big-2    10.0.0.1:2  c0de  ready           3        1          4  -",
    ]


@pytest.mark.parametrize("flags", [(), ("--json",), ("--replicas",)])
def test_status_exits_1_while_an_engine_model_is_not_ready(flags: tuple[str, ...]) -> None:
    result = run(answers(200, cluster(second_ready=False)), "status", *flags)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "big" in result.stdout


def test_status_looks_at_engine_models_only() -> None:
    answer = cluster()
    answer["models"][2]["ready"] = False
    assert run(answers(200, answer), "status").exit_code == 0


def test_status_of_a_cluster_without_engine_models_is_not_ready() -> None:
    result = run(answers(200, {"router": "prefix", "uptime_s": 5, "models": []}), "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("router prefix, up 0m05s, 0 of 0 models ready\nMODEL")


def test_status_json_is_the_answer_on_one_line() -> None:
    result = run(answers(200, cluster()), "status", "--json")
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == cluster()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0m00s"), (61, "1m01s"), (3600, "1h00m"), (90_000, "1d01h")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert cli_output.duration(seconds) == shown


def test_a_hosted_model_counts_as_one_that_must_be_ready() -> None:
    answer = cluster()
    answer["models"].append(
        {**answer["models"][0], "id": "gpt", "kind": "upstream", "ready": False}
    )
    result = run(answers(200, answer), "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("router prefix, up 1h02m, 2 of 3 models ready")
