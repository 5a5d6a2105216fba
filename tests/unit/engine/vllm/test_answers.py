"""Answers written in a thread are those that vLLM writes, byte by byte."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi.responses import JSONResponse
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion import api_router as chat_routes
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion import api_router as completion_routes
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.responses import api_router as response_routes
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.pooling.embed.serving import ServingEmbedding
from vllm.logprobs import PromptLogprobs
from vllm.outputs import CompletionOutput, PoolingOutput, PoolingRequestOutput, RequestOutput
from vllm.v1.outputs import LogprobsTensors

from local_models.make import WEIGHTS
from serving.engine.vllm.patches import answers, drafts, positions
from serving.engine.vllm.patches.drafts import Draft, Left
from serving.engine.vllm.patches.positions import keep_positions
from tests.unit.engine.vllm.test_positions import TOP, kept, processor, rows, steps

__all__ = ["kept"]
# Of one choice, one log probability of each token is few, and of two it is many.
PROMPT, TOKENS, FEW = 30, 45, 60


@pytest.fixture(autouse=True)
def soon_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "FEW", FEW)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(Path(WEIGHTS) / "tiny-llama")


def result(tokenizer: Any, choices: int, *, ours: bool) -> RequestOutput:
    """What the engine found, with log probabilities as vLLM makes them, or as they are kept."""
    tokens, logprobs, ranks = rows(tokenizer, PROMPT - 1)
    logprobs[3, 2] = float("-inf")
    prompt = processor(tokenizer)
    tensors = LogprobsTensors(*map(torch.from_numpy, (tokens, logprobs, ranks)))
    (positions._keep_prompt if ours else positions._make_prompt)(prompt, tensors)
    outputs = []
    for index in range(choices):
        made = processor(tokenizer)
        for lists in steps(tokenizer, TOKENS):
            (positions._keep if ours else positions._make)(made, lists)
        ids = [next(iter(position)) for position in made.logprobs or ()]
        outputs.append(
            CompletionOutput(
                index=index,
                text=tokenizer.decode(ids),
                token_ids=ids,
                cumulative_logprob=made.cumulative_logprob,
                logprobs=made.logprobs,
                finish_reason="length",
            )
        )
    found: PromptLogprobs | None = prompt.prompt_logprobs
    return RequestOutput(
        request_id="a",
        prompt="naïve",
        prompt_token_ids=[7, *tokens[:, 0].tolist()],
        prompt_logprobs=found,
        outputs=outputs,
        finished=True,
    )


class Completions(OpenAIServingCompletion):
    """vLLM's, whose engine has found `result` already."""

    def __init__(self, tokenizer: Any, result: RequestOutput) -> None:
        self.return_tokens_as_token_ids = False
        self.enable_prompt_tokens_details = self.enable_per_request_metrics = False
        self.system_fingerprint = "f"
        self._found = result, tokenizer

    async def create_completion(self, request: Any, raw_request: Any = None) -> Any:
        result, tokenizer = self._found
        metadata: Any = SimpleNamespace(final_usage_info=None)
        return self.request_output_to_completion_response(
            [result], request, "cmpl-a", 1, "m", tokenizer, metadata
        )


class Chats(OpenAIServingChat):
    """The same."""

    def __init__(self, tokenizer: Any, result: RequestOutput) -> None:
        self.return_tokens_as_token_ids = False
        self.enable_prompt_tokens_details = self.enable_per_request_metrics = False
        self.enable_auto_tools = self.enable_log_outputs = False
        self._include_reasoning_tokens_details = False
        self.system_fingerprint, self.parser_cls, self.response_role = "f", None, "assistant"
        self._found = result, tokenizer

    async def create_chat_completion(self, request: Any, raw_request: Any = None) -> Any:
        result, tokenizer = self._found

        async def results() -> AsyncIterator[RequestOutput]:
            yield result

        metadata: Any = SimpleNamespace(final_usage_info=None)
        answer = await self.chat_completion_full_generator(
            request, results(), "chatcmpl-a", "m", [], tokenizer, metadata
        )
        answer.created = 1  # type: ignore[union-attr]
        return answer


def completion(**more: Any) -> CompletionRequest:
    return CompletionRequest(model="m", prompt="a", max_tokens=900, **more)


