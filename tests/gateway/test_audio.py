"""Requests about a recording as a router sees them: it reads one field of a form."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.wire.messages import JSON_HEAD, SSE_HEAD, HttpCall
from tests.gateway.conftest import Open, Site

TASKS = ("transcriptions", "translations")
STARTS = ("/v1/audio/", "/openai/v1/audio/", "/openai/deployments/echo/audio/")
PATHS = [start + task for task in TASKS for start in STARTS]
RECORDING = ("a.wav", b"RIFF" + bytes(4 << 20), "audio/wav")


class Listening(EchoEngine):
    """Says how much it has heard."""

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        self.calls.append(call)
        if b'name="stream"' in body:
            reply.head(SSE_HEAD)
            for word in ("one", " two"):
                chunk = {"object": "transcription.chunk", "choices": [{"delta": {"content": word}}]}
                reply.data(f"data: {json.dumps(chunk)}\n\n".encode())
            reply.data(b"data: [DONE]\n\n")
            return
        reply.head(JSON_HEAD)
        found = {"model": call.model, "bytes": len(body), "text": "one two"}
        reply.data(json.dumps(found).encode())


def form(**fields: str) -> dict[str, Any]:
    return {"data": fields, "files": {"file": RECORDING}}


@pytest.fixture
async def hearing(open_site: Open) -> Site:
    """A site whose model takes recordings."""
    site = await open_site(double=Listening)
    (engine,) = site.catalogue.engines
    hears = engine.model_copy(update={"task": "transcribe", "lora": None})
    changed = site.catalogue.model_copy(update={"models": (hears,), "aliases": {"ear": "echo"}})
    await site.router.set_catalogue(changed)
    return site


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["echo", "ear"])
async def test_the_form_reaches_the_engine_untouched(hearing: Site, path: str, model: str) -> None:
    path = path.replace("/echo/", f"/{model}/")
    sent = httpx.Request("POST", "http://x", **form(model=model, language="en"))
    kind = {"content-type": sent.headers["content-type"]}
    response = await hearing.client.post(path, content=sent.read(), headers=kind)
    found = response.json()
    assert (found["model"], found["bytes"]) == (model, len(sent.content))
    (call,) = hearing.engines[0].calls
    assert isinstance(call, HttpCall)
    assert (call.path, call.model) == ("/v1/audio/" + path.rpartition("/")[2], model)
    assert dict(call.headers)["content-type"] == kind["content-type"]
    counted = path.replace(f"/{model}/", "/{model}/")
    assert hearing.counted(endpoint=counted, outcome="ok") == 1


async def test_a_path_that_names_the_model(hearing: Site) -> None:
    path = "/openai/deployments/echo/audio/transcriptions"
    assert (await hearing.client.post(path, **form())).status_code == 200
    refused = await hearing.client.post(path, **form(model="ear"))
    assert refused.status_code == 422
    said = "the path names model 'echo', the body 'ear'"
    assert refused.json()["error"]["message"] == said


async def test_openais_client_gets_the_text_as_it_asks_for_it(hearing: Site) -> None:
    url = f"http://127.0.0.1:{await hearing.listen()}"
    async with openai.AsyncOpenAI(api_key="sk-any", base_url=f"{url}/v1") as client:
        transcribe: Any = client.audio.transcriptions.create
        assert (await transcribe(model="ear", file=RECORDING)).text == "one two"
        text = await transcribe(model="ear", file=RECORDING, response_format="text")
        assert text == "one two\n"
        events = [
            event async for event in await transcribe(model="ear", file=RECORDING, stream=True)
        ]
    assert [event.type for event in events] == [
        *["transcript.text.delta"] * 2,
        "transcript.text.done",
    ]
    assert [event.delta for event in events[:-1]] == ["one", " two"]
    assert events[-1].text == "one two"


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"json": {"model": "echo"}}, 400, "multipart/form-data"),
        ({}, 400, "multipart/form-data"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (form(), 422, "'model' is required"),
        (form(model=""), 422, "'model'"),
        (form(model="x" * 300), 422, "'model'"),
        (form(model="x" * 3000), 422, "'model'"),
        (form(model="tiny-whisper"), 404, "unknown model"),
        ({"data": {"model": ["echo", "ear"]}, "files": {"file": RECORDING}}, 422, "more than once"),
    ],
)
async def test_what_is_refused(
    hearing: Site, sent: dict[str, Any], status: int, words: str
) -> None:
    response = await hearing.client.post("/v1/audio/transcriptions", **sent)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert not hearing.engines[0].calls


async def test_models_are_told_apart_by_what_they_are_for(site: Site, hearing: Site) -> None:
    url = f"http://127.0.0.1:{await hearing.listen()}"
    async with openai.AsyncOpenAI(api_key="sk-any", base_url=f"{url}/v1") as client:
        with pytest.raises(openai.UnprocessableEntityError, match="/v1/audio/transcriptions"):
            await client.completions.create(model="echo", prompt="Once")
    known = (await hearing.client.get("/v4/models/echo")).json()
    assert known["model_type"] == "GENERIC"
    known = (await hearing.client.get("/v5/models/llmengine/echo")).json()
    assert known["model_type"] == "generic"
    url = f"http://127.0.0.1:{await site.listen()}"
    for client in (
        openai.AsyncOpenAI(api_key="sk-any", base_url=f"{url}/v1"),
        openai.AsyncAzureOpenAI(api_key="sk-any", azure_endpoint=url, api_version="2024-10-21"),
    ):
        async with client:
            with pytest.raises(openai.UnprocessableEntityError, match="does not answer at"):
                await client.audio.transcriptions.create(model="echo", file=RECORDING[:2])


async def test_a_form_above_the_limit(open_site: Open) -> None:
    site = await open_site(max_body_bytes=1 << 20)
    response = await site.client.post("/v1/audio/transcriptions", **form(model="echo"))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
