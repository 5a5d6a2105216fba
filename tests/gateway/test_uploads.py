"""Recordings on their way through a router: looked at as they come, on disk until they are
answered, and gone with their requests."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from backports import zstd

from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.wire.messages import JSON_HEAD, HttpCall
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, request_head

PATH = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=b"
SIZE = 4 << 20


class Listening(EchoEngine):
    """Says what it has heard, once `gate` is open."""

    gate = asyncio.Event()

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        self.calls.append(call)
        await type(self).gate.wait()
        reply.head(JSON_HEAD)
        reply.data(json.dumps({"heard": hashlib.sha256(body).hexdigest()}).encode())


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--b\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(model: str = "echo", size: int = SIZE, *, model_last: bool = True) -> bytes:
    parts = [
        part("file", os.urandom(size), '; filename="a.wav"'),
        part("model", model.encode()),
    ]
    return b"".join([*(parts if model_last else reversed(parts)), b"--b--\r\n"])


@pytest.fixture
def gate() -> asyncio.Event:
    """Open; the engine answers while it is."""
    Listening.gate = asyncio.Event()
    Listening.gate.set()
    return Listening.gate


@pytest.fixture
def open_hearing(open_site: Open, gate: asyncio.Event) -> Open:
    """Makes a site whose model takes recordings."""

    async def open_it(**fields: Any) -> Site:
        site = await open_site(double=Listening, **fields)
        (engine,) = site.catalogue.engines
        hears = engine.model_copy(update={"task": "transcribe", "lora": None})
        changed = site.catalogue.model_copy(update={"models": (hears,), "aliases": {"ear": "echo"}})
        await site.router.set_catalogue(changed)
        return site

    return open_it


async def post(site: Site, body: bytes, **headers: str) -> httpx.Response:
    """Send a form over a real connection."""
    async with site.wire() as client:
        return await client.post(PATH, content=body, headers={"content-type": TYPE, **headers})


def spooled(site: Site) -> float:
    return site.metrics.registry.get_sample_value("serving_spooled_bytes") or 0


async def begin(site: Site, body: bytes, size: int | None = None, *, key: str = "sk-any") -> Any:
    """A connection on which the head of a request and `body`, a part of its body, were sent."""
    reader, writer = await site.connect()
    length = str(len(body) if size is None else size)
    headers = {"content-length": length, "content-type": TYPE, "x-api-key": key}
    writer.write(request_head(headers, PATH) + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("model_last", [True, False])
@pytest.mark.parametrize("size", [1000, SIZE])
@pytest.mark.parametrize("model", ["echo", "ear"])
async def test_it_arrives_as_it_was(
    open_hearing: Open, model: str, size: int, model_last: bool
) -> None:
    site = await open_hearing()
    body = form(model, size, model_last=model_last)
    response = await post(site, body)
    assert response.json() == {"heard": hashlib.sha256(body).hexdigest()}
    assert response.headers.get("x-served-model") == (None if model == "echo" else "echo")
    assert spooled(site) == 0


async def test_it_is_on_disk_until_it_is_answered(
    open_hearing: Open, gate: asyncio.Event, eventually: Eventually
) -> None:
    site = await open_hearing()
    gate.clear()
    bodies = [form() for _ in range(3)]
    asking = [asyncio.create_task(post(site, body)) for body in bodies]
    await eventually(lambda: len(site.engines[0].calls) == 3)
    assert spooled(site) == sum(map(len, bodies))
    gate.set()
    for body, response in zip(bodies, await asyncio.gather(*asking), strict=True):
        assert response.json()["heard"] == hashlib.sha256(body).hexdigest()
    assert spooled(site) == 0


@pytest.mark.parametrize(
    ("model", "status", "code"), [("nope", 404, "unknown_model"), ("x" * 999, 422, "invalid_field")]
)
async def test_a_model_that_cannot_answer_is_refused_before_the_rest_has_come(
    open_hearing: Open, model: str, status: int, code: str
) -> None:
    site = await open_hearing()
    body = form(model, model_last=False)
    reader, writer = await begin(site, body[: 1 << 16], len(body))
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert code.encode() in await reader.read(1 << 16)
    assert (spooled(site), site.engines[0].calls) == (0, [])
    writer.close()


async def test_who_has_used_up_a_limit_is_refused_before_the_rest_has_come(
    open_hearing: Open, tmp_path: Path
) -> None:
    """And is not told which models there are."""
    (tmp_path / "keys").write_text("sk-one requests_per_minute=0")
    site = await open_hearing(api_keys_file=str(tmp_path / "keys"))
    for model in ("echo", "nope"):
        body = form(model, model_last=False)
        reader, writer = await begin(site, body[: 1 << 16], len(body), key="sk-one")
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"connection: close" in head
        assert b"requests_per_minute" in await reader.read(1 << 16)
        assert (spooled(site), site.engines[0].calls) == (0, [])
        writer.close()


async def test_what_is_no_form_is_refused_before_the_rest_has_come(open_hearing: Open) -> None:
    site = await open_hearing()
    reader, writer = await begin(site, b"RIFF" + bytes(1000), SIZE)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_it_is_sent_again_when_its_replica_dies(
    open_hearing: Open, gate: asyncio.Event, eventually: Eventually
) -> None:
    site = await open_hearing(replicas=2)
    gate.clear()
    body = form()
    asking = asyncio.create_task(post(site, body))
    await eventually(lambda: any(engine.calls for engine in site.engines))
    first = next(at for at, engine in enumerate(site.engines) if engine.calls)
    await site.kill(first)
    await eventually(lambda: site.engines[1 - first].calls)
    gate.set()
    assert (await asking).json()["heard"] == hashlib.sha256(body).hexdigest()
    retries = site.metrics.registry.get_sample_value("serving_retries_total", {"model": "echo"})
    assert retries == 1
    assert spooled(site) == 0


@pytest.mark.parametrize("sent", [1000, SIZE // 2])
async def test_a_client_that_leaves_halfway_leaves_nothing(
    open_hearing: Open, eventually: Eventually, sent: int
) -> None:
    site = await open_hearing()
    body = form()
    _, writer = await begin(site, body[:sent], len(body))
    await eventually(lambda: spooled(site) > 0 or sent == 1000)
    writer.close()
    await eventually(lambda: site.counted(outcome="cancelled") == 1)
    assert (spooled(site), site.engines[0].calls) == (0, [])
    assert site.idle


async def test_a_client_that_leaves_while_it_is_heard(
    open_hearing: Open, gate: asyncio.Event, eventually: Eventually
) -> None:
    site = await open_hearing()
    gate.clear()
    _, writer = await begin(site, form())
    await eventually(lambda: site.engines[0].calls)
    writer.close()
    await eventually(lambda: site.counted(outcome="cancelled") == 1)
    assert spooled(site) == 0
    await eventually(lambda: site.idle)


async def test_a_client_that_is_slow_has_its_time(
    open_hearing: Open, eventually: Eventually
) -> None:
    site = await open_hearing(body_timeout_s=0.3)
    body = form()
    reader, _ = await begin(site, body[: SIZE // 2], len(body))
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    assert spooled(site) == 0


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_a_compressed_form(open_hearing: Open, coding: str, compress: Any) -> None:
    site = await open_hearing(max_body_bytes=SIZE + 10_000)
    body = form()
    sent = {"content-encoding": coding}
    response = await post(site, compress(body), **sent)
    assert response.json()["heard"] == hashlib.sha256(body).hexdigest()
    too_large = part("file", bytes(SIZE + 10_000), '; filename="a"') + body[SIZE:]
    assert (await post(site, compress(too_large), **sent)).status_code == 413
    assert (await post(site, compress(body)[:-9], **sent)).status_code == 400
    assert (await post(site, body, **sent)).status_code == 400
    assert (await post(site, body, **{"content-encoding": "br"})).status_code == 415
    assert spooled(site) == 0


async def test_a_form_above_the_limit(open_hearing: Open) -> None:
    site = await open_hearing(max_body_bytes=SIZE)
    assert (await post(site, form())).status_code == 413

    async def chunks() -> Any:
        body = form()
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    async with site.wire() as client:
        response = await client.post(PATH, content=chunks(), headers={"content-type": TYPE})
    assert response.status_code == 413
    assert spooled(site) == 0


async def test_more_than_there_is_room_for(
    open_hearing: Open, gate: asyncio.Event, eventually: Eventually
) -> None:
    site = await open_hearing(spool_bytes=SIZE + 1000)
    gate.clear()
    asking = asyncio.create_task(post(site, form()))
    await eventually(lambda: site.engines[0].calls)
    refused = await post(site, form())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    gate.set()
    assert (await asking).status_code == 200
    assert (await post(site, form())).status_code == 200


async def test_a_disk_that_fails(open_hearing: Open, tmp_path: Path) -> None:
    site = await open_hearing(spool_dir=str(tmp_path / "missing"))
    refused = await post(site, form())
    assert refused.status_code == 503
    assert "No such file" in refused.json()["error"]["message"]
    assert (await post(site, form(size=1000))).status_code == 200, "that needs no disk"
