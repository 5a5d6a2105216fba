"""What a real client does on its own: curl, in the ways that HTTP has of confusing servers."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")

BODY = {"model": "echo", "prompt": "one two three"}


async def curl(site: Site, *options: str, path: str = "/v4/completions") -> tuple[int, str]:
    """curl's exit code and output."""
    url = f"http://127.0.0.1:{await site.listen()}{path}"
    command = ("curl", "-sS", "--max-time", "10", "--noproxy", "*", url, "-H", "x-api-key: sk-any")
    running = await asyncio.create_subprocess_exec(
        *command, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await running.communicate()
    return running.returncode or 0, said.decode()


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
async def test_every_version_gets_its_answer(site: Site, version: str) -> None:
    if version == "--http2" and (await curl(site, version, path="/health"))[0] == 2:
        pytest.skip("this curl is built without HTTP/2")
    code, said = await curl(site, version, "-d", json.dumps(BODY))
    assert code == 0, said
    assert json.loads(said)["completion"]["text"].split() == ["one", "two", "three"]


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
async def test_every_version_streams(open_site: Open, version: str) -> None:
    site = await open_site(engine={"interval_s": 0.1})
    if version == "--http2" and (await curl(site, version, path="/health"))[0] == 2:
        pytest.skip("this curl is built without HTTP/2")
    url = f"http://127.0.0.1:{await site.listen()}/v4/completions"
    running = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", "--noproxy", "*", version, url, "-H", "x-api-key: sk-any"),
        *("-d", json.dumps({**BODY, "stream": True})),
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    first = await running.stdout.readuntil(b"\n\n")
    assert b"one" in first
    assert site.running == 1, "the first word came with the last"
    rest = await running.stdout.read()
    assert await running.wait() == 0
    found = events((first + rest).decode())
    assert found[-1][1]["token_usage"]["completion"] == 3


async def test_http2_with_prior_knowledge_is_refused(site: Site) -> None:
    code, said = await curl(site, "--http2-prior-knowledge", path="/health")
    if code == 2:
        pytest.skip("this curl is built without HTTP/2")
    assert code not in (0, 28), f"{said}: served, or left waiting"
    assert (await curl(site, "-f", path="/health"))[0] == 0


@pytest.mark.parametrize("options", [(), ("-H", "transfer-encoding: chunked")])
async def test_a_large_body_waits_for_continue(
    site: Site, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """curl asks with `Expect: 100-continue` before it sends more than a megabyte."""
    file = tmp_path / "body.json"
    file.write_text(json.dumps({**BODY, "prompt": "one " * 400_000}))
    code, said = await curl(site, "-d", f"@{file}", "-v", *options)
    assert code == 0, said
    assert "100 Continue" in said
    assert "context" in said  # the echo engine has 2,000 tokens


async def test_a_killed_curl_is_a_departure(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(engine={"interval_s": 0.05, "repeat": 1000})
    url = f"http://127.0.0.1:{await site.listen()}/v4/completions"
    running = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", "--noproxy", "*", url, "-H", "x-api-key: sk-any"),
        *("-d", json.dumps({**BODY, "stream": True})),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await eventually(lambda: site.running == 1)
    running.kill()
    await eventually(lambda: site.idle, within_s=1.0)
    await eventually(lambda: site.counted(outcome="cancelled") == 1)
    await running.wait()