def chat(**more: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(model="m", messages=[], max_tokens=900, **more)


def app_of(**handlers: Any) -> Any:
    return SimpleNamespace(state=SimpleNamespace(**handlers))


def test_routes_and_handlers_are_what_is_assumed() -> None:
    for routes, create in (
        (completion_routes.create_completion, "create_completion"),
        (chat_routes.create_chat_completion, "create_chat_completion"),
    ):
        source = inspect.getsource(routes)
        assert f"await handler.{create}(request, raw_request)" in source
        assert "JSONResponse(\n            content=generator.model_dump()," in source
    source = inspect.getsource(response_routes.create_responses)
    assert "await handler.create_responses(request, raw_request)" in source
    assert 'JSONResponse(content=generator.model_dump(mode="json", by_alias=True))' in source
    source = inspect.getsource(OpenAIServingCompletion._create_completion)
    assert "self.request_output_to_completion_response(" in source
    source = inspect.getsource(OpenAIServingResponses._make_response_output_items)
    assert "self._create_response_logprobs(" in source


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "how",
    [
        {"logprobs": TOP},
        {"logprobs": TOP, "n": 3, "return_token_ids": True},
        {"logprobs": 0, "n": 3},
        {"logprobs": TOP, "n": 2, "prompt_logprobs": TOP},
        {"logprobs": TOP, "n": 2, "echo": True},
        {"logprobs": TOP, "echo": True, "return_tokens_as_token_ids": True},
        {"prompt_logprobs": TOP},
        {"n": 2},
    ],
    ids=str,
)
async def test_completions(tokenizer: Any, how: dict[str, Any]) -> None:
    request, choices = completion(**how), how.get("n", 1)
    right = Completions(tokenizer, found := result(tokenizer, choices, ours=False))
    if "prompt_logprobs" not in how and "echo" not in how:
        found.prompt_logprobs = None
    expected = JSONResponse((await right.create_completion(request)).model_dump()).body
    keep_positions()
    ours = Completions(tokenizer, found := result(tokenizer, choices, ours=True))
    if "prompt_logprobs" not in how and "echo" not in how:
        found.prompt_logprobs = None
    answers.write_in_threads(app_of(openai_serving_completion=ours))
    answer = await ours.create_completion(request)
    assert completion_routes.JSONResponse(answer.model_dump()).body == expected
    held = how != {"n": 2}
    assert (type(answer.model_dump()) is bytes) == held


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "how",
    [
        {"logprobs": True, "top_logprobs": TOP},
        {"logprobs": True, "top_logprobs": TOP, "n": 3, "return_token_ids": True},
        {"logprobs": True, "top_logprobs": 0, "n": 3},
        {"prompt_logprobs": TOP},
        {"logprobs": True, "top_logprobs": TOP, "prompt_logprobs": TOP},
        {},
    ],
    ids=str,
)
async def test_chats(tokenizer: Any, how: dict[str, Any]) -> None:
    request, choices = chat(**how), how.get("n", 1)
    bodies = []
    for mine in (False, True):
        found = result(tokenizer, choices, ours=mine)
        if "prompt_logprobs" not in how:
            found.prompt_logprobs = None
        handler = Chats(tokenizer, found)
        if mine:
            keep_positions()
            answers.write_in_threads(app_of(openai_serving_chat=handler))
        answer = await handler.create_chat_completion(request)
        assert (type(answer.model_dump()) is bytes) == (mine and bool(how))
        bodies.append(chat_routes.JSONResponse(answer.model_dump()).body)
    assert bodies[0] == bodies[1]


@pytest.mark.usefixtures("kept")
async def test_log_probabilities_of_responses(tokenizer: Any) -> None:
    handler: Any = OpenAIServingResponses.__new__(OpenAIServingResponses)
    handler.return_tokens_as_token_ids = False
    output = result(tokenizer, 1, ours=False).outputs[0]
    right = handler._create_response_logprobs(output.token_ids, output.logprobs, tokenizer, TOP)
    answers._hold_response_logprobs(handler)
    output = result(tokenizer, 1, ours=True).outputs[0]
    draft = Draft({"mode": "json", "by_alias": True})
    answers._draft.set(draft)
    made = handler._create_response_logprobs(output.token_ids, output.logprobs, tokenizer, TOP)
    assert len(made) == 1
    assert b"".join(draft.filled(draft.json(made))) == draft.json(right)


