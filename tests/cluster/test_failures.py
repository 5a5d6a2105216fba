"""Processes are killed under load. Runs after the other tests: it takes replicas away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from serving.engine.zygote import TITLE as ZYGOTE_TITLE
from tests.live import (
    BASE,
    ENDLESS,
    ENDLESS_V1,
    INSTRUCT,
    KEY,
    EngineProcesses,
    Event,
    Server,
    Target,
    parse_events,
    poll,
)

pytestmark = pytest.mark.breaks_server

REDISCOVERED_WITHIN_S = 2.0
NEW_REPLICA_S = 150.0
# How long a model may be away when its only replica is killed and little else runs.
AWAY_S = 15.0


@dataclass
class Stream:
    """One streamed request, read to its end in a thread."""

    url: str
    path: str
    request_id: str
    body: dict[str, Any]
    started: threading.Event = field(default_factory=threading.Event)
    text: str = ""
    status: int = 0
    broken: httpx.TransportError | None = None

    def read(self) -> Stream:
        """Read everything; a connection that breaks is kept in `broken`."""
        headers = {"x-api-key": KEY, "x-request-id": self.request_id}
        try:
            with (
                httpx.Client(trust_env=False, timeout=120) as client,
                client.stream(
                    "POST", self.url + self.path, json=self.body, headers=headers
                ) as response,
            ):
                self.status = response.status_code
                for piece in response.iter_text():
                    self.text += piece
                    self.started.set()
        except httpx.TransportError as error:
            self.broken = error
        finally:
            self.started.set()
        return self

    @property
    def events(self) -> list[Event]:
        return parse_events(self.text)

    @property
    def finished(self) -> bool:
        """True if it ended as a completion ends."""
        if self.broken is not None or not self.events:
            return False
        last = self.events[-1]
        if self.path == "/v1/completions":
            return last.data == "[DONE]"
        return last.name is None and last.json["completion"]["finish_reason"] == "length"

    @property
    def failed(self) -> bool:
        """True if it ended with the path's error event, and nothing after it."""
        if self.broken is not None or not self.events:
            return False
        last = self.events[-1]
        if self.path == "/v1/completions":
            return last.name is None and last.json["error"]["code"] == "engine_failed"
        return last.name == "error" and last.json["error"]["code"] == "engine_failed"


def stream(url: str, path: str, request_id: str, model: str = BASE) -> Stream:
    body: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "stream": True}
    body |= {"model_parameters": ENDLESS} if path.startswith("/v4") else ENDLESS_V1
    return Stream(url, path, request_id, body)


def open_streams(threads: ThreadPoolExecutor, streams: list[Stream]) -> list[Future[Stream]]:
    """Start them and wait until each has had its first bytes."""
    futures = [threads.submit(item.read) for item in streams]
    for item in streams:
        assert item.started.wait(30)
        assert item.status == 200
    return futures


class Background:
    """Short requests for a model, one after the other, while something else happens."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._stop = threading.Event()
        self.answers: list[tuple[int, float]] = []

    def run(self) -> None:
        with httpx.Client(headers={"x-api-key": KEY}, trust_env=False, timeout=60) as client:
            while not self._stop.is_set():
                started = time.monotonic()
                response = client.post(
                    f"{self._server.url}/v4/completions",
                    json={
                        "model": self._model,
                        "prompt": "Hello!",
                        "model_parameters": {"temperature": 0, "max_tokens": 3},
                    },
                )
                self.answers.append((response.status_code, time.monotonic() - started))
                self._stop.wait(0.1)

    @contextmanager
    def running(self) -> Iterator[Background]:
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(self.run)
            try:
                yield self
            finally:
                self._stop.set()
            future.result()


def assert_counted(live: Server, routers: list[Target], before: float, requests: int) -> None:
    """Every request is in the routers' counts once, and stays so."""
    poll(lambda: live.counted(routers) >= before + requests, 10, "every request is counted")
    poll(live.idle, 10, "nothing runs")
    assert live.counted(routers) == before + requests


