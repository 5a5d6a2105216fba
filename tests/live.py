"""A running server for the tests marked `cluster` and `sdk`: one `serving up`, shared by all.

The models file is the local profile with `max_loaded: 2`, so that two adapters in use fill every
slot a replica may fill, and with more IDs for the same adapter weights, so that there is something
to evict. Every process of the run inherits a mark in its environment, by which leftovers are found
wherever they went.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from serving.api.endpoints import ENDPOINTS, Relayed
from serving.engine.helpers.nursery import NURSERY_TITLE

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / "deployments" / "models" / "local.yaml"
MARK = "SERVING_TEST_RUN"
KEY = "sk-local"
# The paths that a replica answers, not the router itself.
RELAYED = {endpoint.path for endpoint in ENDPOINTS if isinstance(endpoint.answer, Relayed)}

BASE = "tiny-llama"
ALIAS = "tiny"
INSTRUCT = "tiny-mistral-instruct"
PIRATE = "tiny-llama.pirate.240601-120000"
HAIKU = "tiny-llama.haiku.240601-120000"
# More IDs with the weights of `pirate`, for tests of eviction and of placement.
PARROT = "tiny-llama.parrot"
MAGPIE = "tiny-llama.magpie"
# The base's entry in the models file has a chat template that differs from the checkpoint's.
BASE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}The capital of {{ message['content'] }} is"
    "{% endfor %}"
)
# The pirate again, as a chat model: its prompts are written with a template of its own.
CROW = "tiny-llama.crow"
CROW_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if loop.first %}Once upon a time {% endif %}"
    "{{ message['content'] }}{% endfor %}"
)
ADAPTER_SLOTS = 2

# A penalty below zero rewards repetition: the completion never ends before the context does.
ENDLESS = {"temperature": 0, "frequency_penalty": -2.0}
ENDLESS_V1 = {"temperature": 0, "max_tokens": 1000, "ignore_eos": True}

START_S = 240.0

T = TypeVar("T")


def poll(condition: Callable[[], T], within_s: float, what: str = "", every_s: float = 0.02) -> T:
    """Wait until `condition()` is true and return it. While a server does not answer, it is not."""
    deadline = time.monotonic() + within_s
    seen: object = None
    while True:
        try:
            if seen := condition():
                return seen
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            seen = error
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what or condition.__name__}; last: {seen!r}")
        time.sleep(every_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def models_file(folder: Path) -> Path:
    """The local profile with few adapter slots and more adapter IDs."""
    data = yaml.safe_load(LOCAL.read_text())
    data["models"][0]["chat_template"] = BASE_TEMPLATE
    for model in data["models"]:
        model["weights"] = str((LOCAL.parent / model["weights"]).resolve())
        if "lora" in model:
            model["lora"]["max_loaded"] = ADAPTER_SLOTS
    (pirate,) = [model for model in data["models"] if model["id"] == PIRATE]
    data["models"] += [{**pirate, "id": name} for name in (PARROT, MAGPIE)]
    chats = {"prompt_style": "chat", "chat_template": CROW_TEMPLATE}
    data["models"].append({**pirate, "id": CROW, **chats})
    file = folder / "models.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@dataclass(frozen=True)
class Target:
    """A router or engine replica as `/metrics/targets` lists it."""

    component: str
    model: str
    replica: str
    url: str


@dataclass(frozen=True)
class EngineProcesses:
    """The processes of one engine replica."""

    actor: psutil.Process
    server: psutil.Process
    core: psutil.Process

    def alive(self) -> list[psutil.Process]:
        """Those that still run, including any others in the server's process group."""
        members = [process for process in (self.actor, self.server, self.core) if runs(process)]
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.server.pid and runs(process):
                    members.append(process)
            except ProcessLookupError:
                continue
        return members


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def core_of(server: psutil.Process) -> psutil.Process:
    """The engine core that an engine server has started."""
    children = {
        process: " ".join(process.cmdline()) for process in server.children() if runs(process)
    }
    # The core is the child that is not the resource tracker. Its own title does not always
    # show, and its command line (spawn_main(tracker_fd=...)) has the word tracker in it too.
    others = ("resource_tracker", NURSERY_TITLE)
    cores = [at for at, words in children.items() if not any(each in words for each in others)]
    assert len(cores) == 1, children
    return cores[0]


