"""Holds many streams against a running service and checks that nothing leaks.

    python -m loadtests.soak --streams 200 --seconds 120

Fails (exit 1) if a stream fails, if a greedy prompt gives two different texts, if an engine's slot
is still occupied at the end, if the routers counted another number of requests than were sent, or
if a router's memory still grows in the second half of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from loadtests.client import CREATE_COMPLETION, Result, request_body, stream_completion

PROMPTS = ("Once upon a time", "The capital of France is", "In Chinese you say", "Hello!")
# A router may grow by so much in the second half: that is the allocator's noise and no leak.
MEMORY_SLACK_BYTES = 8 * 1024 * 1024
SAMPLE_S = 5.0


@dataclass
class Soak:
    """What the run has seen so far."""

    results: int = 0
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    texts: dict[tuple[str, str], str] = field(default_factory=dict)
    different: set[tuple[str, str]] = field(default_factory=set)
    memory: dict[str, list[float]] = field(default_factory=dict)

    def add(self, model: str, prompt: str, result: Result) -> None:
        """Count one finished stream."""
        self.results += 1
        self.tokens += result.completion_tokens
        if result.error is not None:
            self.errors[result.error] += 1
            return
        if result.first_byte_s is not None:
            self.first_s.append(result.first_byte_s)
        if self.texts.setdefault((model, prompt), result.text) != result.text:
            self.different.add((model, prompt))


class Service:
    """The service under test, asked over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self.url = url
        self.key = key

    async def json(self, path: str) -> object:
        """Return the API's JSON answer."""
        async with self._session.get(self.url + path, headers={"x-api-key": self.key}) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def models(self) -> list[str]:
        """Return every served model ID."""
        listed = await self.json("/v1/models")
        assert isinstance(listed, dict)
        return [model["id"] for model in listed["data"]]

    async def metric(self, component: str, name: str, **labels: str) -> dict[str, float]:
        """Return the sum of a metric's samples with these labels, by router or engine replica."""
        targets = await self.json("/metrics/targets")
        assert isinstance(targets, list)
        values: dict[str, float] = {}
        for target in targets:
            if target["labels"]["component"] != component:
                continue
            async with self._session.get(f"http://{target['targets'][0]}/metrics") as answer:
                families = text_string_to_metric_families(await answer.text())
            values[target["labels"]["replica"]] = sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
        return values

    async def counted(self) -> float:
        """Return the completions that the routers have counted."""
        values = await self.metric("router", "serving_requests_total", endpoint=CREATE_COMPLETION)
        return sum(values.values())


async def run(url: str, key: str, streams: int, seconds: float) -> int:
    """Run the whole soak; return the exit status."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        service = Service(session, url, key)
        await service.json("/ready")
        models = await service.models()
        counted_before = await service.counted()
        soak = Soak()
        deadline = time.monotonic() + seconds
        sampler = asyncio.create_task(_sample(service, soak, deadline))
        await asyncio.gather(
            *(_client(session, service, soak, models, n, deadline) for n in range(streams))
        )
        await sampler
        problems = await _leaks(service, soak, counted_before)
    problems += [f"{count} streams: {error}" for error, count in soak.errors.items()]
    problems += [
        f"different greedy texts: {model!r} {prompt!r}" for model, prompt in soak.different
    ]
    problems += _growth(soak.memory)
    ordered = sorted(soak.first_s) or [0.0]
    report = {
        "streams": streams,
        "seconds": seconds,
        "completions": soak.results,
        "tokens_per_s": round(soak.tokens / seconds, 1),
        "ttft_p50_s": round(statistics.median(ordered), 3),
        "ttft_p99_s": round(ordered[int(len(ordered) * 0.99) - 1], 3),
        "router_memory_mib": {
            router: [round(value / 2**20, 1) for value in values]
            for router, values in soak.memory.items()
        },
        "problems": problems,
    }
    print(json.dumps(report, indent=2))
    return 1 if problems else 0


async def _client(
    session: aiohttp.ClientSession,
    service: Service,
    soak: Soak,
    models: list[str],
    number: int,
    deadline: float,
) -> None:
    turn = number
    while time.monotonic() < deadline:
        model = models[turn % len(models)]
        prompt = PROMPTS[(turn // len(models)) % len(PROMPTS)]
        turn += 1
        body = request_body(CREATE_COMPLETION, model, prompt, None)
        result = await stream_completion(session, service.url, service.key, CREATE_COMPLETION, body)
        soak.add(model, prompt, result)
        if result.error is not None:
            await asyncio.sleep(1.0)  # a client that fails does not hammer


async def _sample(service: Service, soak: Soak, deadline: float) -> None:
    while time.monotonic() < deadline:
        for router, value in (
            await service.metric("router", "process_resident_memory_bytes")
        ).items():
            soak.memory.setdefault(router, []).append(value)
        print(
            f"{max(0, deadline - time.monotonic()):5.0f} s left, {soak.results} completions, "
            f"{sum(soak.errors.values())} errors",
            file=sys.stderr,
        )
        await asyncio.sleep(SAMPLE_S)


async def _leaks(service: Service, soak: Soak, counted_before: float) -> list[str]:
    """Name what is still occupied a second after the last stream, and requests that the routers
    did not count."""
    problems = []
    await asyncio.sleep(1.0)
    for replica, running in (await service.metric("engine", "vllm:num_requests_running")).items():
        if running:
            problems.append(f"engine {replica} still runs {running:g} requests")
    for router, count in (await service.metric("router", "serving_requests_in_flight")).items():
        if count:
            problems.append(f"router {router} still counts {count:g} requests in flight")
    counted = await service.counted()
    if counted - counted_before != soak.results:
        problems.append(
            f"{soak.results} requests sent, {counted - counted_before:g} counted by the routers"
        )
    return problems


def _growth(memory: dict[str, list[float]]) -> list[str]:
    problems = []
    for router, values in memory.items():
        middle = values[len(values) // 2 :]
        if middle and max(middle) - middle[0] > MEMORY_SLACK_BYTES:
            problems.append(
                f"router {router} grew by {(max(middle) - middle[0]) / 2**20:.1f} MiB "
                "in the second half"
            )
    return problems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key", default="sk-local")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    sys.exit(asyncio.run(run(args.url, args.api_key, args.streams, args.seconds)))


if __name__ == "__main__":
    main()
