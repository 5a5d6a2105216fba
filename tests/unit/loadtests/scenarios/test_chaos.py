"""The command of the shipped scenario `chaos` kills what it says, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.scenarios.read import read_scenario

COMMAND = read_scenario("chaos").faults[0].command
# Ports of which no service is on this machine.
PORT, OTHER = "64999", "64998"


def call(url: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", COMMAND],
        env=os.environ | {"LOADTEST_URL": url} | env,
        capture_output=True,
        text=True,
        timeout=30,
    )


class Service:
    """Processes that are named as those of a service: `serving up`, and an engine below it."""

    def __init__(self, port: str) -> None:
        script = '(exec -a "serving.engine.server tiny-llama x" sleep 60) & echo $!; wait'
        name = f"python -m deployments.up --models x.yaml --port {port} --run-dir .serving"
        self.up = subprocess.Popen(
            [name, "-c", script], executable="/bin/bash", stdout=subprocess.PIPE, text=True
        )
        assert self.up.stdout is not None
        self.engine = int(self.up.stdout.readline())

    def wait_until_named(self) -> None:
        while b"serving.engine" not in Path(f"/proc/{self.engine}/cmdline").read_bytes():
            pass

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.engine, signal.SIGTERM)
        self.up.wait(10)


@pytest.fixture
def services() -> Iterator[dict[str, Service]]:
    found = {port: Service(port) for port in (OTHER, PORT)}
    for service in found.values():
        service.wait_until_named()
    yield found
    for service in found.values():
        service.end()


@pytest.mark.parametrize("path", ["", "/", "/v1"])
def test_an_engine_of_the_service_at_the_url(services: dict[str, Service], path: str) -> None:
    done = call(f"http://127.0.0.1:{PORT}{path}")
    assert (done.returncode, done.stdout) == (0, f"killing {services[PORT].engine}\n")
    assert services[PORT].up.wait(10) == 0  # its `wait` has returned: the engine has ended
    assert services[OTHER].up.poll() is None


def test_no_engine() -> None:
    done = call(f"http://127.0.0.1:{PORT}")
    assert done.returncode == 1
    assert done.stdout.startswith(f"no tiny-llama of `make serve PORT={PORT}` runs here")


def kubectl(folder: Path, pods: str) -> None:
    script = folder / "kubectl"
    asked = folder / "asked"
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" = get ] && echo "{pods}"\n:\n')
    script.chmod(0o755)


def test_a_pod_on_kubernetes(tmp_path: Path) -> None:
    kubectl(tmp_path, "pod/a\npod/b")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOADTEST_KUBE_SELECTOR": "a.io/b=c"}
    done = call("https://llm.example.com", **env, LOADTEST_KUBE_NAMESPACE="serving")
    assert (done.returncode, done.stdout) == (0, "killing pod/a\n")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "get pods --namespace=serving --selector=a.io/b=c --field-selector=status.phase=Running "
        "--output=name",
        "delete --namespace=serving pod/a --grace-period=0 --force",
    ]


def test_no_pod_on_kubernetes(tmp_path: Path) -> None:
    kubectl(tmp_path, "")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOADTEST_KUBE_SELECTOR": "a.io/b=c"}
    done = call("https://llm.example.com", **env)
    assert (done.returncode, done.stdout) == (1, "no pod has a.io/b=c\n")
