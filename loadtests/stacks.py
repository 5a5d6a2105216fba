"""The stacks that are compared: ours, and vLLM's own server alone, as processes with a CPU bill.

"Frontend" is every process of a stack but vLLM's engine core and its worker.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

# vLLM starts its engine core and workers with multiprocessing's spawn; the titles they then give
# themselves do not always show.
ENGINE_WORDS = ("VLLM::", "multiprocessing.spawn import spawn_main")
START_TIMEOUT_S = 240.0


# What a process is, by words of its command line; the first that fits.
ROLES = (
    (ENGINE_WORDS, "engine core"),
    (("serving.engine.server",), "engine server"),
    (("vllm.entrypoints.openai",), "vllm server"),
    (("ServeReplica:router", "RouterReplica"), "router"),
    (("ServeReplica",), "engine replica actor"),
    (("ServeController", "ProxyActor"), "serve control"),
)


@dataclass(frozen=True)
class Cpu:
    """CPU seconds since the processes started, by what the processes are."""

    roles: dict[str, float]

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu({role: s - other.roles.get(role, 0.0) for role, s in self.roles.items()})

    @property
    def engine(self) -> float:
        return self.roles.get("engine core", 0.0)

    @property
    def frontend(self) -> float:
        return sum(self.roles.values()) - self.engine


class Stack:
    """A running stack. `names` are what its model is called there."""

    def __init__(
        self, name: str, command: list[str], env: dict[str, str], url: str, ready: str, log: Path
    ) -> None:
        self.name = name
        self.url = url
        self._ready = url + ready
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=os.environ | env, stdout=output, stderr=output, start_new_session=True
            )
        self._root = psutil.Process(self._process.pid)

    def wait_until_ready(self) -> None:
        """Raises RuntimeError if the stack ends or is not ready in time."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended while starting; see {self._log}")
            try:
                with opener.open(self._ready, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise RuntimeError(f"{self.name} was not ready in time; see {self._log}")

    def cpu(self) -> Cpu:
        """What all processes of the stack have used so far."""
        roles: defaultdict[str, float] = defaultdict(float)
        for process in (self._root, *self._root.children(recursive=True)):
            try:
                times = process.cpu_times()
                command = " ".join(process.cmdline()) or process.name()
            except psutil.NoSuchProcess:
                continue
            roles[_role(command)] += times.user + times.system
        return Cpu(roles)

    def stop(self) -> None:
        processes = [self._root, *self._root.children(recursive=True)]
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for process in processes:
            if process.is_running():
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue


def _role(command: str) -> str:
    for words, role in ROLES:
        if any(word in command for word in words):
            return role
    return "rest"


def ours(models: Path, folder: Path) -> Stack:
    """Our stack with the first engine model of a models file, one replica, everything else as
    shipped."""
    data = yaml.safe_load(models.read_text())
    spec = data["models"][0] | {"replicas": 1}
    spec["weights"] = str((models.parent / spec["weights"]).resolve())
    adapters = [
        model | {"weights": str((models.parent / model["weights"]).resolve())}
        for model in data["models"]
        if model.get("base") == spec["id"]
    ]
    file = folder / "models.yaml"
    file.write_text(yaml.safe_dump({"router": data.get("router", {}), "models": [spec, *adapters]}))
    port = free_port()
    command = [sys.executable, "-m", "deployments.up", "--models", str(file)]
    command += ["--port", str(port), "--run-dir", str(folder / "run")]
    return Stack("ours", command, {}, f"http://127.0.0.1:{port}", "/ready", folder / "ours.log")


def bare(models: Path, folder: Path) -> Stack:
    """`vllm serve` alone with the same engine arguments and environment."""
    spec = yaml.safe_load(models.read_text())["models"][0]
    weights = str((models.parent / spec["weights"]).resolve())
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", weights, "--served-model-name", spec["id"]]
    command += ["--max-model-len", str(spec["context"]), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--disable-uvicorn-access-log"]
    if lora := spec.get("lora"):
        command += ["--enable-lora", "--max-loras", str(lora["max_loaded"] + 1)]
        command += ["--max-lora-rank", str(lora["max_rank"])]
    for key, value in spec.get("engine_args", {}).items():
        flag = f"--{key.replace('_', '-')}"
        command += [flag] if value is True else [flag, str(value)]
    return Stack(
        "bare", command, spec.get("env", {}), f"http://127.0.0.1:{port}", "/health",
        folder / "bare.log",
    )  # fmt: skip


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
