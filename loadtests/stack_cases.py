"""Runs one kind of load against one stack and returns figures."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadtests.client import CHAT, CREATE_COMPLETION, OPENAI, Capture, capture, request_body
from loadtests.stacks import Stack

PROMPT = "Once upon a time"
KEY = "sk-local"


@dataclass(frozen=True)
class Case:
    """One kind of load: how many clients ask which stack for what."""

    name: str
    stack: str
    path: str
    model: str
    clients: int
    tokens: int = 64
    stream: bool = True
    # The first client asks for this model instead.
    companion: str | None = None

    def body(self, client: int) -> dict[str, Any]:
        """Return what the client of this number sends."""
        model = self.companion if self.companion and client == 0 else self.model
        body = request_body(self.path, model, PROMPT, self.tokens) | {"stream": self.stream}
        if not self.stream:
            body.pop("stream_options", None)
        return body


Figures = dict[str, Any]


async def run(stack: Stack, case: Case, seconds: float) -> Figures:
    """Let each client send one request after the other for `seconds`.

    The figures have CPU seconds by role. What the stack uses while idle is still in them; `net`
    subtracts it.

    Raises:
        RuntimeError: a request failed, or delivered another number of tokens than it asked for.
    """
    captures: list[Capture] = []

    async def client(number: int, session: aiohttp.ClientSession, deadline: float) -> None:
        body = case.body(number)
        while time.monotonic() < deadline:
            captures.append(await capture(session, stack.url, KEY, case.path, body))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        before, started = stack.cpu(), time.monotonic()
        deadline = started + seconds
        await asyncio.gather(*(client(number, session, deadline) for number in range(case.clients)))
        elapsed = time.monotonic() - started
        used = stack.cpu() - before
    figures: Figures = {
        "seconds": elapsed,
        "requests": len(captures),
        "tokens": len(captures) * case.tokens,
        "tokens_per_s": len(captures) * case.tokens / elapsed,
        "cpu_s": used.roles,
    }
    return figures | (_latencies(case, captures) if case.stream else _check_whole(captures))


def _latencies(case: Case, captures: Sequence[Capture]) -> Figures:
    first: list[float] = []
    gaps: list[float] = []
    texts: set[str] = set()
    for result in (found.result() for found in captures):
        if result.error or result.completion_tokens != case.tokens:
            raise RuntimeError(
                f"{case.name}: {result.error or f'{result.completion_tokens} tokens'}"
            )
        first.append(result.first_byte_s or 0.0)
        gaps += result.gaps_s
        texts.add(result.text)
    return {
        "texts": sorted(texts),
        "ttft_p50_ms": statistics.median(first) * 1e3,
        "ttft_p99_ms": quantile(first, 0.99) * 1e3,
        "gap_p50_ms": quantile(gaps, 0.5) * 1e3,
        "gap_p99_ms": quantile(gaps, 0.99) * 1e3,
    }


def _check_whole(captures: Sequence[Capture]) -> Figures:
    for found in captures:
        if found.error or found.status != 200:
            raise RuntimeError(found.error or f"status {found.status}")
    return {"request_p50_ms": statistics.median(at.ended - at.started for at in captures) * 1e3}


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


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile, by the nearest rank from below; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0


def stack_cases(model: str, adapter: str | None, streams: int = 32) -> list[Case]:
    """Return the loads that bare vLLM and our stack are compared with, in the order they run.

    The first three are those of `--quick`. They and the chats have `streams` streams.
    """
    v4, v1 = CREATE_COMPLETION, OPENAI
    cases = [
        Case("bare /v1", "bare", v1, model, streams),
        Case("ours /v4", "ours", v4, model, streams),
        Case("ours /v1", "ours", v1, model, streams),
        Case("bare chat", "bare", CHAT, model, streams),
        Case("ours chat", "ours", CHAT, model, streams),
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
    for stack, path in (("bare", v1), ("ours", v4)):
        name = f"{stack} {path[:3]}, 1 token, whole"
        cases.append(Case(name, stack, path, model, 8, tokens=1, stream=False))
    return cases
