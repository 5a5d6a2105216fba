"""The OpenAI endpoints of the transformers engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serving.engine.interface import Tally
from serving.errors import (
    ContextLengthExceeded,
    InvalidField,
    InvalidRequest,
    NotFound,
)
from serving.wire.messages import AdapterRef, End, Head, HttpCall
from tests.conftest import Eventually
from tests.unit.engine.conftest import TINY_LLAMA, Reference, Start, gate

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT = "Once upon a time"
GREEDY = {"model": "m", "temperature": 0, "max_tokens": 12}
MESSAGES = [{"role": "user", "content": PROMPT}]


class Recorded:
    """A reply that keeps what is written; the test sets `writable`."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.parts: list[bytes] = []
        self.writable = True

    def head(self, head: Head) -> None:
        self.heads.append(head)

    def data(self, data: bytes) -> None:
        self.parts.append(data)

    async def drained(self) -> None:
        raise AssertionError("the engine does not wait")

    @property
    def body(self) -> Any:
        (head,) = self.heads
        assert (head.status, dict(head.headers)["content-type"]) == (200, "application/json")
        return json.loads(b"".join(self.parts))

    @property
    def events(self) -> list[Any]:
        (head,) = self.heads
        assert dict(head.headers)["content-type"].startswith("text/event-stream")
        *events, done, nothing = b"".join(self.parts).split(b"\n\n")
        assert (done, nothing) == (b"data: [DONE]", b"")
        return [json.loads(event.removeprefix(b"data: ")) for event in events]


async def ask(
    engine: Any,
    path: str,
    reply: Recorded | None = None,
    tally: Tally | None = None,
    **body: Any,
) -> tuple[Recorded, End]:
    reply = reply or Recorded()
    call = HttpCall("r1", "m", "POST", path)
    tally = tally or Tally()
    await engine.http(call, json.dumps({**GREEDY, **body}).encode(), reply, tally)
    return reply, tally.end()


async def test_completions(start: Start, reference: Callable[[str], Reference]) -> None:
    engine = await start("llama")
    want = reference("llama").text(PROMPT, 12)
    reply, end = await ask(engine, TEXT, prompt=PROMPT)
    answer = OpenAICompletion.model_validate(reply.body, strict=True)
    assert (answer.id, answer.model, answer.object) == ("cmpl-r1", "m", "text_completion")
    assert answer.choices[0].text == want
    assert answer.usage is not None
    assert answer.usage.completion_tokens == end.completion_tokens == 12
    assert answer.usage.total_tokens == 12 + end.prompt_tokens
    assert answer.choices[0].finish_reason == end.finish_reason == "length"
    assert (await ask(engine, TEXT, prompt=[PROMPT]))[0].body["choices"] == reply.body["choices"]


async def test_a_streamed_completion(start: Start, reference: Callable[[str], Reference]) -> None:
    engine = await start("llama")
    reply, _ = await ask(engine, TEXT, prompt=PROMPT, stream=True)
    OpenAICompletion.model_validate(reply.events[-1], strict=True)
    choices = [event["choices"][0] for event in reply.events]
    assert "".join(choice["text"] for choice in choices) == reference("llama").text(PROMPT, 12)
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "length"]
    assert "usage" not in reply.events[0]
    assert len(choices) > 8


async def test_a_stream_that_counts_as_it_goes(start: Start) -> None:
    engine = await start("llama")
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply, end = await ask(engine, TEXT, prompt=PROMPT, stream=True, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in reply.events]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == end.completion_tokens
    assert {event["usage"]["prompt_tokens"] for event in reply.events} == {end.prompt_tokens}


