"""Hostile OpenAI bodies against real engines: `python -m tests.fuzz_bodies --cases 2000`.

No body may end in a 5xx (but a full queue's 503), none may leave anything in the engine, hold its
event loop or make a bystander wait, and memory stays flat. The engine runs in this process, so that
its books can be read after each round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from serving.api.asked import Ability
from serving.api.completion import parse_completion
from serving.engine.calls import run_call
from serving.engine.interface import Tally
from serving.errors import ClientLeft, EngineFailed, Overloaded, ServingError
from serving.wire.messages import AdapterRef, Head, HttpCall
from tests.fuzz_bystander import Bystander
from tests.fuzz_engines import (
    ANTHROPIC,
    CREATE_COMPLETION,
    ENGINES,
    MODEL,
    RESPONSES,
    SCALE,
    Subject,
)
from tests.hostile import REFUSED, bodies

# Path, adapter, body, and after how many seconds its sender leaves, if it does.
Case = tuple[str, AdapterRef | None, bytes, float | None]

TOGETHER = 8
# One in four leaves, while its request is prepared or while it runs.
LEAVES = st.sampled_from((*(None,) * 6, 0.001, 0.02))
# Whatever a body of so many bytes asks for, a helper prepares it (serving/engine/vllm).
HEAVY_BYTES = 32 * 1024
# Cases between two looks at the memory, and how few of them say whether it grows: the first look
# is at what the first bodies left for good.
CHUNK = 80
FEWEST_RUNS = 4
# A body that is answered later than this has hung.
PATIENCE_S = 60.0
# The most that either process may grow after the first quarter of the cases.
MOST_GROWTH_MIB = 64

# The longest that the event loop may be held at once, in seconds of CPU: what a busy machine adds
# does not count.
MOST_HELD_S = 0.1


class Collected:
    """The answer to one call."""

    writable = True

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = b""

    def head(self, head: Head) -> None:
        self.status = head.status

    def data(self, data: bytes) -> None:
        self.body += data

    async def drained(self) -> None:
        pass


class Fuzz:
    """Sends bodies to one engine and looks at what they leave."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.bystander = Bystander(subject.engine, MODEL, *subject.beside)
        self.statuses: dict[int, int] = {}
        self.cases = 0
        self.held_s = 0.0
        self.slowest_s = 0.0
        self.slowest = ""

    async def round(self, cases: list[Case]) -> None:
        """Send these together.

        Raises:
            AssertionError: one of them ended as none may, or left something.
        """
        watching, over = asyncio.create_task(self._watch()), asyncio.Event()
        beside = asyncio.create_task(self.bystander.ask_until(over))
        try:
            await asyncio.gather(*(self._one(*case) for case in cases))
        finally:
            watching.cancel()
            over.set()
            await beside
            try:
                await self._subject.engine.check()
            except EngineFailed:
                # Nothing can be told apart any more, so there is nothing to make smaller either.
                sys.exit("the engine died of one of these:\n" + "\n".join(map(repr, cases)))
        left = self._subject.left()
        assert not any(left), f"left in the engine: {left}"

    async def refuse(self, path: str, adapter: AdapterRef | None, fields: bytes) -> None:
        """Send a body with these fields, a small one and one that a helper prepares.

        Raises:
            AssertionError: it is not refused with 400, or it left something.
        """
        base = json.dumps({"model": MODEL, **self._subject.bases[path]})[:-1].encode()
        for stream in (b"false", b"true"):
            body = b'%b, "stream": %b, %b}' % (base, stream, fields)
            for padding in (b"", b" " * HEAVY_BYTES):
                self.statuses.clear()
                await self.round([(path, adapter, body + padding, None)])
                assert self.statuses == {400: 1}, f"{self.statuses} for {path} {body!r}"

    async def _watch(self) -> None:
        """Note how long the event loop is held, which is what everybody else would wait."""
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.004)
            now = time.thread_time()
            self.held_s, last = max(self.held_s, now - last), now

    async def _one(
        self, path: str, adapter: AdapterRef | None, body: bytes, leaves_s: float | None
    ) -> None:
        self.cases += 1
        reply, tally = Collected(), Tally()
        began = time.monotonic()
        try:
            async with asyncio.timeout(leaves_s or PATIENCE_S):
                if path == CREATE_COMPLETION:
                    await self._complete(body, adapter)
                    reply.status = 200
                elif path in SCALE:
                    call, translated = self._asked(path, body, adapter)
                    await run_call(self._subject.engine, call, translated, reply, tally)
                else:
                    headers = (("content-type", "application/json"),)
                    call = HttpCall(
                        f"r{self.cases}", MODEL, "POST", path, headers=headers, adapter=adapter
                    )
                    await self._subject.engine.http(call, body, reply, tally)
            status, said = reply.status, reply.body
        except TimeoutError:
            if leaves_s is None:
                raise
            status, said = ClientLeft.status, b""
        except ServingError as error:
            status, said = error.status, error.message.encode("utf-8", "backslashreplace")
            if isinstance(error, Overloaded):
                status = 0
        assert status is not None, f"no answer to {path} {body[:2000]!r}"
        assert status < 500, f"{status} {said[:500]!r} for {path} {body[:3000]!r}"
        if path == RESPONSES and status == 200 and said.startswith(b"event: "):
            assert b"\nevent: response.completed\n" in said, f"cut off: {path} {body[:2000]!r}"
            assert b"\nevent: error\n" not in said, f"an error in {path} {body[:2000]!r}"
        if status == 200 and said.startswith(b"data: "):
            assert b'"error"' not in said[:20], f"an error in the stream of {path} {body[:2000]!r}"
        if path in ANTHROPIC:
            assert b"event: error" not in said, f"an error in the stream of {path} {body[:2000]!r}"
        took_s = time.monotonic() - began
        if took_s > self.slowest_s:
            self.slowest_s, self.slowest = took_s, body[:300].decode("utf-8", "replace")
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def _asked(self, path: str, body: bytes, adapter: AdapterRef | None) -> tuple[Any, bytes]:
        parse, *_ = SCALE[path]
        query = f"model_endpoint_name={MODEL}".encode()
        sent = SimpleNamespace(name=MODEL, query=query)
        target: Any = SimpleNamespace(
            model=MODEL, adapter=adapter, prompt_format=None, hosted=False
        )
        asked = parse(sent, body)
        asked.check(frozenset({Ability.GENERATE}))
        return asked.call(f"r{self.cases}", target)  # type: ignore[no-any-return]

    async def _complete(self, body: bytes, adapter: AdapterRef | None) -> None:
        target: Any = SimpleNamespace(model=MODEL, adapter=adapter, prompt_format=None)
        call, _ = parse_completion(body).call(f"r{self.cases}", target)
        await self._subject.engine.generate(call, lambda _: None, Tally())


