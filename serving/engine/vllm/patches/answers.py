"""Whole answers whose size the caller chooses, written in a thread, a piece at a time.

vLLM makes an object of each log probability of an answer, then a dict of all, then its JSON: 20 µs
each on the event loop, 4 s for 12 choices of 900 tokens with 20 of them. A thread alone does not
help: the last two are one call each, which hold the interpreter to their end. So vLLM makes the
answer with a mark in each place where log probabilities belong, and a thread writes them into its
JSON, `PIECE` tokens at a time, by vLLM's own functions.

`tests/unit/engine/vllm/test_answers.py` holds each assumption against the installed version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from vllm.entrypoints.openai.chat_completion import api_router as chat_routes
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionLogProbsContent,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.completion import api_router as completion_routes
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionResponse
from vllm.entrypoints.openai.responses import api_router as response_routes
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
from vllm.entrypoints.pooling.embed.protocol import EmbeddingResponse, EmbeddingResponseData
from vllm.entrypoints.pooling.utils import get_pooling_output_encoder, get_pooling_usage

from serving.engine.vllm.patches.drafts import PIECE, Draft, Left, Pace, columns, forget, to_json
from serving.engine.vllm.patches.positions import PromptPositions

# So many characters and token IDs of an answer become JSON there, in some milliseconds.
FEW_CHARACTERS = 131_072
# So many numbers of embeddings do.
FEW_NUMBERS = 8192
# Answers that are written at a time. More would only share the interpreter with the event loop.
TOGETHER = 2


_draft: ContextVar[Draft | None] = ContextVar("draft", default=None)


def write_in_threads(app: FastAPI) -> None:
    """Have whole answers of this app that are large written in threads."""
    threads = ThreadPoolExecutor(TOGETHER, thread_name_prefix="answers")
    state = app.state
    if (completions := getattr(state, "openai_serving_completion", None)) is not None:
        _hold_completion_logprobs(completions)
        _hold_prompts_of_completions(completions)
        _write_later(completions, "create_completion", CompletionResponse, "choices", {}, threads)
    if (chats := getattr(state, "openai_serving_chat", None)) is not None:
        _hold_chat_logprobs(chats)
        _hold_prompts_of_chats(chats)
        _write_later(
            chats, "create_chat_completion", ChatCompletionResponse, "choices", {}, threads
        )
    if (responses := getattr(state, "openai_serving_responses", None)) is not None:
        _hold_response_logprobs(responses)
        how = {"mode": "json", "by_alias": True}
        _write_later(responses, "create_responses", ResponsesResponse, "output", how, threads)
    if (embeddings := getattr(state, "serving_embedding", None)) is not None:
        embeddings._openai_json_response = partial(_Embeddings, threads)
    for routes in (completion_routes, chat_routes, response_routes):
        routes.JSONResponse = _WrittenResponse


class _WrittenResponse(JSONResponse):
    """Takes JSON that is written already."""

    def render(self, content: Any) -> bytes:
        return content if type(content) is bytes else super().render(content)


class _Embeddings(Response):
    """The answer with embeddings as floats or base64, written when it is sent.

    vLLM makes a list of floats of each, and JSON of all in one call: 0.3 µs for each number, with
    512 texts and a model of 4,096 dimensions 2 million of them.

    Args:
        as_vllm: the arguments of vLLM's `_openai_json_response`.
    """

    media_type = "application/json"

    def __init__(self, threads: ThreadPoolExecutor, *as_vllm: Any) -> None:
        super().__init__()
        self._threads = threads
        self._as_vllm = as_vllm
        self._left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        numbers = sum(result.outputs.data.numel() for result in self._as_vllm[0])
        if numbers <= FEW_NUMBERS:
            self.body = self._write(pause=False)
        else:
            loop = asyncio.get_running_loop()
            try:
                write = partial(self._write, pause=True)
                self.body = await loop.run_in_executor(self._threads, write)
            finally:
                self._left = True
        self.init_headers()
        await super().__call__(scope, receive, send)

    def _write(self, *, pause: bool) -> bytes:
        results, name, created, model, form, dtype, endianness = self._as_vllm
        encode = get_pooling_output_encoder(form, dtype, endianness)
        usage = get_pooling_usage(results)
        shell = EmbeddingResponse(id=name, created=created, model=model, data=[], usage=usage)
        parts, pace = [], Pace()
        for index, result in enumerate(results):
            if self._left:
                raise Left
            item = EmbeddingResponseData(index=index, embedding=encode(result))
            parts.append(to_json(item.model_dump()))
            if pause:
                pace.pause()
        before, after = to_json(shell.model_dump()).split(b'"data":[]')
        return b"".join((before, b'"data":[', b",".join(parts), b"]", after))


def _written(kind: type[BaseModel]) -> Callable[[bytes], BaseModel]:
    """Makes answers of a kind that vLLM's route looks for, whose JSON is written."""

    def model_dump(self: BaseModel, **_: Any) -> Any:
        return self.__dict__["written"]

    members = {"__module__": kind.__module__, "model_dump": model_dump}
    written: Any = type(kind.__name__, (kind,), members)

    def of(body: bytes) -> BaseModel:
        answer: BaseModel = written.model_construct()
        answer.__dict__["written"] = body
        return answer

    return of