def busiest(live: Server) -> str:
    replicas = live.status()[BASE]["replicas"]
    return str(max(replicas, key=lambda replica: replica["in_flight"])["id"])


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param("actor", marks=pytest.mark.long),
        pytest.param("server", marks=pytest.mark.long),
        "core",
    ],
)
def test_an_engine_replica_is_killed(live: Server, victim: str, record_property: Any) -> None:
    poll(live.idle, 10, "nothing runs")
    routers = live.routers()
    counted = live.counted(routers)
    others = {engine.replica for engine in live.engines()}
    llamas = [engine.replica for engine in live.engines(BASE)]
    streams = [
        stream(routers[number % 2].url, path, f"{victim}-{path[1:3]}-{number}")
        for number in range(6)
        for path in ("/v4/completions", "/v1/completions")
    ]
    whole = [f"{victim}-whole-{number}" for number in range(12)]

    def complete(request_id: str) -> httpx.Response:
        """A long request that is not streamed: nothing of it has left when the replica dies."""
        return httpx.post(
            f"{routers[hash(request_id) % 2].url}/v4/completions",
            json={"model": BASE, "prompt": "Once upon a time", "model_parameters": ENDLESS},
            headers={"x-api-key": KEY, "x-request-id": request_id},
            timeout=120,
            trust_env=False,
        )

    with (
        Background(live, INSTRUCT).running() as mistral,
        Background(live, BASE).running() as llama,
        ThreadPoolExecutor(len(streams) + len(whole)) as threads,
    ):
        known = {id_: live.engine_processes(id_) for id_ in llamas}
        waiting = [threads.submit(complete, request_id) for request_id in whole]
        reading = open_streams(threads, streams)
        # Before the first of them can be over: each makes a thousand tokens.
        replica = busiest(live)
        processes = known[replica]
        killed = time.monotonic()
        getattr(processes, victim).kill()
        poll(lambda: not processes.alive(), 5, "no process of the replica is left")
        gone_s = time.monotonic() - killed
        for future in reading:
            future.result()
        answers = [future.result() for future in waiting]
        new = wait_for_new_replica(live, others, replica)
        back_s = time.monotonic() - killed

    # Streams: those of the dead replica say so, the others never notice.
    hit = 0
    for item in streams:
        record = live.record(item.request_id)
        # On a slow machine the first may have been over before the kill.
        if record["replica"] == replica and not item.finished:
            hit += 1
            assert item.failed, item.text[-500:]
            assert record["outcome"] == "error"
        else:
            assert item.finished, item.text[-500:]
            assert record["outcome"] == "ok"
    assert 0 < hit < len(streams)

    # Requests without a byte: sent again, and answered.
    assert [answer.status_code for answer in answers] == [200] * len(whole)
    assert len({answer.json()["completion"]["text"] for answer in answers}) == 1
    retried = [live.record(request_id)["retried"] for request_id in whole]
    assert any(retried)
    assert {status for status, _ in llama.answers} == {200}

    # The other model.
    assert {status for status, _ in mistral.answers} == {200}
    assert len(mistral.answers) > 20
    assert max(seconds for _, seconds in mistral.answers) < 10

    # The new replica.
    found_s = rediscovery(live, new)
    assert found_s < REDISCOVERED_WITHIN_S
    texts = {live.text(BASE, "Once upon a time") for _ in range(8)}
    assert len(texts) == 1
    requests = len(streams) + len(whole) + len(llama.answers) + len(mistral.answers) + 8
    assert_counted(live, routers, counted, requests)
    for name, value in (("gone_s", gone_s), ("back_s", back_s), ("found_s", found_s)):
        record_property(name, round(value, 2))
    print(f"{victim}: gone {gone_s:.2f} s, back {back_s:.1f} s, found {found_s:.2f} s, {hit} hit")


@pytest.mark.parametrize("victim", ["server", "core"])
def test_the_only_replica_is_killed(live: Server, victim: str) -> None:
    """Requests wait for the one that replaces it; only a stream that had begun sees the death."""
    poll(live.idle, 10, "nothing runs")
    expected = live.text(INSTRUCT, "Hello!")
    (engine,) = live.engines(INSTRUCT)
    processes = live.engine_processes(engine.replica)
    # An instruct model would end a story of its own accord.
    endless = {"model": INSTRUCT, "prompt": "Once upon a time", **ENDLESS_V1}

    def ask(**fields: Any) -> httpx.Response:
        return live.complete(INSTRUCT, "Hello!", **fields)

    with ThreadPoolExecutor(14) as threads:
        on_it = [threads.submit(live.post, "/v1/completions", **endless) for _ in range(4)]
        begun = [
            stream(live.url, "/v1/completions", f"only-{victim}-{number}", INSTRUCT)
            for number in range(2)
        ]
        reading = open_streams(threads, begun)
        killed = time.monotonic()
        getattr(processes, victim).kill()
        poll(lambda: not live.status()[INSTRUCT]["ready"], 5, "the routers know", every_s=0.01)
        whole = [threads.submit(ask) for _ in range(4)]
        streamed = [threads.submit(ask, stream=True) for _ in range(4)]
        for future in reading:
            future.result()
        assert whole[0].result().status_code == 200
        away_s = time.monotonic() - killed
        answers = [future.result() for future in (*on_it, *whole, *streamed)]
    assert [answer.status_code for answer in answers] == [200] * 12, [a.text for a in answers]
    assert len({future.result().json()["choices"][0]["text"] for future in on_it}) == 1
    assert {future.result().json()["completion"]["text"] for future in whole} == {expected}
    for future in streamed:
        events = parse_events(future.result().text)
        assert "".join(event.json["completion"]["text"] for event in events) == expected
    # On a slow machine one may have been over before the kill.
    assert all(item.failed or item.finished for item in begun)
    assert any(item.failed for item in begun)
    assert away_s < AWAY_S
    print(f"{victim}: away for {away_s:.1f} s")
    live.wait_whole(NEW_REPLICA_S)


