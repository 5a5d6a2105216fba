"""Starts the stacks that are compared (ours, vLLM's server, Ray Serve LLM) and reads their CPU use.

A stack's frontend is every process of it but vLLM's engine core and its worker.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

# The command lines of vLLM's engine core and workers: the titles they give themselves, or, as those
# do not always show, that of multiprocessing's spawn, which starts them.
ENGINE_WORDS = ("VLLM::", "multiprocessing.spawn import spawn_main")
START_TIMEOUT_S = 240.0
# Limits that nothing reaches: every request is counted and priced, and held to them while it runs.
LIMITED = {
    "price": {"input": 0.5, "cached": 0.1, "output": 1.5},
    "quota": {
        "requests_per_minute": 10**9,
        "tokens_per_minute": 10**9,
        "requests_in_flight": 10**6,
        "tokens_per_month": 10**12,
        "cost_per_month": 10**6,
    },
}


# A process's role follows from words of its command line. The first entry that fits counts.
ROLES = (
    (ENGINE_WORDS, "engine core"),
    (("serving.engine.server", "serving: "), "engine server"),
    (("vllm.entrypoints.openai",), "vllm server"),
    (("ServeReplica:router",), "router"),
    (("ServeReplica:llm",), "ray serve llm replica"),
    (("ServeReplica",), "engine replica actor"),
    (("haproxy",), "haproxy"),
    (("ServeController", "ProxyActor", "HAProxyManager"), "serve control"),
)


@dataclass(frozen=True)
class Cpu:
    """CPU seconds that a stack's processes have used since their start, by role."""

    roles: dict[str, float]

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu({role: s - other.roles.get(role, 0.0) for role, s in self.roles.items()})


class Stack:
    """A running stack, which listens at `url`."""

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
        """Wait until the stack is ready.

        Raises:
            RuntimeError: it has ended, or is not ready in time.
        """
        wait_until(self._ready, self._process, f"{self.name} (log: {self._log})")

    def cpu(self) -> Cpu:
        """Read what all processes of the stack have used so far."""
        roles: defaultdict[str, float] = defaultdict(float)
        for command, used in cpu_of_tree(self._root):
            roles[_role(command)] += used
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


def cpu_of_tree(root: psutil.Process) -> Iterator[tuple[str, float]]:
    """Yield the command line and the CPU seconds so far of a process and of all its descendants."""
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
            command = " ".join(process.cmdline()) or process.name()
        except psutil.NoSuchProcess:
            continue
        yield command, times.user + times.system


def _role(command: str) -> str:
    for words, role in ROLES:
        if any(word in command for word in words):
            return role
    return "rest"


@dataclass(frozen=True)
class Model:
    """What every stack serves: one replica of the first model of a models file, and its adapters.

    `file` is the models file that serves just this; `adapter` is the ID of the first adapter.
    """

    id: str
    adapter: str | None
    spec: dict[str, Any]
    file: dict[str, Any]

    @classmethod
    def load(cls, models: Path) -> Model:
        data = yaml.safe_load(models.read_text())
        served = []
        for model in data["models"]:
            if model is data["models"][0] or model.get("base") == data["models"][0]["id"]:
                if model["weights"].startswith(("./", "../")):
                    model["weights"] = str((models.parent / model["weights"]).resolve())
                served.append(model)
        served[0]["replicas"] = 1
        file = {"router": data.get("router", {}), "models": served}
        adapter = served[1]["id"] if len(served) > 1 else None
        return cls(served[0]["id"], adapter, served[0], file)

    def with_worker_process(self) -> Model:
        """Return the model with vLLM's worker in a process of its own. Only a model on CPU has that
        choice; any other is returned as it is."""
        if self.spec.get("gpus", 1):
            return self
        args = self.spec.get("engine_args", {}) | {"distributed_executor_backend": "mp"}
        env = self.env | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        spec = self.spec | {"engine_args": args, "env": env}
        file = self.file | {"models": [spec, *self.file["models"][1:]]}
        return Model(self.id, self.adapter, spec, file)

    @property
    def engine_args(self) -> dict[str, Any]:
        """The engine's arguments under vLLM's own names."""
        args: dict[str, Any] = {"max_model_len": self.spec["context"]}
        args["tensor_parallel_size"] = self.spec.get("tensor_parallel", 1)
        args["dtype"] = self.spec.get("dtype", "auto")
        if lora := self.spec.get("lora"):
            # One slot more than is ever filled, as on our engine replicas (docs/architecture.md).
            args |= {"enable_lora": True, "max_loras": lora["max_loaded"] + 1}
            args |= {"max_lora_rank": lora["max_rank"]}
        return args | dict(self.spec.get("engine_args", {}))

    @property
    def env(self) -> dict[str, str]:
        return dict(self.spec.get("env") or {})