def _write_later(
    handler: Any,
    name: str,
    kind: type[BaseModel],
    field: str,
    how: Mapping[str, Any],
    threads: ThreadPoolExecutor,
) -> None:
    create, written = getattr(handler, name), _written(kind)

    async def create_and_write(request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.stream:
            return await create(request, *args, **kwargs)
        draft = Draft(how)
        _draft.set(draft)
        try:
            answer = await create(request, *args, **kwargs)
        finally:
            _draft.set(None)
        if not isinstance(answer, kind) or (draft.empty and _characters(answer) < FEW_CHARACTERS):
            return answer
        loop = asyncio.get_running_loop()
        try:
            body = await loop.run_in_executor(threads, draft.write, answer, field)
        finally:
            draft.left = True
        return written(body)

    setattr(handler, name, create_and_write)


def _characters(answer: Any) -> int:
    """How much JSON an answer of choices has in characters and token IDs, log probabilities
    aside."""
    tokens = len(getattr(answer, "prompt_token_ids", None) or ())
    for choice in getattr(answer, "choices", ()):
        text = choice.message.content if hasattr(choice, "message") else choice.text
        tokens += len(text or "") + len(choice.token_ids or ())
        tokens += len(getattr(choice, "prompt_token_ids", None) or ())
    return tokens


def _hold_completion_logprobs(handler: Any) -> None:
    make = handler._create_completion_logprobs

    def make_or_hold(
        token_ids: Sequence[int],
        top_logprobs: Sequence[Any],
        num_output_top_logprobs: int,
        tokenizer: Any,
        **more: Any,
    ) -> CompletionLogProbs:
        named = {"num_output_top_logprobs": num_output_top_logprobs, "tokenizer": tokenizer, **more}
        draft = _draft.get()
        if draft is None:
            return make(token_ids, top_logprobs, **named)
        of_each = _of_each(num_output_top_logprobs, more.get("logprob_token_ids"))
        if not draft.takes(len(token_ids) * of_each):
            return make(token_ids, [*draft.echoed(top_logprobs)], **named)

        def pieces() -> Iterator[dict[str, list[Any]]]:
            positions = draft.echoed(top_logprobs)
            offset = 0
            for start in range(0, len(token_ids), PIECE):
                part = slice(start, start + PIECE)
                named["initial_text_offset"] = offset
                made = make(token_ids[part], positions[part], **named)
                offset = made.text_offset[-1] + len(made.tokens[-1])
                forget(positions[part])
                yield made.model_dump()

        mark = draft.new_mark()
        stand_in = CompletionLogProbs(tokens=[mark])
        draft.hold(mark, stand_in, lambda: columns(pieces()))
        return stand_in

    handler._create_completion_logprobs = make_or_hold


def _hold_chat_logprobs(handler: Any) -> None:
    make = handler._create_chat_logprobs

    def make_or_hold(
        token_ids: Sequence[int],
        top_logprobs: Sequence[Any],
        tokenizer: Any,
        num_output_top_logprobs: int | None = None,
        **more: Any,
    ) -> ChatCompletionLogProbs:
        named = {"tokenizer": tokenizer, "num_output_top_logprobs": num_output_top_logprobs, **more}
        draft = _draft.get()
        of_each = _of_each(num_output_top_logprobs, more.get("logprob_token_ids"))
        if draft is None or not draft.takes(len(token_ids) * of_each):
            return make(token_ids, top_logprobs, **named)

        def pieces() -> Iterator[dict[str, list[Any]]]:
            for start in range(0, len(token_ids), PIECE):
                part = slice(start, start + PIECE)
                yield make(token_ids[part], top_logprobs[part], **named).model_dump()
                forget(top_logprobs[part])

        mark = draft.new_mark()
        stand_in = ChatCompletionLogProbs(content=[ChatCompletionLogProbsContent(token=mark)])
        draft.hold(mark, stand_in, lambda: columns(pieces()))
        return stand_in

    handler._create_chat_logprobs = make_or_hold


def _hold_response_logprobs(handler: Any) -> None:
    make = handler._create_response_logprobs

    def make_or_hold(
        token_ids: Sequence[int],
        logprobs: Sequence[Any],
        tokenizer: Any,
        top_logprobs: int | None = None,
    ) -> list[Any]:
        draft = _draft.get()
        of_each = _of_each(top_logprobs, None)
        if draft is None or not draft.takes(len(token_ids) * of_each):
            few: list[Any] = make(token_ids, logprobs, tokenizer, top_logprobs)
            return few

        def pieces() -> Iterator[bytes]:
            yield b"["
            for start in range(0, len(token_ids), PIECE):
                part = slice(start, start + PIECE)
                made = make(token_ids[part], logprobs[part], tokenizer, top_logprobs)
                forget(logprobs[part])
                said = draft.json(made)[1:-1]
                yield b"," + said if start else said
            yield b"]"

        (stand_in,) = make(token_ids[:1], logprobs[:1], tokenizer, 0)
        stand_in.token = mark = draft.new_mark()
        draft.hold(mark, [stand_in], pieces)
        return [stand_in]

    handler._create_response_logprobs = make_or_hold


def _of_each(top: int | None, tokens: Sequence[int] | None) -> int:
    """How many log probabilities a token has in an answer."""
    return 1 + max(top or 0, len(tokens or ()))


def _hold_prompts_of_completions(handler: Any) -> None:
    make = handler.request_output_to_completion_response

    def make_without_prompts(results: list[Any], *args: Any, **kwargs: Any) -> Any:
        for result in results:
            _hold_prompt(result)
        return make(results, *args, **kwargs)

    handler.request_output_to_completion_response = make_without_prompts


def _hold_prompts_of_chats(handler: Any) -> None:
    write = handler.chat_completion_full_generator

    async def write_without_prompts(request: Any, results: Any, *args: Any, **kwargs: Any) -> Any:
        async def without_prompts() -> Any:
            async for result in results:
                _hold_prompt(result)
                yield result

        return await write(request, without_prompts(), *args, **kwargs)

    handler.chat_completion_full_generator = write_without_prompts


def _hold_prompt(result: Any) -> None:
    """A prompt's log probabilities are in each of its choices: always written later."""
    draft, positions = _draft.get(), result.prompt_logprobs
    if draft is not None and isinstance(positions, PromptPositions):
        result.prompt_logprobs = draft.hold_prompt(positions)
