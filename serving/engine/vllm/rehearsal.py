"""The work of a helper: a request's way through vLLM's OpenAI app up to the engine core.

It runs in a helper process (`serving/engine/helpers/`), with vLLM's own app on an engine that has
no core. What vLLM would refuse it refuses here, in its own words; what it would answer without the
core (`/tokenize`) it answers here. Of a request that passes, the tokens and the checked grammar go
back to the engine server, and of its body what is needed to answer it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from argparse import Namespace
from typing import Any

import msgspec
from vllm.config import VllmConfig
from vllm.lora.request import LoRARequest

from serving import errors
from serving.catalogue.spec import EngineSpec
from serving.engine.bodies import blocks, pairs
from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.responses import PATH as RESPONSES
from serving.engine.images.blocks import take_images_of
from serving.engine.images.chat import may_hold_media
from serving.engine.interface import Tally
from serving.engine.vllm.arguments import VLLM_TASKS
from serving.engine.vllm.openai_app import OpenAIApp
from serving.engine.vllm.patches.pooling import Pooled
from serving.engine.vllm.patches_rehearsal import (
    Grammars,
    RehearsalEngine,
    constraint_fields,
    record_renders,
)
from serving.engine.vllm.prepare_limits import PrepareLimits
from serving.engine.vllm.usage import CallUsage
from serving.errors import InvalidRequest, ServingError
from serving.wire.messages import Head, HttpCall

# A prompt's text goes along if it is short, or if the answer repeats it.
MAX_PROMPT_TEXT = 64 * 1024


class Job(msgspec.Struct):
    """A request to prepare. `adapter`: it is for an adapter."""

    call: HttpCall
    body: bytes
    adapter: bool = False


class Answered(msgspec.Struct, tag="answered"):
    """vLLM's answer, which needed no engine core."""

    head: Head | None
    body: bytes


class Refused(msgspec.Struct, tag="refused"):
    """A refusal: the name of its class in `serving/errors.py`, and what it says."""

    kind: str
    message: str
    param: str | None

    def error(self) -> ServingError:
        """The error to raise."""
        kind = getattr(errors, self.kind)
        error = kind(self.message, param=self.param)
        assert isinstance(error, ServingError)
        return error


class Prepared(msgspec.Struct, tag="prepared"):
    """What the engine server needs to go on.

    `inputs` are vLLM's engine inputs, None where it has to make them itself, `pooled` those of a
    request to embed or to score; `last` is the last message of the chat. `urls` are those of the
    images whose names are in `body`.
    """

    body: bytes
    urls: list[str] = []
    inputs: list[dict[str, Any]] | None = None
    last: list[Any] = []
    constraint: dict[str, Any] | None = None
    constrained: bool = False
    pooled: list[Pooled] | None = None


Found = Answered | Refused | Prepared


class _Reply:
    """A `Reply` that keeps what is written."""

    def __init__(self) -> None:
        self.found: Head | None = None
        self.body = bytearray()

    @property
    def writable(self) -> bool:
        return True

    def head(self, head: Head) -> None:
        self.found = head

    def data(self, data: bytes) -> None:
        self.body += data

    async def drained(self) -> None:
        """It always is."""


