"""Kills processes of a running service under load and checks that nobody is told anything wrong.

    python -m loadtests.chaos --seconds 120

Every few seconds a process of another kind gets SIGKILL: Serve's controller, the directory, a
router, a replica's actor, its engine server, its engine core. Meanwhile clients send greedy
requests, whole and streamed, whose answers are known from before. Fails (exit 1) if a text differs
from its reference, or what has come of a broken stream from the reference's beginning; if a request
hangs, or ends in another error than a broken connection, an error event or a 503 that says when to
come back; if the service is not whole again afterwards, with as many processes of each kind as
before and nothing running; and if its ledger, where it has one, lacks a completion that a client
has got whole, has one twice, or has other token counts than the client was told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import psutil

from loadtests.client import CREATE_COMPLETION, capture, request_body

PROMPTS = ("Once upon a time", "The capital of France is", "In Chinese you say", "Hello!")
MAX_TOKENS = 48
# A request may wait for a model as long as the service holds it (SERVING_HOLD_S), and then run.
HANGS_S = 150.0
WHOLE_AGAIN_S = 240.0
# How soon an entry is in the ledger, whoever has died.
SHIPPED_S = 30.0

# By words of the command line, the first that fits. The name that the kernel keeps is looked at
# too, as titles do not always show.
KINDS = (
    ("core", ("VLLM::",)),
    ("server", ("serving.engine.server",)),
    ("zygote", ("serving: zygote",)),
    ("router", ("ServeReplica:router",)),
    ("actor", ("ServeReplica:model-",)),
    ("controller", ("ServeController",)),
    ("directory", ("DirectoryActor",)),
)


@dataclass
class Chaos:
    """What a run has seen."""

    references: dict[tuple[str, str], str] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    # Of each completion that a client has got whole, by request ID: prompt (where it was told) and
    # completion tokens.
    told: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    kept: int = 0

    def report(self) -> str:
        """Return it in words."""
        lines = [
            f"killed: {dict(self.kills)}",
            f"requests: {dict(self.ends)}; the slowest took {self.slowest_s:.1f} s",
            f"in the ledger: {self.kept}; got whole: {len(self.told)}",
            *self.problems,
        ]
        return "\n".join(lines)


class Service:
    """The service under test: its HTTP API, and its processes below that of `serving up`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, up: int) -> None:
        self.session = session
        self.url = url
        self.key = key
        self._up = psutil.Process(up)

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield its running processes of `KINDS`, each with its kind."""
        for process in self._up.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                words = " ".join((process.name(), *process.cmdline()))
                for kind, signs in KINDS:
                    if any(sign in words for sign in signs):
                        yield kind, process
                        break

    def counts(self) -> Counter[str]:
        """Return how many processes of each kind run. Zygotes are left out: a new one comes when
        the next engine server is started."""
        return Counter(kind for kind, _ in self.processes() if kind != "zygote")

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kill one process of a kind; False if none runs."""
        found = [process for each, process in self.processes() if each == kind]
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(found).kill()
        return bool(found)

    async def json(self, path: str) -> tuple[int, dict[str, object]]:
        """Return a page's status and content."""
        async with self.session.get(self.url + path, headers={"x-api-key": self.key}) as answer:
            return answer.status, await answer.json()

    async def whole(
        self, model: str, prompt: str, chaos: Chaos | None = None
    ) -> tuple[int, str, bool]:
        """Send a request that is not streamed: status, text or message, and whether it says when
        to come back. `chaos` is told what the answer says was used."""
        body = request_body(CREATE_COMPLETION, model, prompt, MAX_TOKENS) | {"stream": False}
        async with self.session.post(
            self.url + CREATE_COMPLETION, json=body, headers={"x-api-key": self.key}
        ) as answer:
            data = await answer.json()
            if answer.status == 200:
                if chaos is not None:
                    usage = data["token_usage"]
                    used = usage["prompt"], usage["completion"]
                    chaos.told[answer.headers["x-request-id"]] = used
                return 200, data["completion"]["text"], False
            return answer.status, data["error"]["message"], "retry-after" in answer.headers


async def run(
    url: str, key: str, up: int, *, seconds: float, every_s: float, clients: int, seed: int
) -> Chaos:
    """Run it all; `up` is the process ID of `serving up`."""
    chaos, rng = Chaos(), random.Random(seed)
    timeout = aiohttp.ClientTimeout(total=HANGS_S)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as session:
        service = Service(session, url, key, up)
        before = service.counts()
        _, listed = await service.json("/v1/models")
        models = [model["id"] for model in listed["data"]]  # type: ignore[attr-defined]
        for model in models:
            for prompt in PROMPTS:
                status, text, _ = await service.whole(model, prompt)
                assert status == 200, text
                chaos.references[model, prompt] = text
        deadline = time.monotonic() + seconds
        load = [
            asyncio.create_task(_client(service, chaos, random.Random(seed + number), deadline))
            for number in range(clients)
        ]
        await _break(service, chaos, rng, every_s, deadline)
        await asyncio.gather(*load)
        await _until_whole(service, chaos, before)
        await _compare_ledger(service, chaos)
    return chaos


async def _break(
    service: Service, chaos: Chaos, rng: random.Random, every_s: float, deadline: float
) -> None:
    """Kill one process of another kind every `every_s` seconds."""
    kinds: list[str] = []
    while time.monotonic() + every_s < deadline:
        await asyncio.sleep(every_s)
        if not kinds:
            kinds = [kind for kind, _ in KINDS]
            rng.shuffle(kinds)
        kind = kinds.pop()
        if service.kill(kind, rng):
            chaos.kills[kind] += 1


