"""`serving up`: what it says when it cannot start, and that it leaves nothing behind.

Runs after everything else: it stops the server that the other tests share.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.cluster.conftest import local_model
from tests.live import BASE, LOCAL, ROOT, Server, free_port, poll, runs

pytestmark = pytest.mark.stops_server


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `serving up`, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "deployments.up", *arguments],
        cwd=ROOT,
        # Nothing is kept in the user's own folder of state.
        env=os.environ | {"SERVING_STORE_URL": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def small_models_file(folder: Path) -> Path:
    """One engine, one router."""
    model = local_model(BASE) | {"replicas": 1}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"router": {"replicas": 1, "cpus": 0.1}, "models": [model]}))
    return file


def test_a_second_server_on_the_same_port_says_so(live: Server, tmp_path: Path) -> None:
    done = up("--port", str(live.port), "--run-dir", str(tmp_path))
    assert done.returncode == 4
    assert f"already running on {live.url}" in done.stderr
    assert live.process is not None
    assert str(live.process.pid) in done.stderr
    assert "--port" in done.stderr
    assert live.text(BASE, "A spider has").strip() == "eight legs and eight eyes."


def test_a_port_that_something_else_has_is_named(live: Server, tmp_path: Path) -> None:
    port = live.engines()[0].url.rpartition(":")[2]
    done = up("--port", port, "--run-dir", str(tmp_path))
    assert done.returncode == 4
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"contxt": 5}, "contxt"),
        ({"context": "many"}, "context"),
        ({"context": None}, "context"),
        ({"prompt_style": "poem"}, "prompt_style"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_a_mistake_in_the_models_file_is_named(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    file = tmp_path / "mistaken.yaml"
    data = yaml.safe_load(LOCAL.read_text())
    data["models"][0] |= change
    file.write_text(yaml.safe_dump(data))
    done = up("--models", str(file), "--port", str(free_port()), "--run-dir", str(tmp_path / "r"))
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert f"model '{BASE}': {says}" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_leaves_nothing_behind(live: Server) -> None:
    """Not even the engines, which Ray's workers started."""
    assert live.process is not None
    children = psutil.Process(live.process.pid).children(recursive=True)
    started = [process for process in children if runs(process)]
    names = " ".join(word for process in started for word in process.cmdline())
    for name in ("serving.engine.server", "raylet", "gcs_server"):
        assert name in names
    for engine in live.engines():
        assert live.engine_processes(engine.replica).core in started
    assert len(live.left()) > 15  # the search that must find nothing below does find processes
    assert live.stop(signal.SIGTERM) == 0
    assert not [process for process in started if runs(process)]
    assert not live.left()
    assert "stopped" in live.output


@pytest.mark.long
def test_sigint_leaves_nothing_behind_while_starting_and_while_serving(tmp_path: Path) -> None:
    for moment in ("starting", "serving"):
        server = Server(tmp_path / moment, small_models_file(tmp_path))
        server.start()
        try:
            if moment == "serving":
                server.wait_whole()
                assert server.text(BASE, "A spider has").strip() == "eight legs and eight eyes."
            else:
                poll(lambda: server.events("engine_starting"), 60, "an engine starts")  # noqa: B023
            server.stop(signal.SIGINT)
            assert not server.left()
            assert "stopped" in server.output
        finally:
            server.kill()


@pytest.mark.long
def test_it_notices_that_ray_died(tmp_path: Path) -> None:
    """Ray's agent takes its raylet with it, and so every engine; a GCS that is gone ends every
    process of Ray's a minute later. With `--restart`, a service that had been up comes back."""
    server = Server(tmp_path / "restarted", small_models_file(tmp_path))
    server.start("--restart")

    def descendants() -> list[psutil.Process]:
        assert server.process is not None
        return psutil.Process(server.process.pid).children(recursive=True)

    def ray(name: str) -> psutil.Process:
        (found,) = [process for process in descendants() if process.name().startswith(name)]
        return found

    def says(what: str, process: psutil.Process) -> None:
        poll(lambda: f"{what} (process {process.pid}) ended" in server.output, 5, what)

    def wait_up(times: int) -> None:
        server.wait_whole()
        poll(lambda: server.output.count("Ctrl-C stops everything") == times, 10, "it says so")

    try:
        wait_up(1)
        first = descendants()
        agent = ray("ray::DashboardA")
        agent.kill()
        says("Ray's dashboard agent", agent)
        poll(lambda: not any(map(runs, first)), 10, "nothing of the first run is left")
        poll(lambda: "starting again" in server.output, 10, "it starts again")
        wait_up(2)
        assert server.text(BASE, "A spider has").strip() == "eight legs and eight eyes."
        raylet = ray("raylet")
        raylet.kill()
        says("Ray's raylet", raylet)
        # What is not up yet is not started again.
        poll(lambda: server.output.count("starting routers") == 3, 60, "it starts a third time")
        gcs = ray("gcs_server")
        assert server.process is not None
        last = descendants()
        gcs.kill()
        says("Ray's GCS", gcs)
        assert server.process.wait(10) == 5
        assert not any(map(runs, last))
        assert not server.left()
        logs = Path(server.output.rpartition("its log: ")[2].partition(";")[0])
        assert logs.name == "gcs_server.out"
        assert logs.exists()
    finally:
        server.kill()


def test_a_killed_server_can_be_started_again_on_the_same_port(tmp_path: Path) -> None:
    """The lock is the kernel's: nothing has to be cleaned up by hand after SIGKILL."""
    server = Server(tmp_path / "killed", small_models_file(tmp_path))
    server.start()
    try:
        poll(lambda: "starting Ray" in server.output, 60)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
    finally:
        server.kill()
    done = up("--models", "no-such-file", "--port", str(server.port))
    assert done.returncode == 2
    again = Server(tmp_path / "again", server.models)
    again.port, again.url = server.port, server.url
    again.start()
    try:
        poll(lambda: "starting routers" in again.output, 60, "it starts")
        again.stop()
        assert not again.left()
    finally:
        again.kill()
