"""What others wait while one caller sends a heavy request.

    python -m loadtests.inside.heavy [--models FILE] [--embed] [--only WORD] [--json FILE]

One engine server of the first model of a models file and one router in front of it, without Ray.
Bystanders stream short completions all the time, and one more caller asks for structured answers;
an attacker, a process and a caller of its own, sends one body of `heavy_bodies.py` after the other.
A bystander's latency is what it waits for its first token and between tokens. If the model embeds
or scores, they ask for that, the bodies are those of `heavy_reading.py`, and the latency is that of
a whole answer. Before each body the bystanders run alone for a while: what they wait longer while
the body is worked on, worst against worst (p100), is the added latency. Whatever else the machine
does shows in a p100 too: a body that was over the bar is sent again, a few times at most, and what
it added at least counts. A bystander that fails, or an attacker without an answer, always counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from loadtests.inside.ask import Asker
from loadtests.inside.heavy_bodies import BODIES, Maker
from loadtests.inside.heavy_reading import EMBED, SCORES
from loadtests.inside.stacks import Model, free_port, wait_until
from loadtests.load.planned import Endpoint
from loadtests.loop import run as run_loop

DEFAULT_MODELS = Path("deployments/models/local.yaml")
# Whose turn it is goes by account, and by key where a key has none.
KEY, STRUCTURED_KEY, ATTACKER_KEY = "sk-heavy", "sk-heavy-structured", "sk-heavy-attacker"
STREAMS = 4
TOKENS = 24
ALONE_S = 2.0
# Bystanders go on for so long after the heavy request has its answer: its work may not have ended.
AFTER_S = 1.5
# The longest that a heavy request may take to be answered or refused: 115,000 tokens take a minute
# while others call.
ANSWER_S = 300.0
BAR_S = 0.1
# How often a body is sent that is over the bar.
TRIES = 3
# What bystanders ask of a model that reads, by its `task`: the endpoint, and fields of the body.
READS: dict[str, tuple[Endpoint, dict[str, Any]]] = {
    "embed": ("embeddings", {}),
    "score": ("rerank", {"documents": ["A robot.", "A flower."]}),
}
LINE = "the robot went down to the river and looked at the water."
# By the model's `task`.
BODIES_FOR: dict[str, dict[str, Maker]] = {"generate": BODIES, "embed": EMBED, "score": SCORES}


@dataclass
class Waits:
    """The longest waits of the bystanders, in seconds."""

    first_s: float = 0.0
    gap_s: float = 0.0
    structured_s: float = 0.0
    requests: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass
class Figures:
    """What one heavy request did to the bystanders."""

    name: str
    status: int
    said: str
    took_s: float
    alone: Waits
    beside: Waits

    @property
    def added_s(self) -> float:
        """What plain bystanders waited longer, p100 against p100."""
        first = self.beside.first_s - self.alone.first_s
        return max(0.0, first, self.beside.gap_s - self.alone.gap_s)

    @property
    def added_structured_s(self) -> float:
        """The same of whole requests with a small JSON schema."""
        return max(0.0, self.beside.structured_s - self.alone.structured_s)

    @property
    def failed(self) -> bool:
        """True if somebody had no answer."""
        return not self.status or bool(self.beside.errors)

    @property
    def most_added_s(self) -> float:
        """What anybody waited longer."""
        return max(self.added_s, self.added_structured_s)


class Bystanders:
    """Clients that ask for short completions, vectors or scores without a pause."""

    def __init__(self, ask: Asker, model: str, task: str) -> None:
        self._ask = ask
        self._model = model
        self._task = task
        self._sent = 0

    async def run(self, until: asyncio.Event) -> Waits:
        """Ask until told to stop; each stream is then read to its end."""
        waits = Waits()
        if self._task == "generate":
            clients = [*(self._stream(waits, until) for _ in range(STREAMS))]
            clients.append(self._structured(waits, until))
        else:
            clients = [self._read(waits, until) for _ in range(STREAMS)]
        await asyncio.gather(*clients)
        return waits

    async def _read(self, waits: Waits, until: asyncio.Event) -> None:
        endpoint, extra = READS[self._task]
        while not until.is_set():
            self._sent += 1
            text = f"Story {self._sent}: {LINE}"
            found = await self._ask(endpoint, self._model, text, 0, stream=False, extra=extra)
            waits.requests += 1
            if found.record.error is not None:
                waits.errors.append(found.record.error)
                await asyncio.sleep(0.05)
                continue
            waits.first_s = max(waits.first_s, found.record.e2e_s)

    async def _stream(self, waits: Waits, until: asyncio.Event) -> None:
        while not until.is_set():
            self._sent += 1
            story = f"Story {self._sent}:"
            found = await self._ask("completions", self._model, story, TOKENS, ignore_eos=True)
            record = found.record
            waits.requests += 1
            if record.error is not None:
                waits.errors.append(record.error)
                await asyncio.sleep(0.05)
                continue
            waits.first_s = max(waits.first_s, record.ttft_s or 0.0)
            between = (after - before for before, after in pairwise(record.event_s))
            waits.gap_s = max([waits.gap_s, *between])

    async def _structured(self, waits: Waits, until: asyncio.Event) -> None:
        while not until.is_set():
            self._sent += 1
            # A schema of its own each time: a grammar that is known already costs nothing.
            schema = {"type": "string", "enum": [f"{self._sent}", "b"]}
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            body = {"response_format": form}
            found = await self._ask(
                "completions", self._model, "a", 2, stream=False, key=STRUCTURED_KEY, extra=body
            )
            if found.record.error is not None:
                waits.errors.append(found.record.error)
            else:
                waits.structured_s = max(waits.structured_s, found.record.e2e_s)
            await asyncio.sleep(0.05)


class Attacker:
    """A process that makes a heavy body and sends it, so that the bystanders' clients, which
    measure, do not have that work."""

    def __init__(self, url: str, model: str, task: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        args = (theirs, url, model, task)
        self._process = context.Process(target=_attack, args=args, daemon=True)
        self._process.start()

    async def prepare(self, name: str) -> None:
        """Have the body made."""
        self._ours.send(name)
        await asyncio.to_thread(self._ours.recv)

    async def send(self) -> tuple[int, str, float]:
        """Status, the answer's beginning, and seconds until it was whole."""
        self._ours.send("go")
        found: tuple[int, str, float] = await asyncio.to_thread(self._ours.recv)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _attack(pipe: Connection, url: str, model: str, task: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        path, body = BODIES_FOR[task][pipe.recv()](model)
        pipe.send("made")
        pipe.recv()
        headers = {"x-api-key": ATTACKER_KEY, "content-type": "application/json"}
        request = urllib.request.Request(url + path, data=body, headers=headers)
        started = time.monotonic()
        status, said = 0, ""
        try:
            with opener.open(request, timeout=ANSWER_S) as response:
                status, said = response.status, response.read(300).decode(errors="replace")
                response.read()
        except urllib.error.HTTPError as error:
            status, said = error.code, error.read(300).decode(errors="replace")
        except OSError as error:
            said = f"{type(error).__name__}: {error}"
        pipe.send((status, said, time.monotonic() - started))


async def measure(url: str, model: str, names: list[str], task: str = "generate") -> list[Figures]:
    """Send each body, and look at the bystanders before and meanwhile."""
    attacker = Attacker(url, model, task)
    done = []
    try:
        with closing(Asker(url, KEY, timeout_s=2 * ANSWER_S)) as ask:
            bystanders = Bystanders(ask, model, task)
            await _for(bystanders, ALONE_S)  # warm
            for name in names:
                tries: list[Figures] = []
                while not tries or (len(tries) < TRIES and tries[-1].most_added_s > BAR_S):
                    tries.append(await _one(attacker, bystanders, name))
                    print(line(tries[-1]), file=sys.stderr, flush=True)
                done.append(min(tries, key=lambda found: (not found.failed, found.most_added_s)))
    finally:
        attacker.close()
    return done


async def _one(attacker: Attacker, bystanders: Bystanders, name: str) -> Figures:
    await attacker.prepare(name)
    alone = await _for(bystanders, ALONE_S)
    until = asyncio.Event()
    beside = asyncio.create_task(bystanders.run(until))
    await asyncio.sleep(0.2)
    status, said, took = await attacker.send()
    await asyncio.sleep(AFTER_S)
    until.set()
    return Figures(name, status, said, took, alone, await beside)


async def _for(bystanders: Bystanders, seconds: float) -> Waits:
    until = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, until.set)
    return await bystanders.run(until)


