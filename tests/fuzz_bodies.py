"""Hostile OpenAI bodies against one real engine: `python -m tests.fuzz_bodies --cases 2000`.

No body may end in a 5xx (but a full queue's 503), none may leave anything in the engine or hold its
event loop, and memory stays flat. The engine runs in this process, so that its books can be read
after each round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from local_models.make import RERANKER
from serving.api import llm_engine
from serving.api.asked import Ability
from serving.api.chat_v4 import ChatRequest, parse_chat
from serving.api.completion import CompletionRequest, parse_completion
from serving.api.model_calls import (
    ModelChat,
    ModelCompletion,
    parse_model_chat,
    parse_model_completion,
)
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.calls import run_call
from serving.engine.interface import Tally
from serving.errors import ClientLeft, EngineFailed, Overloaded, ServingError
from serving.wire.messages import AdapterRef, Head, HttpCall
from tests.embed_shape import CONTEXT, write_embed
from tests.hostile import REFUSED, bodies
from tests.live import INSTRUCT, LOCAL, PIRATE, free_port

# Path, adapter, body, and after how many seconds its sender leaves, if it does.
Case = tuple[str, AdapterRef | None, bytes, float | None]

MODEL = "tiny-llama"
WEIGHTS = LOCAL.parents[2] / "local_models" / "weights"
TOGETHER = 8
# One in four leaves, while its request is prepared or while it runs.
LEAVES = st.sampled_from((*(None,) * 6, 0.001, 0.02))
# Whatever a body of so many bytes asks for, a helper prepares it (serving/engine/vllm).
HEAVY_BYTES = 32 * 1024
# Cases between two looks at the memory.
CHUNK = 400
# A body that is answered later than this has hung.
PATIENCE_S = 60.0
# The most that either process may grow after the first quarter of the cases.
MOST_GROWTH_MIB = 64

# The longest that the event loop may be held at once, in seconds of CPU: what a busy machine adds
# does not count.
MOST_HELD_S = 0.1

MESSAGES = [{"role": "user", "content": "Once upon a time"}]
CREATE_COMPLETION = "/v4/completions"
RESPONSES = "/v1/responses"
ANTHROPIC: dict[str, dict[str, Any]] = {
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 3},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
}
TEXTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 3},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 3},
    CREATE_COMPLETION: {"prompt": "a", "model_parameters": {"max_new_tokens": 3}},
}
SCALE: dict[str, tuple[Callable[[Any, bytes], Any], Any, dict[str, Any]]] = {
    "/v4/chat-completions": (
        parse_chat,
        ChatRequest,
        {"model": MODEL, "messages": MESSAGES, "model_parameters": {"max_tokens": 3}},
    ),
    "/v4/models/completions": (
        parse_model_completion,
        ModelCompletion,
        {"prompt": "a", "max_tokens": 3},
    ),
    "/v4/models/chat-completions": (
        parse_model_chat,
        ModelChat,
        {"prompt": "a", "chat_history": MESSAGES, "max_tokens": 3},
    ),
    "/v1/llm/completions-sync": (
        llm_engine.parse_sync,
        llm_engine.CompletionV1,
        {"prompt": "a", "max_new_tokens": 3},
    ),
    "/v1/llm/completions-stream": (
        llm_engine.parse_stream,
        llm_engine.CompletionV1,
        {"prompt": "a", "max_new_tokens": 3},
    ),
}
TOKENS: dict[str, dict[str, Any]] = {
    "/tokenize": {"prompt": "Once upon a time"},
    "/detokenize": {"tokens": [5, 6]},
}
SCORES: dict[str, dict[str, Any]] = {
    "/score": {"text_1": "Once upon a time", "text_2": ["a", "b"]},
    "/rerank": {"query": "Once upon a time", "documents": ["a", "b"]},
}

CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
TOOLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": CALL}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
        "chat_template_kwargs": {"enable_thinking": False},
        "max_tokens": 24,
    }
}


@dataclass
class Subject:
    """An engine: what is sent to it, as what, and what is left in it (empty: nothing)."""

    engine: Any
    bases: dict[str, dict[str, Any]]
    models: dict[str, Any]
    left: Callable[[], list[Any]]
    adapters: tuple[AdapterRef | None, ...] = (None,)


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
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(self._one(*case) for case in cases))
        finally:
            watching.cancel()
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

    def memory_mib(self) -> list[int]:
        """Of this process and the engine's core, in MiB."""
        own = psutil.Process()
        return [process.memory_info().rss >> 20 for process in (own, *own.children(recursive=True))]


def _model(**fields: Any) -> EngineSpec:
    """The base of the local profile, with other fields; its environment is this process's."""
    models = yaml.safe_load(LOCAL.read_text())["models"]
    (model,) = [model for model in models if model["id"] == MODEL]
    os.environ.update(model["env"], VLLM_PORT=str(free_port()), VLLM_LOGGING_LEVEL="CRITICAL")
    # Nothing is stored, whatever vLLM is told.
    os.environ["VLLM_ENABLE_RESPONSES_API_STORE"] = "1"
    return EngineSpec.model_validate({**model, "weights": str(WEIGHTS / MODEL), **fields})


async def _vllm(
    spec: EngineSpec,
    images: ImageLimits = ImageLimits(),  # noqa: B008 - frozen
) -> tuple[Any, dict[str, Any], Callable[[], list[Any]]]:
    from serving.engine.vllm.engine import VllmEngine

    engine = await VllmEngine.start(spec, images)
    processor, app = engine._llm.output_processor, engine._app
    assert app is not None

    def left() -> list[Any]:
        return [
            list(processor.request_states),
            list(processor.parent_requests),
            list(processor.external_req_ids),
            app.kept(),
            [entry for entry in engine._adapters._entries.values() if entry.holders],
        ]

    return engine, dict(app.request_models), left


