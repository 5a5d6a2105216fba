"""A Ray cluster of several nodes on one machine, each with an address of its own.

Every node is a network namespace with a link to one bridge, so that a link can be cut and a route
lost as between machines. All of it is in a network and mount namespace of this test run (`unshare`
in the Makefile), so nothing of it is left when the run ends, and nothing outside is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from deployments.environment import serve_environment
from serving.catalogue.grace import NodeGrace, grace
from serving.catalogue.load import load_catalogue
from tests.live import ROOT

# In the environment: the Redis server's path. The Makefile sets it, inside the namespaces.
REDIS = "SERVING_TESTS_REDIS"
HERE = "10.77.0.1"
HEAD_PORT, REDIS_PORT, PORT = 6380, 6379, 8000
KEY = "sk-nodes"
START_S = 120.0
UP = "Ray runtime started."
# By name: the last part of the address, CPUs, and what else the node has.
NODES = {
    "head": (10, 0, {}),
    "router-a": (11, 2, {"routers": 2}),
    "router-b": (12, 2, {"routers": 2}),
    "engine-a": (13, 4, {"engines": 2}),
    "engine-b": (14, 4, {"engines": 2}),
}


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


def address(node: str) -> str:
    return f"10.77.0.{NODES[node][0]}"


@dataclass
class Cluster:
    """The nodes, and what runs on them. `models` is the models file."""

    folder: Path
    models: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # life

    def start(self) -> None:
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SERVING_", "RAY_"))},
            **serve_environment(),
            "RAY_AUTH_TOKEN": "a" * 64,
            "SERVING_CLUSTER_TOKEN": "of-the-nodes",
            "SERVING_API_KEYS": KEY,
            "SERVING_PORT": str(PORT),
            "SERVING_LOG_DIR": str(self.folder / "logs"),
            "SERVING_PUBLIC_PAGES": "open",
            "PYTHONPATH": str(ROOT),
            "GLOO_SOCKET_IFNAME": "lo",
            # As KubeRay sets it where the GCS comes back.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
        (self.folder / "logs").mkdir(parents=True)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", f"{HERE}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        for node in NODES:
            self._plug(node)
        redis = [os.environ[REDIS], "--port", str(REDIS_PORT), "--bind", HERE]
        redis += ["--save", "", "--protected-mode", "no", "--dir", str(self.folder)]
        self._spawn("redis", redis)
        for node in NODES:
            self.add(node)
        self.wait("every node", lambda: len(self.ask("nodes")) == len(NODES))
        self.deploy(self.models)

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                for each in (*parent.children(recursive=True), parent):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()

    def grace_of(self, node: str) -> NodeGrace:
        times = grace(load_catalogue(self.models))
        return times.router_node if node.startswith("router") else times.engine_node

    def add(self, node: str) -> None:
        """Start Ray on a node."""
        _, cpus, resources = NODES[node]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += [f"--node-ip-address={address(node)}", f"--num-cpus={cpus}", "--num-gpus=0"]
        command += [f"--resources={json.dumps(resources)}", "--object-store-memory=80000000"]
        env = dict(self.env)
        if node == "head":
            command += ["--head", f"--port={HEAD_PORT}", "--include-dashboard=false"]
            command += [f"--temp-dir={self.folder / 'ray'}"]
            env["RAY_REDIS_ADDRESS"] = f"{HERE}:{REDIS_PORT}"
            env["RAY_external_storage_namespace"] = "nodes"
        else:
            command += [f"--address={address('head')}:{HEAD_PORT}"]
            drain_s = self.grace_of(node).drain_s
            env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(drain_s)
        # With processes of its own, too: `ray start` looks for those of other clusters.
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = ["ip", "netns", "exec", node, *apart, *command]
        said = self.folder / f"{node}.out"
        ups = said.read_text().count(UP) if said.exists() else 0

        def is_up() -> bool:
            if self.processes[node].poll() is not None:
                # As a kubelet does: Ray gives a node half a minute, which a busy machine exceeds.
                self._spawn(node, command, env)
            return said.read_text().count(UP) > ups

        self._spawn(node, command, env)
        # One at a time: at the same moment they would choose the same names in Ray's folder.
        self.wait(f"{node} is up", is_up)

    def drain(self, node: str) -> subprocess.Popen[bytes]:
        """What Kubernetes does to a pod: SIGTERM, and no more until the grace period is over."""
        process = self.processes[node]
        (ray,) = psutil.Process(process.pid).children()
        ray.send_signal(signal.SIGTERM)
        return process

    def kill(self, node: str) -> None:
        """End everything on a node at once."""
        parent = psutil.Process(self.processes[node].pid)
        for each in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.processes[node].wait()

    def end_engine(self, node: str) -> None:
        """Kill an engine server of a node."""
        parent = psutil.Process(self.processes[node].pid)
        for each in parent.children(recursive=True):
            if "serving.engine.server" in " ".join(each.cmdline()):
                each.kill()
                return
        raise AssertionError(f"no engine runs on {node}")

    # network

    def cut(self, node: str) -> None:
        """Pull the plug: nobody is told."""
        run("ip", "link", "set", f"to-{node}", "down")

    def mend(self, node: str) -> None:
        run("ip", "link", "set", f"to-{node}", "up")

    def mute(self, node: str, towards: str) -> None:
        """What `node` sends to `towards` is lost from now on."""
        run("ip", "netns", "exec", node, "ip", "route", "add", "blackhole", address(towards))

    def unmute(self, node: str, towards: str) -> None:
        run("ip", "netns", "exec", node, "ip", "route", "del", "blackhole", address(towards))

    # Ray

    def deploy(self, models: Path) -> None:
        """Deploy a models file, as the chart's `serveConfigV2` does; returns when it runs."""
        self.models = models
        self.ask("deploy", str(models))

    def ask(self, *words: str) -> Any:
        """Run `driver.py` on the head."""
        command = [sys.executable, "-m", "tests.cluster.nodes.driver", *words]
        done = subprocess.run(
            ["ip", "netns", "exec", "head", *command],
            env=self.env | {"RAY_ADDRESS": f"{address('head')}:{HEAD_PORT}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    def replicas(self) -> dict[str, list[str]]:
        """Where the running replicas of each application are, by node address."""
        found: dict[str, list[str]] = self.ask("replicas")
        return found

    def events(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one kind, of all processes."""
        found = []
        for file in (self.folder / "logs").glob("*.jsonl"):
            for line in file.read_text().splitlines():
                if f'"{event}"' in line and (entry := json.loads(line))["event"] == event:
                    found.append(entry)
        return found

    def wait(self, what: str, is_so: Any, within_s: float = START_S) -> float:
        """Wait until `is_so()`; returns how long that took, in seconds."""
        started = time.monotonic()
        while True:
            with contextlib.suppress(AssertionError, OSError):
                if is_so():
                    return time.monotonic() - started
            took = time.monotonic() - started
            assert took < within_s, f"not within {within_s:g} s: {what}"
            time.sleep(0.3)

    def _plug(self, node: str) -> None:
        run("ip", "netns", "add", node)
        run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "eth0", "netns", node)
        run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
        for words in (
            f"addr add {address(node)}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {HERE}",
        ):
            run("ip", "-n", node, *words.split())

    def _spawn(self, name: str, command: list[str], env: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                command,
                env=env or self.env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


def models_file(folder: Path, model: dict[str, Any], **changes: Any) -> Path:
    """Two routers, one model on two replicas."""
    data = {
        "router": {"replicas": 2, "cpus": 0.1, "leave_s": 3, **changes.pop("router", {})},
        "drain_s": 60,
        "models": [{**model, "replicas": 2, "start_timeout_s": 60, **changes}],
    }
    file = folder / f"models-{time.monotonic_ns()}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file
