"""Kills processes of a running service under load and checks that nobody is told anything wrong.

    python -m loadtests.inside.chaos --seconds 120

Every few seconds a process of another kind gets SIGKILL: Serve's controller, the directory, a
router, a replica's actor, its engine server, its engine core. Meanwhile clients send greedy
requests, whole and streamed, whose answers are known from before. Fails (exit 1) if a text differs
from its reference, or what has come of a broken stream from the reference's beginning; if a request
hangs, or ends in another error than a broken connection, an error event or a 503 that says when to
come back; if the service is not whole again afterwards, with as many processes of each kind as
before and nothing running; and if its ledger, where it has one, lacks a completion that a client
has got whole, has one twice, has other token counts than the client was told, or has a request that
nobody has sent. So nobody else may ask the service meanwhile.

The scenario `chaos` of the load generator kills one engine and says what that costs; this one looks
at each answer, at each entry of the ledger and at the processes, and so runs beside `make serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from loadtests.inside.ask import KEY, Answered, Asker
from loadtests.inside.pages import model_ids, page
from loadtests.inside.processes import KINDS, Processes
from loadtests.loop import run as run_loop
from loadtests.measure.record import Outcome

PROMPTS = ("Once upon a time", "The capital of France is", "In Chinese you say", "Hello!")
MAX_TOKENS = 48
# A request may wait for a model as long as the service holds it (SERVING_HOLD_S), and then run.
HANGS_S = 150.0
WHOLE_AGAIN_S = 240.0
# How a connection ends that was lost in the midst of an answer.
LOST = ("truncated", "reset", "closed")
# How soon an entry is in the ledger, whoever has died.
SHIPPED_S = 30.0


@dataclass
class Chaos:
    """What a run has seen."""

    references: dict[tuple[str, str], str] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    # Of each completion that a client has got whole, by request ID: prompt and completion tokens.
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
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
    """The service under test, by its HTTP API."""

    def __init__(self, ask: Asker, url: str, key: str) -> None:
        self._ask = ask
        self.url = url
        self.key = key
        # The IDs of all requests, which are the clients' own.
        self.sent: set[str] = set()
        self._run = uuid.uuid4().hex[:8]

    async def page(self, path: str) -> tuple[int, Any]:
        """Return a page's status and content. Raises OSError where there is no answer."""
        return await page(self.url + path, self.key)

    async def complete(
        self, model: str, prompt: str, *, stream: bool = False, reference: str | None = None
    ) -> Answered:
        """Send a request, whose right answer may be known."""
        name = f"chaos-{self._run}-{len(self.sent)}"
        self.sent.add(name)
        return await self._ask(
            "create_completion",
            model,
            prompt,
            MAX_TOKENS,
            stream=stream,
            reference=reference,
            headers={"x-request-id": name},
        )


async def run(
    url: str, key: str, up: int, *, seconds: float, every_s: float, clients: int, seed: int
) -> Chaos:
    """Run it all; `up` is the process ID of `serving up`."""
    chaos, rng = Chaos(), random.Random(seed)
    began = datetime.now(UTC)
    with contextlib.closing(Asker(url, key, timeout_s=HANGS_S)) as ask:
        service, processes = Service(ask, url, key), Processes(up)
        before = processes.counts()
        for model in await model_ids(url, key):
            for prompt in PROMPTS:
                answered = await service.complete(model, prompt)
                assert answered.record.outcome is Outcome.OK, answered.record.error
                chaos.references[model, prompt] = answered.text
        deadline = time.monotonic() + seconds
        load = [
            asyncio.create_task(_client(service, chaos, random.Random(seed + number), deadline))
            for number in range(clients)
        ]
        await _break(processes, chaos, rng, every_s, deadline)
        await asyncio.gather(*load)
        await _until_whole(service, processes, chaos, before)
        await _compare_ledger(service, chaos, began)
    return chaos


async def _break(
    processes: Processes, chaos: Chaos, rng: random.Random, every_s: float, deadline: float
) -> None:
    """Kill one process of another kind every `every_s` seconds."""
    kinds: list[str] = []
    while time.monotonic() + every_s < deadline:
        await asyncio.sleep(every_s)
        if not kinds:
            kinds = [kind for kind, _ in KINDS]
            rng.shuffle(kinds)
        kind = kinds.pop()
        if processes.kill(kind, rng):
            chaos.kills[kind] += 1


async def _client(service: Service, chaos: Chaos, rng: random.Random, deadline: float) -> None:
    while time.monotonic() < deadline:
        model, prompt = rng.choice(list(chaos.references))
        reference = chaos.references[model, prompt]
        answered = await service.complete(
            model, prompt, stream=rng.random() < 0.5, reference=reference
        )
        record = answered.record
        end, problem = judge(answered, reference)
        if end == "ok":
            chaos.told[record.request_id] = record.prompt_tokens, record.completion_tokens
        chaos.ends[end] += 1
        chaos.slowest_s = max(chaos.slowest_s, record.e2e_s)
        if problem:
            chaos.problems.append(f"{model!r} {prompt!r}: {problem}")
        if end != "ok":
            await asyncio.sleep(0.5)  # a client that fails does not hammer


