"""`/v4/chat-completions`: what reaches the engine, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events
from tests.gateway.talking import SAYS, USED, TalkingEngine
from tests.gateway.test_refusals import envelope

PATH = "/v4/chat-completions"
HELLO = [{"role": "user", "content": "Hello!"}]
USAGE = {"prompt": 7, "completion": 3, "total": 10}


@pytest.fixture
async def talking(open_site: Open) -> Site:
    return await open_site(double=TalkingEngine)


async def ask(site: Site, **fields: Any) -> httpx.Response:
    return await site.client.post(PATH, json={"model": "echo", "messages": HELLO, **fields})


def sent(site: Site) -> dict[str, Any]:
    engine = site.engines[0]
    assert isinstance(engine, TalkingEngine)
    return engine.bodies[-1]


@pytest.mark.parametrize(
    ("model", "adapter"),
    [("echo", None), ("echo.pirate", "echo.pirate"), ("latest", "echo.pirate")],
)
async def test_whole(talking: Site, model: str, adapter: str | None) -> None:
    response = await ask(talking, model=model)
    assert response.json() == {
        "chat_completion": {
            "message": {"role": "assistant", "content": "".join(SAYS)},
            "finish_reason": "stop",
        },
        "token_usage": USAGE,
    }
    assert response.headers["content-type"] == "application/json"
    (call,) = talking.engines[0].calls
    assert (call.adapter.id if call.adapter else None) == adapter
    assert sent(talking) == {"model": model, "messages": HELLO, "temperature": 0.2}
    assert talking.counted(endpoint=PATH, outcome="ok") == 1


async def test_a_stream_has_the_events_of_a_completion(talking: Site) -> None:
    said = [data for _, data in events((await ask(talking, model="latest", stream=True)).text)]
    assert [data["completion"]["text"] for data in said] == [*SAYS, ""]
    assert [data["token_usage"] for data in said] == [None, None, None, USAGE]
    assert said[-1]["completion"] == {
        "text": "",
        "finish_reason": "stop",
        "response_metadata": {"model": "echo.pirate"},
    }
    assert sent(talking)["stream_options"] == {"include_usage": True}


async def test_every_field(talking: Site) -> None:
    response = await ask(
        talking,
        account_id="acme",
        chat_template=None,
        instructions="Be brief.",
        memory_strategy={"name": "last_k", "params": {"k": 2}},
        messages=[
            {"content": "forgotten"},
            {"role": "assistant", "content": "Yes?"},
            {"content": [{"text": "Who "}, {"type": "text", "text": "are you?"}]},
        ],
        model_parameters={
            "temperature": 0,
            "max_tokens": 5,
            "stop_sequences": ["."],
            "topP": 0.5,
            "top_k": 3,
            "frequency_penalty": 1,
            "presence_penalty": -1,
            "reasoning_effort": None,
        },
        stream=None,
    )
    assert response.status_code == 200
    assert sent(talking) == {
        "model": "echo",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": "Yes?"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Who "},
                    {"type": "text", "text": "are you?"},
                ],
            },
        ],
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["."],
        "top_p": 0.5,
        "top_k": 3,
        "frequency_penalty": 1,
        "presence_penalty": -1,
    }


IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"messages": None}, 422, "messages"),
        ({"messages": []}, 422, "messages"),
        ({"messages": [{}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 422, "messages.0.role"),
        ({"messages": [{"content": 1}]}, 422, "messages.0.content"),
        ({"messages": [{"content": [{}]}]}, 422, "messages.content"),
        (
            {"messages": [{"content": [{"type": "image_url", "text": "x"}]}]},
            422,
            "messages.content",
        ),
        ({"messages": [{"content": [{"text": "x", "image_url": {"url": "u"}}]}]}, 422, None),
        ({"messages": [{"role": "system", "content": [{"text": "x"}]}]}, 422, "messages.content"),
        ({"messages": [{"content": [IMAGE]}]}, 422, "messages"),
        ({"messages": [{"content": "x", "name": "n"}]}, 422, "messages.0.name"),
        ({"messages": HELLO * 16_385}, 422, "messages"),
        ({"messages": [{"content": [{"text": "x"}] * 9000}] * 2}, 422, "messages"),
        ({"messages": [{"content": [{"text": "x"}] * 99_999}] * 2}, 400, None),
        ({"model": ""}, 422, "model"),
        ({"model": "x" * 257}, 422, "model"),
        ({"model": "ecko"}, 404, "model"),
        ({"mesages": 1}, 422, "mesages"),
        ({"stream": 1}, 422, "stream"),
        ({"chat_template": "{{ x }}"}, 422, "chat_template"),
        ({"memory_strategy": {"name": "first_k", "params": {"k": 1}}}, 422, "memory_strategy.name"),
        ({"memory_strategy": {"params": {"k": 0}}}, 422, "memory_strategy.params.k"),
        ({"memory_strategy": {"params": {"k": 10**30}}}, 422, "memory_strategy.params.k"),
        ({"model_parameters": []}, 422, "model_parameters"),
        ({"model_parameters": {"top_k": 0}}, 422, "model_parameters.top_k"),
        ({"model_parameters": {"top_k": 1, "topK": 2}}, 422, "model_parameters"),
        ({"model_parameters": {"temprature": 1}}, 422, "model_parameters.temprature"),
        ({"model_parameters": {"x": "y" * 70_000}}, 422, "model_parameters"),
        ({"model_parameters": {"reasoning_effort": "low"}}, 422, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_request(
    talking: Site, fields: dict[str, Any], status: int, param: str | None, stream: bool
) -> None:
    response = await ask(talking, **{"stream": stream, **fields})
    error = envelope(response)
    assert response.status_code == status, error
    if param is not None:
        assert error["param"] == param
    assert len(error["message"]) < 400
    assert talking.counted(outcome="rejected") == talking.counted() == 1
    assert talking.idle
    assert not talking.engines[0].calls


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"model": "\xff"}', b"[" * 99_999]
)
async def test_what_is_no_json_object(talking: Site, content: bytes) -> None:
    response = await talking.client.post(PATH, content=content)
    assert response.status_code == 400
    assert envelope(response)["code"] == "invalid_request"


async def test_many_mistakes_cost_no_more_than_one(talking: Site) -> None:
    fields = ",".join(f'"k{number}":0' for number in range(300_000))
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await talking.client.post(PATH, content=b"{" + fields.encode() + b"}")
    assert (response.status_code, envelope(response)["param"]) == (422, "k0")
    assert loop.time() - began < 1


async def test_accounts_are_compared(talking: Site) -> None:
    headers = {"x-selected-account-id": "other"}
    body = {"model": "echo", "messages": HELLO, "account_id": "acme"}
    response = await talking.client.post(PATH, json=body, headers=headers)
    assert (response.status_code, envelope(response)["param"]) == (400, "account_id")


async def test_a_failure_inside_a_stream(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(double=TalkingEngine, engine={"interval_s": 0.1})
    body = {"model": "echo", "messages": HELLO, "stream": True}
    async with site.wire() as client, client.stream("POST", PATH, json=body) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines))[6:])["completion"]["text"] == SAYS[0]
        site.engines[0].dead = True
        text = "\n".join([line async for line in lines])
    assert "event: error\n" in text
    assert '"finish_reason": "stop"' not in text
    await eventually(lambda: site.idle)


async def test_usage_is_settled_as_everywhere(talking: Site) -> None:
    for stream in (False, True):
        await ask(talking, stream=stream)
    lines = [json.loads(line) for line in talking.log_text().splitlines()]
    for line in [line for line in lines if line["event"] == "request"]:
        used = (line["prompt_tokens"], line["completion_tokens"])
        assert used == (USED["prompt_tokens"], USED["completion_tokens"])
        assert line["endpoint"] == PATH
