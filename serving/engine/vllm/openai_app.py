"""vLLM's own OpenAI app, called in process: no HTTP server stands between it and the link.

Tools, JSON schema, logprobs, chat templates and streaming options are vLLM's, not ours. Three
things differ from `vllm serve`: the router decides which adapter and which chat template a request
uses; the response's `model` is the ID the caller asked for (vLLM would name the base model for an
alias); and vLLM fetches no images: they are loaded before (`engine/images/`).
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from fastapi import FastAPI
from PIL.Image import Image
from pydantic import BaseModel
from starlette.types import Message
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM

from serving.api.audio import PATHS as AUDIO
from serving.engine.bodies.check import BodyCheck, Checked
from serving.engine.bodies.fields import fields_of
from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.responses import PATH as RESPONSES
from serving.engine.interface import Reply, Tally
from serving.engine.prompt_size import PromptSize
from serving.engine.vllm import patches
from serving.engine.vllm.image_prompts import LoadedImages
from serving.engine.vllm.patches import admission, audio, messages, pooling, responses
from serving.engine.vllm.patches.answers import write_in_threads
from serving.engine.vllm.patches.logprobs import PromptLogprobs
from serving.engine.vllm.patches.positions import keep_positions
from serving.engine.vllm.patches.refusal_logs import spare_refusals
from serving.engine.vllm.refusals import ERROR_EVENT, error_of_event, error_of_response
from serving.engine.vllm.usage import CallUsage
from serving.errors import EngineFailed, ServingError
from serving.wire.messages import Head, HttpCall

# An answer goes out in parts of so many bytes. A link takes no frame above 64 MiB, and carries the
# answers of others meanwhile.
PART = 1024 * 1024
_SKIPPED_HEADERS = frozenset((b"date", b"server", b"connection", b"x-request-id"))


class Extras(NamedTuple):
    """What a request asks for beside its body."""

    model: str
    lora: LoRARequest | None
    images: list[Image | None]
    chat_template: str | None


_NOTHING = Extras("", None, [], None)


class Current:
    """What the current task's request asked for."""

    def __init__(self) -> None:
        self._asked: ContextVar[Extras] = ContextVar("asked", default=_NOTHING)

    def set(self, asked: Extras) -> None:
        self._asked.set(asked)

    @property
    def asked(self) -> Extras:
        return self._asked.get()


class AskedAdapter(Mapping[str, LoRARequest]):
    """Takes the place of vLLM's table of adapters; holds the one that the router chose, if any."""

    def __init__(self, current: Current) -> None:
        self._current = current

    def __getitem__(self, name: str) -> LoRARequest:
        asked = self._current.asked
        if asked.lora is None or name != asked.model:
            raise KeyError(name)
        return asked.lora

    def __iter__(self) -> Iterator[str]:
        asked = self._current.asked
        return iter([asked.model] if asked.lora is not None else [])

    def __len__(self) -> int:
        return 1 if self._current.asked.lora is not None else 0


