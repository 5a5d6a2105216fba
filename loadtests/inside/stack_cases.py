"""Runs one kind of load against one stack and returns figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from loadtests.inside.ask import Answered, Asker
from loadtests.inside.stacks import Stack
from loadtests.load.planned import Endpoint
from loadtests.measure.cell import gaps
from loadtests.measure.histogram import Histogram, micros
from loadtests.measure.record import Outcome

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class Case:
    """One kind of load: how many clients ask which stack for what."""

    name: str
    stack: str
    endpoint: Endpoint
    model: str
    clients: int
    tokens: int = 64
    stream: bool = True
    # The first client asks for this model instead.
    companion: str | None = None

    async def send(self, ask: Asker, client: int) -> Answered:
        """Send what the client of this number sends."""
        model = self.companion if self.companion and client == 0 else self.model
        return await ask(self.endpoint, model, PROMPT, self.tokens, stream=self.stream)


Figures = dict[str, Any]


async def run(stack: Stack, case: Case, seconds: float) -> Figures:
    """Let each client send one request after the other for `seconds`.

    The figures have CPU seconds by role. What the stack uses while idle is still in them; `net`
    subtracts it.

    Raises:
        RuntimeError: a request failed, or delivered another number of tokens than it asked for.
    """
    answers: list[Answered] = []

    async def client(number: int, ask: Asker, deadline: float) -> None:
        while time.monotonic() < deadline:
            answers.append(await case.send(ask, number))

    with closing(Asker(stack.url)) as ask:
        before, started = stack.cpu(), time.monotonic()
        deadline = started + seconds
        await asyncio.gather(*(client(number, ask, deadline) for number in range(case.clients)))
        elapsed = time.monotonic() - started
        used = stack.cpu() - before
    figures: Figures = {
        "seconds": elapsed,
        "requests": len(answers),
        "tokens": len(answers) * case.tokens,
        "tokens_per_s": len(answers) * case.tokens / elapsed,
        "cpu_s": used.roles,
    }
    return figures | latencies(case, answers)


def latencies(case: Case, answers: Sequence[Answered]) -> Figures:
    """Return percentiles of what the clients saw, and their texts.

    Raises:
        RuntimeError: as `run`.
    """
    first, between, whole = Histogram(), Histogram(), Histogram()
    for record in (answer.record for answer in answers):
        if record.outcome is not Outcome.OK or record.completion_tokens != case.tokens:
            raise RuntimeError(
                f"{case.name}: {record.error or f'{record.completion_tokens} tokens'}"
            )
        whole.add(micros(record.e2e_s))
        if record.ttft_s is not None:
            first.add(micros(record.ttft_s))
            between.extend(gaps(record.event_s))
    if not case.stream:
        return {"request_p50_ms": _ms(whole, 500)}
    return {
        "texts": sorted({answer.text for answer in answers}),
        "ttft_p50_ms": _ms(first, 500),
        "ttft_p99_ms": _ms(first, 990),
        "gap_p50_ms": _ms(between, 500),
        "gap_p99_ms": _ms(between, 990),
    }


def _ms(histogram: Histogram, permille: int) -> float:
    return histogram.percentiles((permille,))[0] / 1000 if len(histogram) else 0.0


async def idle(stack: Stack, seconds: float) -> dict[str, float]:
    """Measure the CPU that a stack uses without load, in seconds per second, by role."""
    before = stack.cpu()
    await asyncio.sleep(seconds)
    return {role: used / seconds for role, used in (stack.cpu() - before).roles.items()}


def net(figures: Figures, idle: dict[str, float]) -> Figures:
    """Add CPU microseconds per token and per request to the figures, without the idle use.

    `frontend_us` and `engine_us` are per token, `request_us` is the frontend's per request, and
    `idle_cpu` is the frontend's idle use in CPU seconds per second. Each role's idle use over the
    same time is subtracted. The rest is never below zero, which it could be where background work
    finds no time under load.
    """
    by_role = {
        role: max(0.0, used - idle.get(role, 0.0) * figures["seconds"])
        for role, used in figures["cpu_s"].items()
    }
    engine = by_role.get("engine core", 0.0)
    frontend = sum(by_role.values()) - engine
    return figures | {
        "roles_us": {
            role: round(used / figures["tokens"] * 1e6, 2) for role, used in by_role.items()
        },
        "frontend_us": frontend / figures["tokens"] * 1e6,
        "engine_us": engine / figures["tokens"] * 1e6,
        "request_us": frontend / figures["requests"] * 1e6,
        "idle_cpu": sum(idle.values()) - idle.get("engine core", 0.0),
    }


def stack_cases(model: str, adapter: str | None, streams: int = 32) -> list[Case]:
    """Return the loads that bare vLLM and our stack are compared with, in the order they run.

    The first three are those of `--quick`. They and the chats have `streams` streams.
    """
    v4: Endpoint = "create_completion"
    v1: Endpoint = "completions"
    cases = [
        Case("bare /v1", "bare", v1, model, streams),
        Case("ours /v4", "ours", v4, model, streams),
        Case("ours /v1", "ours", v1, model, streams),
        Case("bare chat", "bare", "chat", model, streams),
        Case("ours chat", "ours", "chat", model, streams),
    ]
    if adapter:
        # A single adapter in a batch makes vLLM's step twice as long on CPU, for the whole batch,
        # and any frontend uses more CPU per token when tokens come slower. So the base model is
        # also measured beside one adapter stream: then only the frontend's own work differs.
        cases.append(Case("bare /v1, adapter", "bare", v1, adapter, streams))
        cases.append(Case("ours /v4, adapter", "ours", v4, adapter, streams))
        name = "ours /v4, base beside an adapter"
        cases.append(Case(name, "ours", v4, model, streams, companion=adapter))
    for clients, count in ((128, "128 streams"), (1, "1 stream")):
        cases.append(Case(f"bare /v1, {count}", "bare", v1, model, clients))
        cases.append(Case(f"ours /v4, {count}", "ours", v4, model, clients))
    for stack, version, endpoint in (("bare", "/v1", v1), ("ours", "/v4", v4)):
        name = f"{stack} {version}, 1 token, whole"
        cases.append(Case(name, stack, endpoint, model, 8, tokens=1, stream=False))
    return cases