class Rehearsal:
    """Prepares requests for one model, one at a time."""

    def __init__(
        self, spec: EngineSpec, args: Namespace, config: VllmConfig, limits: PrepareLimits
    ) -> None:
        self._grammar_s = limits.grammar_s
        # The engine server parses on its event loop what is left of a body.
        self._rest_bytes = BodyLimits().rest_bytes
        self._runner = asyncio.Runner()
        self._engine = RehearsalEngine(config, (VLLM_TASKS[spec.task],))
        self._grammars = Grammars(config)
        record_renders(self._engine.renderer, self._rendered)
        self._app = self._runner.run(OpenAIApp.build(self._engine, args, spec.id))
        self._app.record_pooled(lambda: self._pooled)
        self._most_tokens = max(BodyLimits().token_ids, spec.context)
        self._forget()

    def __call__(self, job: bytes) -> bytes:
        """A `Job` to what was found, both as msgpack."""
        asked = msgspec.msgpack.decode(job, type=Job)
        self._forget()
        found: Found
        try:
            found = self._runner.run(self._prepare(asked))
        except ServingError as error:
            if error.status >= 500:
                raise
            found = Refused(type(error).__name__, error.message, error.param)
        except MemoryError:
            message = "this request takes too much memory; make it smaller"
            found = Refused(InvalidRequest.__name__, message, None)
        return msgspec.msgpack.encode(found)

    def _forget(self) -> None:
        self._inputs: list[dict[str, Any]] | None = None
        self._pooled: list[Pooled | None] = []
        self._last: list[Any] = []
        self._constraint: dict[str, Any] | None = None

    def _rendered(self, last: list[Any], inputs: list[dict[str, Any]] | None) -> None:
        self._last, self._inputs = last, inputs

    def _added(self, params: Any) -> None:
        """Compile the grammar of a call's first request; its others have the same."""
        if self._constraint is not None or params is None or params.structured_outputs is None:
            return
        self._grammars.compile(params)
        used = time.process_time() - self._began
        if used > self._grammar_s:
            raise InvalidRequest(
                f"this request's grammar takes {used:.1f} s of CPU time to compile; the limit is "
                f"{self._grammar_s:g} s. Make the schema, pattern or grammar smaller",
                param="response_format",
            )
        self._constraint = constraint_fields(params.structured_outputs)

    async def _prepare(self, job: Job) -> Found:
        body, urls = job.body, list[str]()
        checked = self._app.check(job.call, body)
        self._constrained = checked.constrained
        if may_hold_media(body):
            urls, body = take_images_of(job.call.path, body)
        if urls:
            # Its tokens come with the pixels.
            return Prepared(self._bounded(body), urls, constrained=self._constrained)
        self._began = time.process_time()
        ready, failure = asyncio.Event(), None
        self._engine.asked = ready.set

        def added(params: Any) -> None:
            nonlocal failure
            try:
                self._added(params)
            except ServingError as error:
                failure = error
                raise

        self._engine.added = added
        reply = _Reply()
        lora = LoRARequest("adapter", 1, "/") if job.adapter else None
        answering = asyncio.ensure_future(
            self._app.run(job.call, body, reply, Tally(), CallUsage(), lora, [], checked)
        )
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not ready.is_set():
            if failure is not None:
                answering.exception()
                raise failure
            await answering
            return Answered(reply.found, bytes(reply.body))
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        return self._prepared(job.call.path, body)

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self._rest_bytes:
            raise InvalidRequest(
                f"this request has {len(body)} bytes beside its prompt, messages and images; at "
                f"most {self._rest_bytes} are taken"
            )
        return body

    def _prepared(self, path: str, body: bytes) -> Prepared:
        fields = json.loads(body)
        inputs = self._inputs
        pooled = [one for one in self._pooled if one is not None]
        if pooled and len(pooled) == len(self._pooled):
            tokens = sum(one.tokens for one in pooled)
            if tokens > self._most_tokens:
                raise InvalidRequest(
                    f"this request's prompts have {tokens} tokens together; at most "
                    f"{self._most_tokens} are taken"
                )
            kept = _without_texts(path, fields, len(pooled))
            self._bounded(json.dumps(fields).encode())
            rest = json.dumps(fields | kept, ensure_ascii=False).encode()
            return Prepared(rest, pooled=pooled)
        if inputs is None:
            # Media: vLLM goes by the body. Its texts have limits of their own.
            return Prepared(body, constraint=self._constraint, constrained=self._constrained)
        repeats = bool(fields.get("echo") or fields.get("return_prompt_text"))
        for found in inputs:
            if not repeats and len(found.get("prompt", "")) > MAX_PROMPT_TEXT:
                del found["prompt"]
        _without_prompt(path, fields)
        rest = json.dumps(fields).encode()
        last = self._last if repeats else []
        return Prepared(self._bounded(rest), [], inputs, last, self._constraint, self._constrained)


def _without_texts(path: str, fields: dict[str, Any], count: int) -> dict[str, Any]:
    """Leave only marks of the texts to embed or to score, which have become so many prompts: vLLM
    counts them. Returns what it needs whole: the documents that it ranks, whose texts are in the
    answer, and chats to embed."""
    kept: dict[str, Any] = {}
    if path in pairs.PATHS:
        if path == pairs.RERANK:
            kept = {"documents": fields.pop("documents")}
        for name in pairs.FIELDS & fields.keys():
            texts = fields[name]
            fields[name] = ["."] * len(texts) if isinstance(texts, list) else texts and "."
        # What they limit is done; vLLM would do it to the documents again.
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            fields.pop(name, None)
    elif "input" in fields:
        fields["input"] = ["."] * count
    elif "messages" in fields:
        kept = {"messages": fields.pop("messages")}
    return kept


def _without_prompt(path: str, fields: dict[str, Any]) -> None:
    """Leave only a mark of what has become tokens. vLLM looks at the last message's role, and
    counts the tool calls of a chat."""
    if path in blocks.PATHS:
        uses = [
            {"type": "tool_use", "name": block.get("name")}
            for message in fields["messages"]
            if message["role"] == "assistant" and isinstance(message["content"], list)
            for block in message["content"]
            if block["type"] == "tool_use"
        ]
        called = [{"role": "assistant", "content": uses}] if uses else []
        fields["messages"] = [*called, {"role": "user", "content": "."}]
        fields.pop("system", None)
    elif fields.get("messages"):
        calls = [
            {"role": "assistant", "content": None, "tool_calls": message["tool_calls"]}
            for message in fields["messages"]
            if message.get("role") == "assistant" and message.get("tool_calls")
        ]
        role = fields["messages"][-1].get("role", "user")
        fields["messages"] = [*calls, {"role": role, "content": "."}]
    if path == RESPONSES:
        items = fields["input"] if isinstance(fields["input"], list) else []
        calls = [item for item in items if item.get("type") == "function_call"]
        fields["input"] = [*calls, {"role": "user", "content": "."}]
    if "prompt" in fields:
        fields["prompt"] = "."
    if fields.get("suffix"):
        fields["suffix"] = "."
    fields.pop("documents", None)