def wait_for_new_replica(live: Server, others: set[str], dead: str) -> str:
    """The ID of the replica that takes the dead one's place, once the service is whole."""

    def found() -> set[str]:
        return {engine.replica for engine in live.engines(BASE)} - others

    poll(found, NEW_REPLICA_S, "Serve starts a new replica", every_s=0.2)
    live.wait_whole(NEW_REPLICA_S)
    (new,) = found()
    assert dead not in {engine.replica for engine in live.engines()}
    return new


def rediscovery(live: Server, replica: str) -> float:
    """Seconds from when a replica was ready to when the last router had found it."""
    (ready,) = [e for e in live.events("engine_ready", "engine") if e["replica"] == replica]
    found = [e for e in live.events("replica_found", "router") if e["replica"] == replica]
    assert {entry["router"] for entry in found} >= {router.replica for router in live.routers()}
    last = max(entry["at"] for entry in found)
    return float((last - ready["at"]).total_seconds())


def test_a_router_is_killed(live: Server) -> None:
    """Its own streams break and the engines stop work on them; the other router's go on."""
    poll(live.idle, 10, "nothing runs")
    routers = live.routers()
    dies, lives = routers
    process: psutil.Process = live.router_process(dies.replica)
    counted = live.counted([lives])
    engines = live.engines(BASE)
    outcomes = ("ok", "cancelled", "error", "rejected")

    def called() -> dict[str, float]:
        return {
            outcome: sum(live.calls(engine, outcome=outcome) for engine in engines)
            for outcome in outcomes
        }

    before = called()
    path = "/v4/completions"
    with ThreadPoolExecutor(40) as threads:
        doomed = [stream(dies.url, path, f"doomed-{number}") for number in range(20)]
        spared = [stream(lives.url, path, f"spared-{number}") for number in range(20)]
        reading = open_streams(threads, [*doomed, *spared])
        process.kill()
        for future in reading:
            future.result()
    # On a slow machine the first may be over before the last has begun.
    broken = [item for item in doomed if item.broken is not None]
    assert len(broken) >= 10
    assert all(item.finished for item in doomed if item not in broken)
    assert all(item.finished for item in spared)
    poll(lambda: not any(map(live.engine_running, engines)), 5, "the engines are free")
    poll(lambda: sum(called().values()) >= sum(before.values()) + 40, 5, "all calls ended")
    ended = {outcome: count - before[outcome] for outcome, count in called().items()}
    assert ended["error"] == ended["rejected"] == 0
    assert ended["ok"] + ended["cancelled"] == 40
    assert len(broken) / 2 <= ended["cancelled"] <= len(broken)
    assert all(live.record(item.request_id)["outcome"] == "ok" for item in spared)
    assert live.counted([lives]) == counted + 20

    def answers() -> bool:
        return live.complete(BASE, "A spider has").status_code == 200

    poll(answers, 20, "the service answers")
    live.wait_whole()
    now = {router.replica for router in live.routers()}
    assert dies.replica not in now
    assert lives.replica in now
    assert all(answers() for _ in range(20))


def test_the_directory_is_killed(live: Server) -> None:
    """It is on no request's path: streams go on, and it fills itself again."""
    known = {target.replica for target in live.targets()}
    directories = [p for p in live.left() if "DirectoryActor" in " ".join(p.cmdline())]
    (directory,) = directories
    items = [stream(live.url, "/v4/completions", f"directory-{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        reading = open_streams(threads, items)
        directory.kill()
        for future in reading:
            assert future.result().finished
    assert live.complete(BASE, "A spider has").status_code == 200

    def is_back() -> bool:
        new = [p for p in live.left() if "DirectoryActor" in " ".join(p.cmdline())]
        return len(new) == 1 and new[0].pid != directory.pid

    poll(is_back, 30, "Ray starts it again")
    live.wait_whole(30)
    assert {target.replica for target in live.targets()} == known


def test_engine_processes_are_those_this_file_kills(live: Server) -> None:
    """The tests above would prove nothing if they killed something else."""
    processes: EngineProcesses = live.engine_processes(live.engines(BASE)[0].replica)
    assert "ServeReplica:model-tiny-llama" in " ".join(processes.actor.cmdline())
    assert "serving.engine.server" in " ".join(processes.server.cmdline())
    parent = processes.server.parent()
    assert parent is not None
    # Whose zygote has been killed belongs to the process that started everything.
    assert any(title in " ".join(parent.cmdline()) for title in (ZYGOTE_TITLE, "deployments.up"))
    assert processes.core.ppid() == processes.server.pid
