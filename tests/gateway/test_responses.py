"""OpenAI's Responses as a router sees them."""

from __future__ import annotations

import asyncio

import openai
import pytest

from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.errors import EngineFailed
from serving.wire.messages import SSE_HEAD, HttpCall
from tests.gateway.conftest import Open, Site, events

PATH = "/v1/responses"
FIRST = b'event: response.created\ndata: {"type":"response.created"}\n\n'


class Dying(EchoEngine):
    """Its engine dies after the first event of a response."""

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        reply.head(SSE_HEAD)
        reply.data(FIRST)
        await asyncio.sleep(0.1)  # until the router has sent them
        raise EngineFailed("the engine of this replica failed")


@pytest.mark.parametrize("path", [PATH, "/v1/responses/", "/openai/responses", "/openai" + PATH])
async def test_the_body_reaches_the_engine_untouched(site: Site, path: str) -> None:
    content = b'{"model": "latest",  "input": "hi"}'
    response = await site.client.post(path, content=content)
    assert response.json() == {"model": "latest", "bytes": len(content)}
    (call,) = site.engines[0].calls
    assert isinstance(call, HttpCall)
    assert (call.path, call.model) == (PATH, "latest")
    assert call.adapter is not None
    assert call.adapter.id == "echo.pirate"
    assert site.counted(endpoint=path.rstrip("/"), outcome="ok") == 1


async def test_a_stream_that_fails_ends_with_the_event_of_an_error(open_site: Open) -> None:
    site = await open_site(double=Dying)
    response = await site.client.post(PATH, json={"model": "echo", "stream": True})
    assert response.status_code == 200
    first, (name, event) = events(response.text)
    assert first[0] == "response.created"
    assert name == "error"
    assert (event["type"], event["code"]) == ("error", "engine_failed")
    assert event["error"]["request_id"] == response.headers["x-request-id"]
    assert site.counted(endpoint=PATH, outcome="error") == 1


async def test_openais_sdk_raises_on_that_event(open_site: Open) -> None:
    site = await open_site(double=Dying)
    url = f"http://127.0.0.1:{await site.listen()}/v1"
    async with openai.AsyncOpenAI(api_key="sk-any", base_url=url, max_retries=0) as client:
        stream = await client.responses.create(model="echo", input="hi", stream=True)
        assert (await anext(stream)).type == "response.created"
        with pytest.raises(openai.APIError, match="the engine of this replica failed"):
            await anext(stream)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{PATH}/resp_1"),
        ("HEAD", f"{PATH}/resp_1"),
        ("GET", f"{PATH}/resp_1/input_items"),
        ("DELETE", f"{PATH}/resp_1"),
        ("POST", f"{PATH}/resp_1/cancel"),
    ],
)
async def test_nothing_is_stored(site: Site, method: str, path: str) -> None:
    response = await site.client.request(method, path)
    assert response.status_code == 404
    if method != "HEAD":
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("not_found", "response_id")
        assert error["message"].startswith("no response 'resp_1': responses are not stored here")
    bare = await site.client.request(method, path, headers={"x-api-key": "sk-wrong"})
    assert bare.status_code == 401
    assert not site.engines[0].calls