class Memory:
    """Of this process and those that it started, after each of several runs of bodies."""

    def __init__(self) -> None:
        self._looks: list[dict[int, int]] = []

    def look(self) -> None:
        """Note what each has now, in MiB."""
        gc.collect()
        own = psutil.Process()
        processes = (own, *own.children(recursive=True))
        self._looks.append({each.pid: each.memory_info().rss >> 20 for each in processes})

    def last_mib(self) -> list[int]:
        return list(self._looks[-1].values())

    def growth_mib(self) -> list[int]:
        """What each has more than after the first quarter, and after the first run at least: what
        is made once and kept is there by then."""
        steady = self._looks[max(1, len(self._looks) // 4) :]
        assert len(steady) >= FEWEST_RUNS - 1, f"{len(self._looks)} looks say nothing"
        first: dict[int, int] = {}
        for look in steady:
            first = look | first
        return [mib - first[pid] for pid, mib in steady[-1].items()]


def each_engine() -> int:
    """Run this for one engine after the other, each in a process of its own; return 1 if any
    failed."""
    statuses = {}
    for engine in ENGINES:
        print(f"==> {engine}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz_bodies", *sys.argv[1:], "--engine", engine]
        statuses[engine] = subprocess.run(command, check=False).returncode
    if failed := [engine for engine, status in statuses.items() if status]:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return int(any(statuses.values()))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--engine", choices=sorted(ENGINES), help="[default: all, one by one]")
    parser.add_argument("--refused", action="store_true", help="first those that must be refused")
    parser.add_argument("--path", help="bodies of this endpoint only")
    parser.add_argument("--seed", type=int, default=0, help="another sequence of bodies")
    options = parser.parse_args()
    if options.cases < FEWEST_RUNS * CHUNK:
        parser.error(f"--cases: {FEWEST_RUNS * CHUNK} at least, or nothing is said of the memory")
    if options.engine is None:
        return each_engine()
    with asyncio.Runner() as runner, ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        subject = runner.run(ENGINES[options.engine](Path(folder)))
        # Also after a failure: otherwise this process waits for the engine's core for ever.
        stack.callback(lambda: runner.run(subject.engine.close()))
        refused = REFUSED if options.refused else {}
        for fields, path in product(refused.values(), ("/v1/completions", "/v1/chat/completions")):
            for adapter in subject.adapters:
                runner.run(Fuzz(subject).refuse(path, adapter, fields))
        fuzz = Fuzz(subject)
        cases = [
            st.tuples(
                st.just(path),
                st.sampled_from(subject.adapters),
                bodies(subject.models[path], base if path in SCALE else {"model": MODEL, **base}),
                LEAVES,
            )
            for path, base in subject.bases.items()
            if options.path is None or path.startswith(options.path)
        ]
        memory = Memory()
        began = time.monotonic()
        for number in range(-(-options.cases // CHUNK)):
            # Not one run: Hypothesis keeps what it has tried, which would look like a leak.
            @seed(options.seed + number)
            @settings(
                max_examples=CHUNK // TOGETHER,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )
            @given(st.lists(st.one_of(cases), min_size=TOGETHER, max_size=TOGETHER))
            def holds(several: list[Case]) -> None:
                runner.run(fuzz.round(several))

            holds()
            memory.look()
        took_s = time.monotonic() - began
        growth, waits = memory.growth_mib(), fuzz.bystander.waits()
        print(
            json.dumps(
                {
                    "refused": list(refused),
                    "cases": fuzz.cases,
                    "seconds": round(took_s, 1),
                    "statuses": fuzz.statuses,
                    "held_s": round(fuzz.held_s, 3),
                    "bystander": waits,
                    "slowest_s": round(fuzz.slowest_s, 2),
                    "slowest": fuzz.slowest,
                    "growth_mib": growth,
                    "memory_mib": memory.last_mib(),
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                }
            )
        )
    if max(growth) > MOST_GROWTH_MIB:
        print(f"memory grew by {max(growth)} MiB", file=sys.stderr)
        return 1
    if late := fuzz.bystander.late():
        print(f"a bystander waited: {late}", file=sys.stderr)
        return 1
    if fuzz.held_s > MOST_HELD_S:
        print(f"the event loop was held for {fuzz.held_s:.2f} s of CPU", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