def ours(model: Model, folder: Path) -> Stack:
    """Start our stack as it is shipped, with one replica of the model, the ledger, and limits."""
    file = folder / "models.yaml"
    models = [each | LIMITED for each in model.file["models"]]
    file.write_text(yaml.safe_dump(model.file | {"models": models}))
    port = free_port()
    command = [sys.executable, "-m", "deployments.up", "--models", str(file)]
    command += ["--port", str(port), "--run-dir", str(folder / "run")]
    env = {"SERVING_STATE_DIR": str(folder / "state")}
    return Stack("ours", command, env, f"http://127.0.0.1:{port}", "/ready", folder / "ours.log")


def bare(model: Model, folder: Path) -> Stack:
    """Start `vllm serve` alone."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return Stack("bare", bare_command(model, port), model.env, url, "/health", folder / "bare.log")


def bare_command(model: Model, port: int) -> list[str]:
    """Return the command line of vLLM's own server. It names the module, since the command `vllm`
    does not start on CPU."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model.spec["weights"], "--served-model-name", model.id]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    for key, value in model.engine_args.items():
        flag = f"--{key.replace('_', '-')}"
        command += [flag] if value is True else [flag, str(value)]
    if parser := model.spec.get("tool_parser"):
        command += ["--tool-call-parser", parser, "--enable-auto-tool-choice"]
    if parser := model.spec.get("reasoning_parser"):
        command += ["--reasoning-parser", parser]
    if template := model.spec.get("chat_template"):
        command += ["--chat-template", template]
    if model.adapter is not None:
        command += ["--lora-modules", f"{model.adapter}={model.file['models'][1]['weights']}"]
    return command


def ray_serve_llm(model: Model, folder: Path) -> Stack:
    """Start Ray Serve LLM in its fastest form: direct streaming behind HAProxy."""
    port = free_port()
    loading = {"model_id": model.id, "model_source": model.spec["weights"]}
    config: dict[str, Any] = {"model_loading_config": loading}
    config["engine_kwargs"] = model.engine_args
    config["deployment_config"] = {"num_replicas": 1, "max_ongoing_requests": 10_000}
    if not model.spec.get("gpus", 1):
        config["accelerator_config"] = {"kind": "cpu"}
        config["placement_group_config"] = {"bundles": [{"CPU": 1}]}
    application = {"name": "llm", "route_prefix": "/"}
    application |= {"import_path": "ray.serve.llm:build_openai_app"}
    file = folder / "ray-serve-llm.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "proxy_location": "HeadOnly",
                "http_options": {"host": "127.0.0.1", "port": port},
                "applications": [application | {"args": {"llm_configs": [config]}}],
            }
        )
    )
    env = model.env | {
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [str(Path(sys.executable).with_name("serve")), "run", str(file)]
    log = folder / "ray-serve-llm.log"
    return Stack("ray-serve-llm", command, env, f"http://127.0.0.1:{port}", "/v1/models", log)


def wait_until(url: str, process: subprocess.Popen[bytes], name: str) -> None:
    """Wait until `url` answers 200.

    Raises:
        RuntimeError: `process` has ended, or `START_TIMEOUT_S` is over.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended while starting")
        try:
            with opener.open(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"{name} was not ready in time")


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