@pytest.mark.usefixtures("kept")
async def test_log_probabilities_are_made_in_a_thread_and_few_are_not(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_positions()
    threads = set()
    make = OpenAIServingChat._get_top_logprobs

    def noting(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread())
        return make(*args, **kwargs)

    monkeypatch.setattr(OpenAIServingChat, "_get_top_logprobs", noting)
    request = chat(logprobs=True, top_logprobs=TOP)
    handler = Chats(tokenizer, found := result(tokenizer, 1, ours=True))
    found.prompt_logprobs = None
    answers.write_in_threads(app_of(openai_serving_chat=handler))
    await handler.create_chat_completion(request)
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    few = found.outputs[0]
    few.token_ids, few.logprobs = few.token_ids[:9], few.logprobs[:9]  # type: ignore[index]
    threads.clear()
    answer = await handler.create_chat_completion(request)
    assert len(answer.choices[0].logprobs.content) == 9
    assert threads == {threading.main_thread()}


@pytest.mark.usefixtures("kept")
async def test_a_long_text_is_written_in_a_thread_too(tokenizer: Any) -> None:
    found = result(tokenizer, 2, ours=False)
    found.prompt_logprobs = None
    for output in found.outputs:
        output.text = "é" * answers.FEW_CHARACTERS
    expected = (await Completions(tokenizer, found).create_completion(completion(n=2))).model_dump()
    completions = Completions(tokenizer, found)
    answers.write_in_threads(app_of(openai_serving_completion=completions))
    answer = await completions.create_completion(completion(n=2))
    assert answer.model_dump() == JSONResponse(expected).body
    expected = (await Chats(tokenizer, found).create_chat_completion(chat(n=2))).model_dump()
    chats = Chats(tokenizer, found)
    answers.write_in_threads(app_of(openai_serving_chat=chats))
    answer = await chats.create_chat_completion(chat(n=2))
    assert answer.model_dump() == JSONResponse(expected).body


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("texts", [3, 600])
async def test_embeddings(form: Any, texts: int) -> None:
    vectors = torch.rand(texts, 16)
    results = [
        PoolingRequestOutput("a", PoolingOutput(vector), [1, 2, 3], 0, finished=True)
        for vector in vectors
    ]
    handler: Any = ServingEmbedding.__new__(ServingEmbedding)
    handler.json_response_cls = JSONResponse
    given = (results, "embd-a", 1, "m", form, "float32", "native")
    right = handler._openai_json_response(*given)
    answers.write_in_threads(app_of(serving_embedding=handler))
    ours, sent = handler._openai_json_response(*given), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await ours({"type": "http"}, receive, send)
    assert b"".join(message.get("body", b"") for message in sent) == right.body
    assert sent[0]["headers"] == right.raw_headers


async def test_a_stream_and_an_error_are_left_alone() -> None:
    said = []

    async def create(request: Any, raw_request: Any = None) -> Any:
        said.append(answers._draft.get())
        return "an error"

    handler: Any = SimpleNamespace(
        create_completion=create,
        _create_completion_logprobs=None,
        request_output_to_completion_response=None,
    )
    answers.write_in_threads(app_of(openai_serving_completion=handler))
    assert await handler.create_completion(completion(stream=True)) == "an error"
    assert await handler.create_completion(completion()) == "an error"
    assert said[0] is None
    assert isinstance(said[1], Draft)
    assert answers._draft.get() is None


def test_writing_ends_when_nobody_waits(tokenizer: Any) -> None:
    draft = Draft({})
    begun, written = threading.Event(), []

    def endless() -> Any:
        while True:
            begun.set()
            written.append(1)
            yield b""

    mark = draft.new_mark()
    stand_in = CompletionLogProbs(tokens=[mark])
    draft.hold(mark, stand_in, endless)

    def write() -> None:
        with pytest.raises(Left):
            list(draft.filled(draft.json(stand_in)))

    async def leave() -> None:
        task = asyncio.create_task(asyncio.to_thread(write))
        await asyncio.to_thread(begun.wait, 10)
        draft.left = True
        await asyncio.wait_for(task, 10)

    asyncio.run(leave())
