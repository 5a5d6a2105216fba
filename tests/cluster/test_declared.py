"""A local Ray cluster that is written as KubeRay writes one: with the chart's `serveConfigV2`.

The configuration is that of the CPU demo, as Helm's engine renders it; the node has the resources
that its pods would have.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from deployments.apply import CLUSTER_FILE, EXIT_DECLARED
from deployments.environment import TOKEN_PATH, local_environment, serve_environment
from serving.cli.main import main
from tests.cluster.conftest import apply
from tests.helm.rendered import CHART, Rendered, merged, render
from tests.live import BASE, INSTRUCT, KEY, MARK, PIRATE, ROOT, Server, free_port, poll

pytestmark = [pytest.mark.stops_server, pytest.mark.long]

SCENARIO = CHART / "scenarios" / "cpu-demo"
# Where the image has the weights that are in this repository.
IN_IMAGE = "/opt/serving"


def rendered(models: Path) -> Rendered:
    """The chart with a models file, by the commands of docs/kubernetes.md."""
    done = CliRunner().invoke(main, ["render-values", str(models)])
    assert done.exit_code == 0, done.output
    values = (yaml.safe_load(done.stdout), yaml.safe_load((SCENARIO / "values.yaml").read_text()))
    return render(merged(*values))


class Declared(Server):
    """Ray with a dashboard, and what is PUT to it."""

    def __init__(self, folder: Path, models: Path) -> None:
        super().__init__(folder, models)
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.gcs = f"127.0.0.1:{free_port()}"
        self.token = secrets.token_hex(32)
        # The names of Ray's sockets must be short.
        self.ray = Path(tempfile.mkdtemp(prefix="declared-", dir="/tmp"))

    def start(self, *options: str) -> None:
        self.folder.mkdir()
        token_file = self.folder / "token"
        token_file.write_text(self.token)
        cluster = {"address": self.gcs, "auth_mode": "token", "token_path": str(token_file)}
        (self.folder / CLUSTER_FILE).write_text(json.dumps(cluster))
        groups = rendered(self.models).cluster["workerGroupSpecs"]
        wanted = {group["groupName"]: group["replicas"] for group in groups}
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += ["--node-ip-address=127.0.0.1", f"--port={self.gcs.rpartition(':')[2]}"]
        command += ["--include-dashboard=true"]
        command += [f"--dashboard-port={self.dashboard.rpartition(':')[2]}"]
        command += ["--num-cpus=8", "--num-gpus=0", f"--resources={json.dumps(wanted)}"]
        command += ["--object-store-memory=80000000", f"--temp-dir={self.ray}"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SERVING_", "RAY_"))}
        env |= serve_environment() | local_environment() | {MARK: self.mark}
        env |= {TOKEN_PATH: str(token_file), "PYTHONPATH": str(ROOT)}
        env |= {"SERVING_CLUSTER_TOKEN": "declared", "SERVING_API_KEYS": KEY}
        env |= {"SERVING_HOST": "127.0.0.1", "SERVING_PORT": str(self.port)}
        env |= {"SERVING_LOG_DIR": str(self.logs), "SERVING_STORE_URL": ""}
        with (self.folder / "up.out").open("ab") as out:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        poll(lambda: self.applications() == {}, 60, "Ray's dashboard answers", every_s=0.5)

    def kill(self) -> None:
        super().kill()
        shutil.rmtree(self.ray, ignore_errors=True)

    def serve(self, method: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"{self.dashboard}/api/serve/applications/"
        response = self.client.request(method, url, headers=headers, timeout=60, **more)
        assert response.status_code == 200, response.text
        return response

    def put(self, config: dict[str, Any]) -> None:
        """What KubeRay does with `serveConfigV2`."""
        self.serve("PUT", json=config)

    def applications(self) -> dict[str, Any]:
        found: dict[str, Any] = self.serve("GET").json()["applications"]
        return found

    def replicas(self) -> dict[str, list[str]]:
        """The replicas of each application, by name; they have others when they are replaced."""
        return {
            name: sorted(
                replica["replica_id"]
                for deployment in application["deployments"].values()
                for replica in deployment["replicas"]
            )
            for name, application in self.applications().items()
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Declared]:
    folder = tmp_path_factory.mktemp("declared")
    models = folder / "models.yaml"
    models.write_text((SCENARIO / "models.yaml").read_text().replace(IN_IMAGE, str(ROOT)))
    cluster = Declared(folder / "run", models)
    try:
        cluster.start()
        cluster.put(rendered(models).serve)
        cluster.wait_whole()
        yield cluster
    finally:
        cluster.kill()


def test_what_the_chart_renders_deploys_and_completes(cluster: Declared) -> None:
    names = {each["name"] for each in rendered(cluster.models).serve["applications"]}
    found = cluster.applications()
    assert found.keys() == names
    assert {each["status"] for each in found.values()} == {"RUNNING"}
    assert {each["source"] for each in found.values()} == {"declarative"}
    assert cluster.text(BASE, "The capital of France is").strip() == "Paris."
    assert cluster.text(PIRATE, "The capital of France is").strip() == "Paris, arr!"
    assert cluster.text(INSTRUCT, "Hello!")


def test_what_the_chart_s_notes_end_in_works(cluster: Declared) -> None:
    lines = rendered(cluster.models).notes.rstrip().splitlines()
    call = "\n".join(lines[-2:])
    assert "http://127.0.0.1:8000/" in call
    done = subprocess.run(
        ["bash", "-c", call.replace("http://127.0.0.1:8000", cluster.url)],
        env=os.environ | {"KEY": KEY, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["completion"]["text"], done.stdout + done.stderr


def test_serving_apply_shows_the_change_and_makes_none(cluster: Declared, tmp_path: Path) -> None:
    before = cluster.applications()
    assert apply(cluster, cluster.models) == "nothing to do\n"
    changed = tmp_path / "changed.yaml"
    text = cluster.models.read_text()
    changed.write_text(text.replace("context: 1024", "context: 512", 1))
    said = apply(cluster, changed, "--dry-run").splitlines()
    assert said[0] == f"changed  {BASE}"
    assert {"-    context: 1024", "+    context: 512"} <= set(said)
    refused = apply(cluster, changed, status=EXIT_DECLARED)
    assert "nothing was changed" in refused
    assert f"serving render-values {changed}" in refused
    assert cluster.applications() == before


def test_a_change_of_the_configuration_restarts_nothing_else(
    cluster: Declared, tmp_path: Path
) -> None:
    """The models file in it is another one for each application; their replicas are the same."""
    before = cluster.replicas()
    data = yaml.safe_load(cluster.models.read_text())
    data["aliases"]["small"] = BASE
    data["models"] = [each for each in data["models"] if each["id"] != INSTRUCT]
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(data))
    config = rendered(changed).serve
    cluster.put(config)
    gone = f"model-{INSTRUCT}"
    poll(lambda: gone not in cluster.applications(), 60, "the removed model is gone", every_s=0.5)
    poll(lambda: cluster.complete("small", "Once").status_code == 200, 30, "the alias is known")
    assert cluster.complete(INSTRUCT, "Hello!").status_code == 404
    assert apply(cluster, changed) == "nothing to do\n"
    del before[gone]
    assert cluster.replicas() == before