async def test_chat(start: Start) -> None:
    engine = await start("llama", spec={"chat_template": None})
    reply, end = await ask(engine, CHAT, messages=MESSAGES)
    answer = ChatCompletion.model_validate(reply.body, strict=True)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    text = answer.choices[0].message.content
    parts = [{"type": "text", "text": "Once upon"}, {"type": "text", "text": "a time"}]
    joined, _ = await ask(engine, CHAT, messages=[{"role": "user", "content": "Once upon\na time"}])
    split, _ = await ask(engine, CHAT, messages=[{"role": "user", "content": parts}])
    assert split.body["choices"] == joined.body["choices"]

    streamed, _ = await ask(
        engine, CHAT, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    events = [ChatCompletionChunk.model_validate(event, strict=True) for event in streamed.events]
    assert events[0].choices[0].delta.role == "assistant"
    deltas = [event.choices[0].delta.content or "" for event in events if event.choices]
    assert "".join(deltas) == text
    *_, last, usage = events
    assert last.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == end.completion_tokens == 12
    assert all(event["usage"] is None for event in streamed.events[:-1])


async def test_defaults(start: Start) -> None:
    engine = await start("mpt")
    body = {"model": "m", "prompt": PROMPT}
    reply = Recorded()
    await engine.http(HttpCall("r", "m", "POST", TEXT), json.dumps(body).encode(), reply, Tally())
    assert reply.body["usage"]["completion_tokens"] == 16
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    engine = await start("mpt", spec={"chat_template": template})
    reply, _ = await ask(engine, CHAT, messages=MESSAGES, max_tokens=None)
    assert reply.body["usage"]["total_tokens"] == 200
    for limits in ({"max_tokens": 3}, {"max_tokens": 9, "max_completion_tokens": 3}):
        reply, _ = await ask(engine, CHAT, messages=MESSAGES, **limits)
        assert reply.body["usage"]["completion_tokens"] == 3


async def test_a_router_that_does_not_read(start: Start) -> None:
    """The text is kept back and leaves in one event at the end."""
    engine = await start("llama")
    whole, _ = await ask(engine, TEXT, prompt=PROMPT)
    reply = Recorded()
    reply.writable = False
    await ask(engine, TEXT, reply, prompt=PROMPT, stream=True)
    (event,) = reply.events
    assert event["choices"] == whole.body["choices"]


async def test_stop_and_penalties(start: Start) -> None:
    engine = await start("llama")
    whole = (await ask(engine, TEXT, prompt=PROMPT, max_tokens=30))[0].body["choices"][0]["text"]
    stop = whole[9:12]
    for given in (stop, [stop]):
        choice = (await ask(engine, TEXT, prompt=PROMPT, max_tokens=30, stop=given))[0].body
        assert choice["choices"][0]["text"] == whole.partition(stop)[0]
        assert choice["choices"][0]["finish_reason"] == "stop"
    drawn = (await ask(engine, TEXT, prompt=PROMPT, temperature=2, top_p=0.9, top_k=50))[0].body
    assert drawn["usage"]["completion_tokens"] > 0
    engine = await start("t5")
    answers = [
        (await ask(engine, TEXT, prompt="way", max_tokens=24, **penalty))[0].body["choices"]
        for penalty in ({}, {"frequency_penalty": 2}, {"presence_penalty": 2})
    ]
    assert answers[0] not in answers[1:]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"seed": 3}, "seed"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
    ],
)
async def test_what_is_not_supported_is_refused(
    start: Start, fields: dict[str, Any], param: str
) -> None:
    engine = await start("t5")
    reply = Recorded()
    with pytest.raises(InvalidField) as error:
        await ask(engine, TEXT, reply, **{"prompt": PROMPT, **fields})
    assert error.value.param == param
    assert f"'{param}'" in error.value.message
    assert not reply.heads


async def test_what_asks_for_nothing_is_accepted(start: Start) -> None:
    engine = await start("t5")
    neutral = {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": None, "user": "u"}
    await ask(engine, TEXT, prompt=PROMPT, **neutral)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"messages": []}, "messages", "at least 1"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content",
            "takes no images",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages.0.content",
            "text only",
        ),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, None, "unknown"),
    ],
)
async def test_chats_that_are_refused(
    start: Start, fields: dict[str, Any], param: str | None, words: str
) -> None:
    engine = await start("llama")
    with pytest.raises(InvalidField, match=words) as error:
        await ask(engine, CHAT, **{"messages": MESSAGES, **fields})
    assert param in (None, error.value.param)


async def test_other_refusals(start: Start) -> None:
    engine = await start("t5")
    with pytest.raises(InvalidRequest, match="no chat template"):
        await ask(engine, CHAT, messages=MESSAGES)
    with pytest.raises(NotFound):
        await ask(engine, "/v1/embeddings", input="a")
    with pytest.raises(InvalidRequest, match="JSON"):
        await engine.http(HttpCall("r", "m", "POST", TEXT), b"{", Recorded(), Tally())
    with pytest.raises(ContextLengthExceeded) as error:
        await ask(engine, TEXT, prompt=PROMPT, max_tokens=1000)
    assert error.value.param == "max_tokens"
    call = HttpCall("r", "m", "POST", TEXT, adapter=AdapterRef("a", "/nowhere"))
    with pytest.raises(InvalidField):
        await engine.http(call, b"{}", Recorded(), Tally())
    mistral = TINY_LLAMA.parent / "tiny-mistral-instruct"
    engine = await start("llama", spec={"weights": str(mistral)})
    with pytest.raises(InvalidRequest, match="unknown role"):
        await ask(engine, CHAT, messages=[{"role": "parrot", "content": "hi"}])


async def test_cancelling(start: Start, eventually: Eventually) -> None:
    engine = await start("t5")
    steps = gate(engine)
    reply = Recorded()
    tally = Tally()
    asked = ask(engine, TEXT, reply, tally, prompt=PROMPT, max_tokens=200, stream=True)
    task = asyncio.create_task(asked)
    steps.release(8)
    await eventually(lambda: len(reply.parts) > 3)
    task.cancel()
    await asyncio.sleep(0)
    assert engine.load().running == 0
    steps.release(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tally.finish_reason is None
    assert tally.prompt_tokens > 0
    assert tally.completion_tokens >= len(reply.parts)


async def test_cancelling_a_whole_answer(start: Start, eventually: Eventually) -> None:
    engine = await start("llama", spec={"chat_template": None})
    steps, tally = gate(engine), Tally()
    task = asyncio.create_task(ask(engine, CHAT, Recorded(), tally, messages=MESSAGES))
    steps.release(5)
    await eventually(lambda: tally.completion_tokens >= 5)
    task.cancel()
    steps.release(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tally.prompt_tokens > 0
    assert 5 <= tally.completion_tokens < 12


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_k": 2**70}, "top_k"),
        ({"messages": [MESSAGES[0]] * 1025}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 1_000_000}]}, "messages"),
        ({"metadata": {"a": "\ud800"}}, None),
    ],
)
async def test_bodies_are_checked_as_those_for_vllm(
    start: Start, fields: dict[str, Any], param: str | None
) -> None:
    engine = await start("llama")
    with pytest.raises(InvalidRequest) as caught:
        await ask(engine, CHAT, **{"messages": MESSAGES, **fields})
    assert caught.value.param == param