async def start_vllm(_: Path) -> Subject:
    """A model that generates, with adapters and tools."""
    engine, models, left = await _vllm(_model(tool_parser="hermes"))
    pirate = AdapterRef(PIRATE, str(WEIGHTS / "adapters" / "pirate"))
    models[CREATE_COMPLETION] = [CompletionRequest]
    answers = {RESPONSES: {"input": "Once upon a time", "max_output_tokens": 3}}
    bases = TEXTS | TOKENS | ANTHROPIC | answers
    return Subject(engine, bases, models, left, (None, pirate))


async def start_scale(_: Path) -> Subject:
    """The same model at the paths of Scale's own clients."""
    subject = await start_vllm(_)
    subject.bases = {path: base for path, (*_, base) in SCALE.items()}
    subject.models = {path: [kind] for path, (_, kind, _) in SCALE.items()}
    return subject


async def start_embed(folder: Path) -> Subject:
    """A model that embeds."""
    write_embed("tiny-embed", folder)
    spec = _model(weights=str(folder), context=CONTEXT, task="embed", prompt_style="raw", lora=None)
    engine, models, left = await _vllm(spec)
    bases: dict[str, dict[str, Any]] = {"/v1/embeddings": {"input": "Once upon a time"}}
    return Subject(engine, bases | SCORES | TOKENS, models, left)


async def start_score(_: Path) -> Subject:
    """A cross-encoder."""
    own = {"context": CONTEXT, "task": "score", "prompt_style": "raw", "lora": None}
    engine, models, left = await _vllm(_model(weights=str(WEIGHTS / RERANKER), **own))
    return Subject(engine, SCORES | TOKENS, models, left)


async def start_vision(folder: Path) -> Subject:
    """A model that sees."""
    # By another process: the engine's core is forked from this one, which torch's threads must not
    # have been started in.
    subprocess.run([sys.executable, "-m", "tests.vision_shape", str(folder)], check=True)
    weights = folder / "tiny-vision"
    spec = _model(
        weights=str(weights),
        context=256,
        dtype="float32",
        vision=True,
        lora=None,
        engine_args={"enforce_eager": True, "max_num_seqs": 256, "model_impl": "transformers"},
    )
    images = ImageLimits(max_per_request=2, max_bytes=2_000_000, max_pixels=1_000_000)
    engine, models, left = await _vllm(spec, images)
    content = [{"type": "text", "text": "a"}]
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
    return Subject(engine, {"/v1/chat/completions": chat} | TOKENS, models, left)


async def start_tools(_: Path) -> Subject:
    """A model that calls tools and thinks."""
    parsers = {"tool_parser": "hermes", "reasoning_parser": "deepseek_v3"}
    spec = _model(weights=str(WEIGHTS / INSTRUCT), prompt_style="chat", lora=None, **parsers)
    engine, models, left = await _vllm(spec)
    return Subject(engine, TOOLS, models, left)


async def start_transformers(_: Path) -> Subject:
    """The other engine."""
    from serving.engine.hf.engine import HfEngine
    from serving.engine.hf.openai_body import ChatBody, CompletionBody

    spec = _model(runtime="transformers", lora=None, engine_args={"threads": 1}, env={})
    engine = await HfEngine.start(spec, ImageLimits())
    models = {
        "/v1/completions": [CompletionBody],
        "/v1/chat/completions": [ChatBody],
        CREATE_COMPLETION: [CompletionRequest],
    }
    return Subject(engine, TEXTS, models, lambda: [engine.load().running, engine.load().waiting])


ENGINES = {
    "vllm": start_vllm,
    "scale": start_scale,
    "embed": start_embed,
    "score": start_score,
    "tools": start_tools,
    "transformers": start_transformers,
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="vllm")
    parser.add_argument("--refused", action="store_true", help="first those that must be refused")
    parser.add_argument("--path", help="bodies of this endpoint only")
    parser.add_argument("--seed", type=int, default=0, help="another sequence of bodies")
    options = parser.parse_args()
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
        memory: list[list[int]] = []
        began = time.monotonic()
        rounds = max(1, options.cases // CHUNK)
        for number in range(rounds):
            # Not one run: Hypothesis keeps what it has tried, which would look like a leak.
            @seed(options.seed + number)
            @settings(
                max_examples=max(1, options.cases // rounds // TOGETHER),
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )
            @given(st.lists(st.one_of(cases), min_size=TOGETHER, max_size=TOGETHER))
            def holds(several: list[Case]) -> None:
                runner.run(fuzz.round(several))

            holds()
            gc.collect()
            memory.append(fuzz.memory_mib())
        took_s = time.monotonic() - began
        steady = memory[len(memory) // 4 :]
        growth = [last - first for first, last in zip(steady[0], steady[-1], strict=False)]
        print(
            json.dumps(
                {
                    "refused": list(refused),
                    "cases": fuzz.cases,
                    "seconds": round(took_s, 1),
                    "statuses": fuzz.statuses,
                    "held_s": round(fuzz.held_s, 3),
                    "slowest_s": round(fuzz.slowest_s, 2),
                    "slowest": fuzz.slowest,
                    "growth_mib": growth,
                    "memory_mib": memory[-1],
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                }
            )
        )
    if max(growth) > MOST_GROWTH_MIB:
        print(f"memory grew by {max(growth)} MiB", file=sys.stderr)
        return 1
    if fuzz.held_s > MOST_HELD_S:
        print(f"the event loop was held for {fuzz.held_s:.2f} s of CPU", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