def judge(answered: Answered, reference: str) -> tuple[str, str | None]:
    """How a request ended, and what is wrong with that; what had come of a broken stream must be
    right too."""
    record, text = answered.record, answered.text
    error = record.error or ""
    if error.startswith("timeout"):
        return "hung", f"{error}: no end within {HANGS_S:g} s"
    if not record.status:
        return "connection lost", None
    if record.status == 503:
        return error, None if record.retry_after else f"{error} without retry-after"
    if record.status != 200:
        return str(record.status), error
    wrong = f"{text!r} instead of {reference!r}" if record.wrong else None
    if record.outcome is Outcome.OK:
        return "ok", wrong if record.usage_seen else "its usage never came"
    if error.startswith("error event"):
        return "error event", wrong
    if error.startswith(LOST):
        return "connection lost", wrong
    return error, error


async def _until_whole(
    service: Service, processes: Processes, chaos: Chaos, before: Counter[str]
) -> None:
    """Wait for the service to be as it was, and say what is missing, left over or wrong."""
    deadline = time.monotonic() + WHOLE_AGAIN_S
    ready = False
    while time.monotonic() < deadline and not (ready and processes.counts() == before):
        await asyncio.sleep(0.5)
        with contextlib.suppress(OSError):
            ready = (await service.page("/ready"))[0] == 200
    if not ready or processes.counts() != before:
        now = dict(processes.counts())
        chaos.problems.append(f"not whole again: ready {ready}, {now} instead of {dict(before)}")
        return
    for (model, prompt), expected in chaos.references.items():
        end, problem = judge(await service.complete(model, prompt, reference=expected), expected)
        if end != "ok" or problem:
            chaos.problems.append(f"afterwards {model!r} {prompt!r}: {end} {problem or ''}")
    _, listed = await service.page("/status")
    for model in listed["models"]:
        for each in model["replicas"]:
            if each["in_flight"] or each["running"] or each["waiting"]:
                chaos.problems.append(f"still busy: {model['id']} {each}")


async def _compare_ledger(service: Service, chaos: Chaos, began: datetime) -> None:
    """Compare the ledger with what the clients have got. Entries of a router that was killed are
    shipped by another one, which takes a moment."""
    deadline = time.monotonic() + SHIPPED_S
    while True:
        kept = await _ledger(service, began)
        if kept is None:
            return  # a service without a ledger
        if chaos.told.keys() <= kept.keys() or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    chaos.kept = sum(map(len, kept.values()))
    chaos.problems += compare(kept, chaos.told, service.sent)


def compare(
    kept: Mapping[str, Sequence[Mapping[str, Any]]],
    told: Mapping[str, tuple[int, int]],
    sent: Collection[str],
) -> list[str]:
    """What is wrong with the entries of a ledger, by request ID. `told` has prompt and completion
    tokens of what clients have got whole, `sent` is all that they have asked for."""
    problems = []
    if missing := [name for name in told if name not in kept]:
        problems.append(f"not in the ledger: {len(missing)} completions, as {missing[0]}")
    for name, (prompt, completion) in told.items():
        for entry in kept.get(name, [])[:1]:
            counted = entry["prompt_tokens"], entry["completion_tokens"]
            if (prompt, completion) != counted:
                problems.append(f"{name}: told {(prompt, completion)}, charged {counted}")
    if twice := [name for name, found in kept.items() if len(found) > 1]:
        problems.append(f"{len(twice)} requests are in the ledger twice, as {twice[0]}")
    if strange := [name for name in kept if name not in sent]:
        problems.append(f"in the ledger, and sent by nobody: {len(strange)}, as {strange[0]}")
    return problems


async def _ledger(service: Service, began: datetime) -> dict[str, list[dict[str, Any]]] | None:
    """The entries since then by request ID; None if there is no ledger. Those from before were
    others' requests."""
    kept: dict[str, list[dict[str, Any]]] = {}
    query = {"start_date": began.isoformat(), "limit": "1000"}
    while True:
        status, found = await service.page(f"/v4/usage/entries?{urlencode(query)}")
        if status in (404, 501):
            return None
        for entry in found["items"]:
            kept.setdefault(entry["request_id"], []).append(entry)
        if not found["next"]:
            return kept
        query["after"] = str(found["next"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="of the `serving up` on this machine"
    )
    parser.add_argument("--api-key", default=KEY)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="[default: a new one]")
    args = parser.parse_args()
    seed = args.seed or random.randrange(1, 1_000_000)
    up = int((Path(tempfile.gettempdir()) / f"serving-up-{args.port}.lock").read_text())
    chaos = run_loop(
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
