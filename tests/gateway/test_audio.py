"""What is asked of a recording: no model here takes one, and that is said of any body."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from tests.gateway.conftest import KEY, Site

TRANSCRIPTIONS = "/v1/audio/transcriptions"
PATHS = [
    start + task
    for task in ("transcriptions", "translations")
    for start in ("/v1/audio/", "/openai/v1/audio/", "/openai/deployments/echo/audio/")
]
RECORDING = b"RIFF" + bytes(4 << 20)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"model": "latest"}, "files": {"file": ("a.wav", b"RIFF", "audio/wav")}},
        {"json": {"model": "echo"}},
        {"content": b"--", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"\x1f", "headers": {"content-encoding": "gzip"}},
        {},
    ],
    ids=["multipart", "json", "no boundary", "broken gzip", "nothing"],
)
async def test_any_body_is_told_the_same(site: Site, path: str, sent: dict[str, object]) -> None:
    response = await site.client.post(path, **sent)  # type: ignore[arg-type]
    assert response.status_code == 422
    assert response.headers["x-should-retry"] == "false"
    assert response.json() == {
        "error": {
            "message": "no model here transcribes or translates audio; models take text and images",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_supported",
            "request_id": response.headers["x-request-id"],
        }
    }
    counted = path.replace("/echo/", "/{model}/")
    assert site.counted(endpoint=counted, outcome="rejected") == 1
    assert not site.engines[0].calls


@pytest.mark.parametrize("path", PATHS)
async def test_it_is_told_to_callers_alone(site: Site, path: str) -> None:
    bare = await site.client.post(path, headers={"x-api-key": "sk-wrong"})
    assert (bare.status_code, bare.json()["error"]["code"]) == (401, "unauthenticated")
    read = await site.client.get(path)
    assert (read.status_code, read.headers["allow"]) == (405, "POST")


async def test_a_body_is_not_waited_for(site: Site) -> None:
    """It says that it has a gigabyte, and its first byte never comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", await site.listen())
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: {1 << 30}\r\n"
    writer.write(f"{head}x-api-key: {KEY['x-api-key']}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        said = await reader.read()
    writer.close()
    answer, _, body = said.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"connection: close" in answer
    assert json.loads(body)["error"]["code"] == "not_supported"


@pytest.mark.parametrize("azure", [False, True], ids=["openai", "azure"])
async def test_openais_sdk_hears_it_after_megabytes_and_asks_once(site: Site, azure: bool) -> None:
    url = f"http://127.0.0.1:{await site.listen()}"
    client = (
        openai.AsyncAzureOpenAI(api_key="sk-any", azure_endpoint=url, api_version="2024-10-21")
        if azure
        else openai.AsyncOpenAI(api_key="sk-any", base_url=f"{url}/v1")
    )
    async with client:
        for asked in (client.audio.transcriptions, client.audio.translations):
            with pytest.raises(openai.UnprocessableEntityError) as caught:
                await asked.create(model="echo", file=("a.wav", RECORDING))
            assert caught.value.code == "not_supported"
    assert site.counted(outcome="rejected") == 2