class Server:
    """One `python -m deployments.up` in a process of its own, with the code in folder `code`."""

    def __init__(self, folder: Path, models: Path, code: Path = ROOT) -> None:
        self.folder = folder
        self.code = code
        self.models = models
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.mark = uuid.uuid4().hex
        self.logs = folder / "logs"
        # The user's own folder of state is no place for tests.
        self.env = {"SERVING_STATE_DIR": str(folder / "state")}
        self.process: subprocess.Popen[bytes] | None = None
        data = yaml.safe_load(models.read_text())
        self.engine_replicas = {
            model["id"]: model.get("replicas", 1)
            for model in data["models"]
            if model.get("kind", "engine") == "engine"
        }
        self.router_replicas = data.get("router", {}).get("replicas", 2)
        self._clients = threading.local()

    @property
    def client(self) -> httpx.Client:
        """One for each thread: a pool that a hundred threads share hands out closed sockets."""
        if not hasattr(self._clients, "mine"):
            self._clients.mine = httpx.Client(
                headers={"x-api-key": KEY}, trust_env=False, verify=False, timeout=120
            )
        return self._clients.mine  # type: ignore[no-any-return]

    # life

    def start(self, *options: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SERVING_", "RAY_"))}
        with (self.folder / "up.out").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "deployments.up", "--models", str(self.models)),
                    *("--port", str(self.port), "--run-dir", str(self.folder), *options),
                ],
                cwd=self.code,
                env=env | {MARK: self.mark, "PYTHONPATH": str(self.code)} | self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def output(self) -> str:
        return (self.folder / "up.out").read_text(errors="replace")

    def wait_whole(self, within_s: float = START_S) -> None:
        """Wait until every replica is up and every router knows every one of them."""

        def whole() -> bool:
            assert self.running, f"serving up ended:\n{self.output}"
            return self.whole()

        poll(whole, within_s, f"the whole service is up\n{self.output}", every_s=0.2)

    def whole(self) -> bool:
        if self.client.get(f"{self.url}/ready", timeout=2).status_code != 200:
            return False
        routers = self.routers()
        # A test may have added models of its own.
        engines = [target for target in self.engines() if target.model in self.engine_replicas]
        if len(routers) != self.router_replicas:
            return False
        if len(engines) != sum(self.engine_replicas.values()):
            return False
        return all(self._sees_all(router) for router in routers)

    def _sees_all(self, router: Target) -> bool:
        models = self.status(router.url)
        return all(
            [replica["state"] for replica in models[model]["replicas"]] == ["ready"] * count
            for model, count in self.engine_replicas.items()
        )

    def stop(self, number: int = signal.SIGTERM, within_s: float = 60.0) -> int:
        """Send a signal and wait; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def left(self) -> list[psutil.Process]:
        """Processes of this run that are alive, wherever they are."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and runs(process):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def kill(self) -> None:
        """End everything, whatever state it is in."""
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.left():
            process.kill()

    # what it reports

    def get(self, url: str) -> Any:
        response = self.client.get(url, timeout=10)
        response.raise_for_status()
        return response.json()

    def targets(self) -> list[Target]:
        return [
            Target(**item["labels"], url=f"http://{item['targets'][0]}")
            for item in self.get(f"{self.url}/metrics/targets")
        ]

    def routers(self) -> list[Target]:
        return [target for target in self.targets() if target.component == "router"]

    def engines(self, model: str | None = None) -> list[Target]:
        return [
            target
            for target in self.targets()
            if target.component == "engine" and model in (None, target.model)
        ]

    def status(self, url: str | None = None) -> dict[str, Any]:
        """`/status` by model ID."""
        models = self.get(f"{url or self.url}/status")["models"]
        return {model["id"]: model for model in models}

    def samples(self, target: Target, name: str, **labels: str) -> list[Sample]:
        """A metric's samples with these labels."""
        response = self.client.get(f"{target.url}/metrics", timeout=10)
        response.raise_for_status()
        return [
            sample
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def sample(self, target: Target, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(sample.value for sample in self.samples(target, name, **labels))

    def labels(self, target: Target, name: str) -> list[dict[str, str]]:
        """The labels of a metric's samples."""
        return [sample.labels for sample in self.samples(target, name)]

    def counted(self, routers: list[Target] | None = None, **labels: str) -> float:
        """Requests to models that the routers have counted. Pages, which the tests poll, are left
        out."""
        return sum(
            sample.value
            for router in (self.routers() if routers is None else routers)
            for sample in self.samples(router, "serving_requests_total", **labels)
            if sample.labels["endpoint"] in RELAYED
        )

    def calls(self, target: Target, **labels: str) -> float:
        """Calls an engine replica has counted."""
        return self.sample(target, "serving_engine_calls_total", **labels)

    def engine_running(self, target: Target) -> float:
        return self.sample(target, "vllm:num_requests_running")

    def idle(self) -> bool:
        """No engine works, and every router says so."""
        return all(not self.engine_running(engine) for engine in self.engines()) and all(
            not (replica["in_flight"] or replica["running"] or replica["waiting"])
            for router in self.routers()
            for model in self.status(router.url).values()
            for replica in model["replicas"]
        )

    def events(self, event: str, component: str = "*") -> list[dict[str, Any]]:
        """Log lines of one kind, from all processes of a component."""
        found = []
        for file in sorted(self.logs.glob(f"{component}-*.jsonl")):
            for line in file.read_text().splitlines():
                if f'"{event}"' not in line:
                    continue
                entry = json.loads(line)
                if entry["event"] == event:
                    entry["file_pid"] = int(file.stem.rpartition("-")[2])
                    entry["at"] = datetime.fromisoformat(entry["time"])
                    found.append(entry)
        return found

    def record(self, request_id: str) -> dict[str, Any]:
        """The single log line of a request; there must not be two."""

        def lines() -> list[dict[str, Any]]:
            found = self.events("request", "router")
            return [entry for entry in found if entry["request_id"] == request_id]

        (entry,) = poll(lines, 5, f"a log line of request {request_id}")
        return entry

    def engine_processes(self, replica: str) -> EngineProcesses:
        (started,) = [
            entry
            for entry in self.events("engine_server_started", "replica")
            if entry["replica"] == replica
        ]
        server = psutil.Process(started["pid"])
        return EngineProcesses(psutil.Process(started["file_pid"]), server, core_of(server))

    def router_process(self, replica: str) -> psutil.Process:
        (ready,) = [
            entry for entry in self.events("router_ready", "router") if entry["router"] == replica
        ]
        return psutil.Process(ready["file_pid"])

    # requests

    def complete(
        self, model: str, prompt: str, url: str | None = None, **fields: Any
    ) -> httpx.Response:
        """One Create Completion on /v4; greedy unless told otherwise."""
        fields.setdefault("model_parameters", {"temperature": 0})
        return self.post("/v4/completions", url, model=model, prompt=prompt, **fields)

    def post(self, path: str, url: str | None = None, **body: Any) -> httpx.Response:
        return self.client.post(f"{url or self.url}{path}", json=body)

    def text(self, model: str, prompt: str, **fields: Any) -> str:
        """The text of a completion that must succeed."""
        response = self.complete(model, prompt, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["completion"]["text"])


@dataclass
class Event:
    """One server-sent event."""

    name: str | None
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def parse_events(text: str) -> list[Event]:
    """The events of a whole SSE body; comments are dropped, an unclosed last frame too."""
    found = []
    for frame in text.split("\n\n")[:-1]:
        name, data = None, []
        for line in frame.split("\n"):
            key, _, value = line.partition(":")
            if key == "event":
                name = value.strip()
            elif key == "data":
                data.append(value.removeprefix(" "))
        if data:
            found.append(Event(name, "\n".join(data)))
    return found


class _Shared:
    """The session's server; started by the first test that needs it, and again by the next one
    after a test has stopped it or broken it."""

    def __init__(self, tmp: pytest.TempPathFactory) -> None:
        self._tmp = tmp
        self._server: Server | None = None

    def get(self) -> Server:
        if self._server is not None and self._server.running:
            self._server.wait_whole()
            return self._server
        self.end()
        folder = self._tmp.mktemp("serving")
        server = self._server = Server(folder, models_file(folder))
        server.start()
        server.wait_whole()
        return server

    def end(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        try:
            if server.running:
                assert server.stop() == 0, server.output
            left = server.left()
            assert not left, f"left running: {[process.cmdline() for process in left]}"
        finally:
            server.kill()


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shared]:
    shared = _Shared(tmp_path_factory)
    yield shared
    shared.end()


@pytest.fixture
def live(_shared: _Shared) -> Server:
    """The running server, whole: every replica up and known to every router."""
    return _shared.get()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that break the shared server run after the others; those that stop it run last."""

    def rank(item: pytest.Item) -> int:
        marks = {mark.name for mark in item.iter_markers()}
        return 2 if "stops_server" in marks else 1 if "breaks_server" in marks else 0

    items.sort(key=rank)