class OpenAIApp:
    """Runs `HttpCall`s in vLLM's app. Make it with `build`."""

    def __init__(
        self,
        app: FastAPI,
        llm: AsyncLLM,
        current: Current,
        bodies: BodyCheck,
        prompt_logprobs: PromptLogprobs,
    ) -> None:
        self._prompt_logprobs = prompt_logprobs
        self._bodies = bodies
        self._app = app
        self._llm = llm
        self._current = current

    @classmethod
    async def build(cls, llm: AsyncLLM, args: Namespace, model: str) -> OpenAIApp:
        """The app for `model` with the arguments of `vllm serve`."""
        tasks = await llm.get_supported_tasks()
        app = build_app(args, tasks, llm.model_config)
        patches.remove_listener_layers(app)
        await init_app_state(llm, app.state, args, tasks)
        patches.ignore_exit_orders(app)
        current = Current()
        patches.replace_media_connector(LoadedImages(lambda: current.asked.images))
        patches.choose_models(
            app,
            AskedAdapter(current),
            is_base_model=lambda name: (
                current.asked.lora is None and name in (current.asked.model, model)
            ),
            model_name=lambda lora=None: current.asked.model or model,
        )
        patches.prefer_template(app, lambda: current.asked.chat_template)
        responses.prepare(app)
        await messages.correct_messages(app, lambda: current.asked.chat_template)
        admission.refuse_what_validators_raise(app)
        spare_refusals()
        keep_positions()
        write_in_threads(app)
        limits = BodyLimits()
        audio.limit(app, limits)
        prompt_logprobs = PromptLogprobs(limits.prompt_logprobs, limits.streamed_prompt_logprobs)
        prompt_logprobs.install(llm.input_processor)
        context = int(llm.model_config.max_model_len)
        models = admission.request_models(app)
        bodies = BodyCheck(
            limits,
            {path: fields_of(kinds) for path, kinds in models.items() if path not in AUDIO},
            context=context,
            prompt_chars=PromptSize(llm.renderer.get_tokenizer(), context).most,
            sequences=admission.queue_limit(llm),
            reserved=admission.RESERVED,
            tools=args.tool_call_parser is not None,
        )
        return cls(app, llm, current, bodies, prompt_logprobs)

    async def silence(self) -> Any:
        """See `audio.silence`."""
        return await audio.silence(self._app, self._llm)

    def record_pooled(self, found: Callable[[], list[pooling.Pooled | None]]) -> None:
        """See `pooling.record`."""
        pooling.record(self._app, found)

    def replay_pooled(self, replay: pooling.Replay) -> None:
        """See `pooling.Replay.install`."""
        replay.install(self._app)

    @property
    def request_models(self) -> Mapping[str, tuple[type[BaseModel], ...]]:
        """The models of the bodies that each path takes."""
        return admission.request_models(self._app)

    def kept(self) -> list[Any]:
        """What is held of requests that have ended: nothing, whatever they asked for."""
        return responses.kept(self._app)

    def check(self, call: HttpCall, body: bytes) -> Checked:
        """Look at a body before vLLM does; raises as `BodyCheck.check`."""
        if call.path in AUDIO:
            return self._bodies.check_form(dict(call.headers).get("content-type", ""), body)
        return self._bodies.check(call.path, body)

    async def run(
        self,
        call: HttpCall,
        body: bytes,
        reply: Reply,
        tally: Tally,
        usage: CallUsage,
        lora: LoRARequest | None,
        images: list[Image | None],
        checked: Checked = Checked(),  # noqa: B008 - a tuple
    ) -> None:
        """Answer one request; cancelling this tells vLLM that its client left.

        Args:
            checked: what `check` says of the body.

        Raises:
            EngineFailed: the engine died; vLLM's own error about it is not written to the reply.
            ServingError: vLLM refused the request, or failed on it.
        """
        template = call.prompt_format.chat_template if call.prompt_format else None
        self._current.set(Extras(call.model, lora, images, template))
        self._prompt_logprobs.begin()
        exchange = _Exchange(call, body, reply, self._llm, constrained=checked.constrained)
        task = asyncio.create_task(self._app(exchange.scope, exchange.receive, exchange.send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # vLLM's handlers do not pass a plain cancellation on to the engine; they stop, and
            # abort the request there, when they receive a disconnect.
            exchange.disconnect()
            await asyncio.wait([task], timeout=5)
            task.cancel()
            raise
        except Exception:
            # One that nothing in vLLM's app handles, which has made a 500 of it: the link logs it.
            if not isinstance(exchange.failure, EngineFailed):
                raise
        finally:
            usage.fill(tally)
            if (said := patches.final_usage(exchange.scope)) is not None:
                tally.prompt_tokens, tally.completion_tokens = said
        if exchange.failure is not None:
            raise exchange.failure


class _Exchange:
    """One request and response in ASGI's terms (asgi.readthedocs.io/en/latest/specs/www.html)."""

    def __init__(
        self, call: HttpCall, body: bytes, reply: Reply, llm: AsyncLLM, *, constrained: bool
    ) -> None:
        self._constrained = constrained
        # The response's head, until its first byte: a stream may yet turn out to be an error.
        self._head: Head | None = None
        self._status = 0
        # Events that come before the engine has looked at the request: it may yet be refused.
        self._opening: list[bytes] = []
        self._error_event = responses.ERROR_EVENT if call.path == RESPONSES else ERROR_EVENT
        self._refusal: list[bytes] = []
        self._reply = reply
        self._llm = llm
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self.failure: ServingError | None = None
        self.refused = True
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in call.headers
        ]
        headers.append((b"x-request-id", call.request_id.encode("latin-1", "replace")))
        headers.append((b"content-length", str(len(body)).encode()))
        self.scope: dict[str, Any] = {
            "type": "http",
            # Below 2.4 starlette's StreamingResponse listens for the disconnect itself.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            "path": call.path,
            "raw_path": call.path.encode(),
            "query_string": call.query.encode("latin-1"),
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": None,
            "state": {},
        }

    def disconnect(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._left.is_set():
            # Returns and raises nothing: after an error starlette drops the stream's generator
            # unclosed, and its request runs on in the engine until the next garbage collection.
            return
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            self.refused = self._status >= 400
            headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message["headers"]
                if name.lower() not in _SKIPPED_HEADERS
            )
            self._head = Head(self._status, headers)
        elif message["type"] == "http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            if self.refused:
                self._refuse(body, more)
            elif body.startswith(self._error_event):
                self._fail(error_of_event(body, constrained=self._constrained))
            elif body or not more:
                await self._pass_on(body)

    async def _pass_on(self, body: bytes) -> None:
        reply = self._reply
        if self._head is not None:
            if body.startswith(responses.OPENINGS):
                self._opening.append(body)
                return
            reply.head(self._head)
            self._head = None
            body = b"".join((*self._opening, body))
        for start in range(0, len(body), PART):
            if start:
                await asyncio.sleep(0)  # let other answers go between
            reply.data(body[start : start + PART])
            if not reply.writable:
                await reply.drained()

    def _refuse(self, body: bytes, more: bool) -> None:
        """Collect the body of an answer that is an error."""
        self._refusal.append(body)
        if not more:
            said = b"".join(self._refusal)
            self._fail(error_of_response(self._status, said, constrained=self._constrained))

    def _fail(self, error: ServingError) -> None:
        """End the answer with an error. Of a dead engine's, only its death is told."""
        if error.status >= 500 and self._llm.errored:
            error = EngineFailed("the engine of this replica failed")
        self.failure = error
        self.disconnect()