def line(found: Figures) -> str:
    """One body's figures, in milliseconds."""
    said = " ".join(found.said.split())[:110]
    errors = f"  BYSTANDERS: {found.beside.errors[:2]}" if found.beside.errors else ""
    return (
        f"{found.name[:38]:38} {found.status:3} {found.took_s * 1e3:7.0f}  "
        f"added {found.added_s * 1e3:6.0f}  structured {found.added_structured_s * 1e3:6.0f}  "
        f"(alone {found.alone.first_s * 1e3:4.0f} {found.alone.gap_s * 1e3:4.0f} "
        f"{found.alone.structured_s * 1e3:4.0f}; beside {found.beside.first_s * 1e3:5.0f} "
        f"{found.beside.gap_s * 1e3:5.0f} {found.beside.structured_s * 1e3:5.0f}) {said}{errors}"
    )


@contextmanager
def alone(model: Model, folder: Path, stuck_s: float = 60.0) -> Iterator[str]:
    """One engine server and one router, and where the router listens."""
    with ExitStack() as stack:
        port_of_engine = stack.enter_context(_engine(model, folder, stuck_s))
        file = folder / "models.yaml"
        file.write_text(yaml.safe_dump(model.file))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "serving.router", "--models", str(file)]
        command += ["--port", str(port), "--replica", "r#1", model.id]
        command += [f"127.0.0.1:{port_of_engine}"]
        env = os.environ | {"SERVING_API_KEYS": f"{KEY},{STRUCTURED_KEY},{ATTACKER_KEY}"}
        env["SERVING_CLUSTER_TOKEN"] = KEY
        # Nobody replaces an engine server that ends here: nothing is to be waited for.
        env["SERVING_HOLD_S"] = "0"
        output = stack.enter_context((folder / "router.out").open("wb"))
        router = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        stack.callback(router.wait)
        stack.callback(router.kill)
        wait_until(f"{url}/ready", router, "the router")
        yield url


