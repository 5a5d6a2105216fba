"""Load tests in the cluster: the pods of a job, run here as processes against a real server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.known.process import KnownProcess
from loadtests.load.plan import plans
from loadtests.measure.summary import Summary
from loadtests.scenarios.read import read_scenario
from tests.helm.network import End, may
from tests.helm.rendered import Object, Pod, Rendered, merged, render, scenario_values

PODS = 3
ARGS = ["--seconds-scale=0.1", "--set=goals=[]", "--set=client.max_lag_p99_ms=1000"]


def with_jobs(pods: int, args: list[str], start_at: str = "", **more: Object) -> Rendered:
    jobs = [{"name": "smoke", "scenario": "smoke", "pods": pods, "args": args}]
    load = {"jobs": jobs, "startAt": start_at}
    return render(merged(scenario_values("one-gpu"), {"loadTests": load}, more))


def job_pod(rendered: Rendered) -> Pod:
    (pod,) = [pod for pod in rendered.of("client") if "-load-" in pod.name]
    return pod


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownProcess]:
    log = tmp_path_factory.mktemp("known") / "log"
    process = KnownProcess.start(log, first_s=0.01, gap_s=0.001)
    yield process
    process.stop()


def start(pod: Pod, index: int, url: str, leader: str, results: Path) -> subprocess.Popen[str]:
    """A pod of the job: its script as it is, but for the volume's path and the port."""
    script = pod.main["args"][0].replace("/results", str(results)).replace("0.0.0.0:7000", leader)
    variables = {"URL": url, "LEADER": leader, "JOB_COMPLETION_INDEX": str(index)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [*pod.main["command"], script],
        env={**os.environ, **variables, "PATH": path, "LOADTEST_API_KEY": "sk-any"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("count", [1, PODS])
def test_pods_start_together_and_the_first_has_the_figures_of_all(
    server: KnownProcess, tmp_path: Path, count: int
) -> None:
    pod = job_pod(with_jobs(count, ARGS))
    with socket.create_server(("127.0.0.1", 0)) as free:
        leader = f"127.0.0.1:{free.getsockname()[1]}"
    pods = [start(pod, index, server.url, leader, tmp_path) for index in range(count)]
    said = [each.communicate(timeout=120)[0] for each in pods]
    assert [each.returncode for each in pods] == [0] * count, said
    results = tmp_path / pod.name
    summary = Summary.model_validate_json((results / "0" / "summary.json").read_text())
    # What one process would have sent.
    planned = read_scenario(str(results / "0" / "scenario.yaml"))
    sent = sum(1 for plan in plans(planned, {}) for _ in plan.sessions)
    assert summary.cuts[0].requests == sent > 0
    assert summary.processes == count
    assert (results / "0" / "report.html").exists()
    records = [(results / str(n) / "records.jsonl").read_text() for n in range(count)]
    assert all(records)
    assert sum(text.count("\n") for text in records) == summary.cuts[0].requests


def test_a_job_whose_first_pod_does_not_come_fails(server: KnownProcess, tmp_path: Path) -> None:
    """Its time has passed: the first ends, and so do those that had joined it."""
    pod = job_pod(with_jobs(2, ARGS, start_at="2026-01-31T12:00:00Z"))
    assert "--start-at '2026-01-31T12:00:00Z'" in pod.main["args"][0]
    with socket.create_server(("127.0.0.1", 0)) as free:
        leader = f"127.0.0.1:{free.getsockname()[1]}"
    pods = [start(pod, index, server.url, leader, tmp_path) for index in (0, 1)]
    said = [each.communicate(timeout=60)[0] for each in pods]
    assert [each.returncode for each in pods] == [4, 4]
    assert "the start was" in said[0]
    assert "the leader has left" in said[1]


def test_the_first_pod_is_found_by_its_name() -> None:
    """An Indexed Job's pods are called JOB-INDEX; the subdomain is a headless service's name
    (kubernetes.io/docs/concepts/workloads/controllers/job, Completion mode)."""
    rendered = with_jobs(PODS, [])
    pod = job_pod(rendered)
    job = rendered.kind("Job")[pod.name]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 3)
    assert job["backoffLimit"] == 0
    service = rendered.kind("Service")[pod.spec["subdomain"]]
    (port,) = service["spec"]["ports"]
    leader = f"{pod.name}-0.{service['metadata']['name']}.models.svc:{port['port']}"
    assert pod.env("LEADER") == leader
    assert len(f"{pod.name}-0") <= 63
    assert re.search(rf"--listen 0\.0\.0\.0:{port['port']}\b", pod.main["args"][0])
    assert pod.ports == {"shards": port["port"]}
    assert service["spec"]["clusterIP"] == "None"
    # The first may be asked before it is ready, which a pod without a probe is at once anyway.
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": pod.name}


def test_a_job_of_one_pod_needs_no_others() -> None:
    rendered = with_jobs(1, [])
    pod = job_pod(rendered)
    assert "subdomain" not in pod.spec
    assert not any("-load-" in name for name in rendered.kind("Service"))
    assert "--shard" not in pod.main["args"][0]


def test_the_ledger_is_read_where_there_is_one(everything: Rendered) -> None:
    for pod in everything.of("client"):
        if "-load-" in pod.name:
            assert '--usage "$URL/v4/usage"' in pod.main["args"][0]
    without = job_pod(with_jobs(1, [], store={"type": "none"}))
    assert "--usage" not in without.main["args"][0]


@pytest.mark.parametrize("jobs", [True, False])
def test_its_port_is_open_while_there_are_jobs(jobs: bool) -> None:
    rendered = with_jobs(PODS, []) if jobs else render(scenario_values("one-gpu"))
    policies = list(rendered.kind("NetworkPolicy").values())
    client = End("client", rendered.of("client")[0].labels)
    assert may(policies, client, client, 7000) is jobs


def test_arguments_reach_the_load_test_as_they_are() -> None:
    """Whatever a shell would make of them."""
    given = ["--set=description='it is $HOME'", '--model=a "b"', "--rate-scale=5; echo gone"]
    script = job_pod(with_jobs(1, given)).main["args"][0]
    said = subprocess.run(
        ["bash", "-euc", 'exec() { printf "%s\\0" "$@"; }\n' + script],
        env={**os.environ, "URL": "http://u", "JOB_COMPLETION_INDEX": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.split("\0")
    assert said[:5] == ["python", "-m", "loadtests", "run", "smoke"]
    assert [each for each in said if each in given] == given
