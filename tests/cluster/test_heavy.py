"""Whatever one caller sends, others go on; and an engine that hangs is found and ended.

One engine server and one router, without Ray. `make heavy` sends many more bodies.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from loadtests.inside import heavy
from loadtests.inside.heavy_bodies import BODIES, SHORT
from loadtests.inside.stacks import Model
from serving.engine.server import EXIT_ENGINE_STUCK
from tests.live import LOCAL, poll, runs

STUCK_S = 4.0
# Far above what a busy test machine adds, far below what these bodies cost on the event loop, where
# they are worked on for three to forty seconds.
ADDED_S = 1.5
# Far above what it takes to hand over a body of 3 MB; the grammar of a tenth of its enum takes 160.
GROWN_MIB = 100


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("heavy")
    with heavy.alone(Model.load(LOCAL), folder, stuck_s=STUCK_S) as url:
        yield url


@pytest.mark.parametrize("names", [SHORT[:4], pytest.param(SHORT[4:], marks=pytest.mark.long)])
def test_others_go_on_while_one_caller_sends_a_heavy_request(
    url: str, names: tuple[str, ...]
) -> None:
    found = asyncio.run(heavy.measure(url, "tiny-llama", list(names)))
    told = "\n".join(map(heavy.line, found))
    assert [each.name for each in found] == list(names)
    assert all(each.status in (200, 400, 413, 422) for each in found), told
    assert all(not each.beside.errors for each in found), told
    # Also for whoever asks for structured answers, which needs a helper and a grammar of the core.
    assert all(each.most_added_s < ADDED_S for each in found), told


def test_a_grammar_that_is_refused_takes_no_memory_of_the_engine(url: str) -> None:
    client = httpx.Client(base_url=url, headers={"x-api-key": heavy.KEY}, timeout=60)

    def ask(name: str) -> int:
        path, body = BODIES[name]("tiny-llama")
        headers = {"content-type": "application/json"}
        return client.post(path, content=body, headers=headers).status_code

    # What the first grammar of all takes is no matter of its size.
    assert ask("enum of 1,000") == 200
    server, core = engine_processes()
    before = {process: forget_peak(process) for process in (server, core)}
    assert ask("enum of 200,000") == 400
    grown = [peak_mib(process) - mib for process, mib in before.items()]
    assert max(grown) < GROWN_MIB, f"engine server and core: {grown} MiB"


def engine_processes() -> tuple[psutil.Process, psutil.Process]:
    """The engine server of this module, and its core."""
    (server,) = [
        process
        for process in psutil.Process().children()
        if runs(process) and "serving.engine.server" in " ".join(process.cmdline())
    ]
    (core,) = [child for child in server.children() if "EngineCore" in " ".join(child.cmdline())]
    return server, core


def forget_peak(process: psutil.Process) -> float:
    """What a process holds, from which its peak is counted from now on: see proc(5)."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return peak_mib(process)


def peak_mib(process: psutil.Process) -> float:
    """The most that it has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(found) / 1024


def test_an_engine_that_hangs_is_ended_and_one_that_works_is_not(url: str) -> None:
    server, core = engine_processes()
    body = {"model": "tiny-llama", "prompt": "a", "max_tokens": 900, "ignore_eos": True}
    client = httpx.Client(base_url=url, headers={"x-api-key": heavy.KEY}, timeout=60)
    until = time.monotonic() + 2.5 * STUCK_S
    while time.monotonic() < until:
        assert client.post("/v1/completions", json=body).status_code == 200
    assert server.is_running()
    os.kill(core.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 503
    assert server.wait(10) == EXIT_ENGINE_STUCK
    assert time.monotonic() - stopped < 4 * STUCK_S
    poll(lambda: not core.is_running() or core.status() == psutil.STATUS_ZOMBIE, 5, "no core")