@contextmanager
def _engine(model: Model, folder: Path, stuck_s: float) -> Iterator[int]:
    """An engine server, and the port of its link."""
    read_fd, write_fd = os.pipe()
    # `EngineLaunch` in serving/wire/launch.py.
    launch: dict[str, Any] = {"spec": {"kind": "engine", **model.spec}, "replica": "r#1"}
    launch |= {"token": KEY, "ready_fd": write_fd, "drain_s": 1.0, "stuck_s": stuck_s}
    env = os.environ | model.env | {"VLLM_PORT": str(free_port())}
    env["SERVING_ENGINE"] = json.dumps(launch)
    env["SERVING_ENGINE_PARENT"] = str(os.getpid())
    output = folder / "engine.out"
    with output.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.engine.server"],
            env=env,
            pass_fds=[write_fd],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd, "rb") as pipe:
            said = pipe.readline()
        if not said:
            raise RuntimeError(f"the engine server did not start: {output.read_text()[-4000:]}")
        yield int(json.loads(said)["link_port"])
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def embedding(model: Model) -> Model:
    """A model that generates, as one that embeds."""
    spec = model.spec | {"task": "embed", "prompt_style": "raw", "lora": None}
    return Model(model.id, None, spec, model.file | {"models": [spec]})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=DEFAULT_MODELS)
    parser.add_argument("--embed", action="store_true", help="the model embeds, whatever it is for")
    parser.add_argument("--only", default="", help="names that contain this, or these: A|B")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    words = args.only.split("|")
    model = Model.load(args.models)
    if args.embed:
        model = embedding(model)
    task = model.spec.get("task", "generate")
    names = [name for name in BODIES_FOR[task] if any(word in name for word in words)]
    with tempfile.TemporaryDirectory() as folder, alone(model, Path(folder)) as url:
        figures = run_loop(measure(url, model.id, names, task))
    if args.json:
        args.json.write_text(json.dumps([_as_json(found) for found in figures], indent=1))
    over = [found for found in figures if found.most_added_s > BAR_S]
    for found in over:
        print(f"over {BAR_S * 1e3:.0f} ms: {line(found)}")
    failed = [found for found in figures if found.failed]
    for found in failed:
        print(f"not answered within {ANSWER_S:.0f} s, or a bystander failed: {line(found)}")
    sys.exit(1 if over or failed else 0)


def _as_json(found: Figures) -> dict[str, Any]:
    return asdict(found) | {"added_s": found.added_s}


if __name__ == "__main__":
    main()