async def _client(service: Service, chaos: Chaos, rng: random.Random, deadline: float) -> None:
    while time.monotonic() < deadline:
        model, prompt = rng.choice(list(chaos.references))
        began = time.monotonic()
        ask = _stream if rng.random() < 0.5 else _whole
        end, problem = await ask(service, chaos, model, prompt, chaos.references[model, prompt])
        chaos.ends[end] += 1
        chaos.slowest_s = max(chaos.slowest_s, time.monotonic() - began)
        if problem:
            chaos.problems.append(f"{model!r} {prompt!r}: {problem}")
        if end != "ok":
            await asyncio.sleep(0.5)  # a client that fails does not hammer


async def _whole(
    service: Service, chaos: Chaos, model: str, prompt: str, expected: str
) -> tuple[str, str | None]:
    """How a whole request ended, and what is wrong with that."""
    try:
        status, text, says_when = await service.whole(model, prompt, chaos)
    except TimeoutError:
        return "hung", f"no answer within {HANGS_S:g} s"
    except (aiohttp.ClientError, json.JSONDecodeError):
        return "connection lost", None
    if status == 200:
        return "ok", None if text == expected else f"{text!r} instead of {expected!r}"
    if status == 503:
        return (
            f"503 {text.partition(' ')[0]}",
            None if says_when else f"503 without retry-after: {text}",
        )
    return str(status), text


async def _stream(
    service: Service, chaos: Chaos, model: str, prompt: str, expected: str
) -> tuple[str, str | None]:
    """As `_whole`, of a stream: what had come when it broke must be right too."""
    body = request_body(CREATE_COMPLETION, model, prompt, MAX_TOKENS)
    came = await capture(service.session, service.url, service.key, CREATE_COMPLETION, body)
    if came.error is not None and came.error.startswith("TimeoutError"):
        return "hung", f"a stream did not end within {HANGS_S:g} s"
    if came.status not in (0, 200, 503):
        return str(came.status), came.result().error
    if came.status != 200:
        return "connection lost" if came.status == 0 else "503", None
    result = replace(came, error=None).result()
    if result.error is None:
        chaos.told[came.request_id] = None, result.completion_tokens
        same = result.text == expected
        return "ok", None if same else f"{result.text!r} instead of {expected!r}"
    end = "connection lost" if came.error else "error event"
    wrong = f"{result.text!r} is no beginning of {expected!r}"
    return end, None if expected.startswith(result.text) else wrong


async def _until_whole(service: Service, chaos: Chaos, before: Counter[str]) -> None:
    """Wait for the service to be as it was, and say what is missing, left over or wrong."""
    deadline = time.monotonic() + WHOLE_AGAIN_S
    ready = False
    while time.monotonic() < deadline and not (ready and service.counts() == before):
        await asyncio.sleep(0.5)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            ready = (await service.json("/ready"))[0] == 200
    if not ready or service.counts() != before:
        now = dict(service.counts())
        chaos.problems.append(f"not whole again: ready {ready}, {now} instead of {dict(before)}")
        return
    for (model, prompt), expected in chaos.references.items():
        status, text, _ = await service.whole(model, prompt)
        if (status, text) != (200, expected):
            chaos.problems.append(f"afterwards {model!r} {prompt!r}: {status} {text!r}")
    _, listed = await service.json("/status")
    for model in listed["models"]:  # type: ignore[attr-defined]
        for each in model["replicas"]:
            if each["in_flight"] or each["running"] or each["waiting"]:
                chaos.problems.append(f"still busy: {model['id']} {each}")


async def _compare_ledger(service: Service, chaos: Chaos) -> None:
    """Compare the ledger with what the clients have got. Entries of a router that was killed are
    shipped by another one, which takes a moment."""
    deadline = time.monotonic() + SHIPPED_S
    while True:
        kept = await _ledger(service)
        if kept is None:
            return  # a service without a ledger
        missing = [name for name in chaos.told if name not in kept]
        if not missing or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    chaos.kept = sum(map(len, kept.values()))
    if missing:
        chaos.problems.append(f"not in the ledger: {len(missing)} completions, as {missing[0]}")
    for name, (prompt, completion) in chaos.told.items():
        for entry in kept.get(name, [])[:1]:
            counted = entry["prompt_tokens"], entry["completion_tokens"]
            if completion != counted[1] or prompt not in (None, counted[0]):
                chaos.problems.append(f"{name}: told {(prompt, completion)}, charged {counted}")
    if twice := [name for name, found in kept.items() if len(found) > 1]:
        chaos.problems.append(f"{len(twice)} requests are in the ledger twice, as {twice[0]}")


async def _ledger(service: Service) -> dict[str, list[dict[str, Any]]] | None:
    """The entries of the last hour by request ID; None if there is no ledger."""
    kept: dict[str, list[dict[str, Any]]] = {}
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    query = {"start_date": since, "limit": "1000"}
    while True:
        status, page = await service.json(f"/v4/usage/entries?{urlencode(query)}")
        if status in (404, 501):
            return None
        items: Any = page["items"]
        for entry in items:
            kept.setdefault(entry["request_id"], []).append(entry)
        if not page["next"]:
            return kept
        query["after"] = str(page["next"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="of the `serving up` on this machine"
    )
    parser.add_argument("--api-key", default="sk-local")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="[default: a new one]")
    args = parser.parse_args()
    seed = args.seed or random.randrange(1, 1_000_000)
    up = int((Path(tempfile.gettempdir()) / f"serving-up-{args.port}.lock").read_text())
    chaos = asyncio.run(
        run(
            f"http://127.0.0.1:{args.port}",
            args.api_key,
            up,
            seconds=args.seconds,
            every_s=args.every,
            clients=args.clients,
            seed=seed,
        )
    )
    print(f"seed {seed}\n{chaos.report()}")
    sys.exit(1 if chaos.problems else 0)


if __name__ == "__main__":
    main()
