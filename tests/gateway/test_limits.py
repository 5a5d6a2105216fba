"""Limits on what is used, through a router: who is refused, in what words, and what is counted."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.accounts.quota.meter import Unit
from tests.conftest import Eventually
from tests.e2e.conftest import sdk_python
from tests.gateway.conftest import Open, Site, events
from tests.gateway.test_keys import CHAT, COMPLETION, Keyed, keyed

LONG = {"model": "echo", "prompt": "one two three", "stream": True}


def left(site: Site, name: str, kind: str = "account", subject: str = "acme") -> int:
    """What is left of a limit in the router's memory."""
    limiter = site.router.limits.limiter
    meters = limiter._shelf._subjects[kind, subject].meters
    return next(meter.left(limiter._clock()) for _, meter in meters if meter.name == name)


def running(site: Site) -> int:
    """Requests that the router's limits have in flight."""
    subjects = site.router.limits.limiter._shelf._subjects.values()
    meters: list[Any] = [m for s in subjects for unit, m in s.meters if unit is Unit.IN_FLIGHT]
    return sum(meter.running for meter in meters)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


async def limited(open_site: Open, file: Path, lines: str, **more: Any) -> Site:
    """A router whose limits come from a file of keys: no store."""
    file.write_text(lines)
    hosted = {"router": {"replicas": 1}}
    return await open_site(api_keys_file=str(file), hosted=hosted, **more)


async def send(site: Site, path: str = "/v4/completions", **body: Any) -> httpx.Response:
    given = {**(CHAT if "chat" in path or "messages" in path else COMPLETION), **body}
    return await site.client.post(path, json=given, headers={"x-api-key": "sk-one"})


async def test_a_refusal_says_which_limit_and_when_to_come_back(
    open_site: Open, keys_file: Path
) -> None:
    lines = "sk-one:acme requests_per_minute=2\naccount acme requests_per_minute=100"
    site = await limited(open_site, keys_file, lines)
    for remaining in ("1", "0"):
        answer = await send(site)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == remaining
    refused = await send(site)
    assert refused.status_code == 429
    assert 20 <= int(refused.headers["retry-after"]) <= 30
    assert "x-should-retry" not in refused.headers
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"1m0s|5\d(\.\d+)?s", refused.headers["x-ratelimit-reset-requests"])
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
    assert error["message"].startswith("requests_per_minute of key '")
    assert error["message"].endswith("(2) is reached")
    counted = site.metrics.registry.get_sample_value(
        "serving_quota_refused_total", {"of": "key", "limit": "requests_per_minute"}
    )
    assert counted == 1


@pytest.mark.parametrize(
    ("path", "where"),
    [("/v1/chat/completions", "error"), ("/v1/messages", "error"), ("/v4/completions", "error")],
)
async def test_in_each_dialect(open_site: Open, keys_file: Path, path: str, where: str) -> None:
    site = await limited(open_site, keys_file, "sk-one requests_per_minute=0")
    refused = await send(site, path, **({"max_tokens": 5} if "messages" in path else {}))
    assert refused.status_code == 429
    assert refused.json()[where]["type"] == "rate_limit_error"
    assert "retry-after" in refused.headers


async def test_in_flight_is_until_the_answer_has_ended(
    open_site: Open, keys_file: Path, eventually: Eventually
) -> None:
    lines = "sk-one requests_in_flight=1"
    site = await limited(open_site, keys_file, lines, engine={"interval_s": 0.02})
    reader, writer = await site.send(key="sk-one", **LONG)
    await reader.readuntil(b"data: ")
    assert (await send(site)).status_code == 429
    writer.close()
    await eventually(lambda: running(site) == 0)
    assert (await send(site)).status_code == 200
    assert running(site) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_counted_is_charged(
    open_site: Open, keys_file: Path, stream: bool
) -> None:
    lines = "sk-one:acme\naccount acme tokens_per_day=1000"
    site = await limited(open_site, keys_file, lines)
    assert (await send(site, prompt="one two three", stream=stream)).status_code == 200
    assert left(site, "tokens_per_day") == 1000 - 6


async def test_a_model_has_a_price_and_limits_for_all(open_site: Open, keys_file: Path) -> None:
    price = {"input": "1000", "output": "2000"}
    site = await limited(
        open_site, keys_file, "sk-one:acme cost_per_month=1", spec={"price": price}
    )
    assert (await send(site, prompt="one two three")).status_code == 200
    key_id = next(name for kind, name in site.router.limits.limiter._shelf._subjects)
    assert left(site, "cost_per_month", "key", key_id) == 1_000_000_000 - 3 * 10**6 - 3 * 2 * 10**6


async def test_a_stream_ends_where_its_budget_does(
    open_site: Open, keys_file: Path, eventually: Eventually
) -> None:
    lines = "sk-one:acme\naccount acme tokens_per_day=200"
    site = await limited(open_site, keys_file, lines, engine={"interval_s": 0.002, "repeat": 200})
    answer = await send(site, **LONG)
    assert answer.status_code == 200
    *texts, (_, finish), (name, error) = events(answer.text)
    assert finish["completion"]["finish_reason"] == "budget_exhausted"
    assert name == "error"
    assert error["error"]["code"] == "budget_exhausted"
    assert "tokens_per_day of account 'acme' (200) is used up" in error["error"]["message"]
    used = finish["token_usage"]
    assert used["completion"] == len(texts)
    assert used["total"] == 200
    await eventually(lambda: site.counted() == 1)
    assert left(site, "tokens_per_day") == 0
    refused = await send(site)
    assert refused.json()["error"]["code"] == "budget_exhausted"
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


async def test_a_whole_answer_is_refused_where_its_budget_ends(
    open_site: Open, keys_file: Path
) -> None:
    lines = "sk-one:acme\naccount acme tokens_per_day=200"
    site = await limited(open_site, keys_file, lines, engine={"interval_s": 0.002, "repeat": 200})
    refused = await send(site, prompt="one two three")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "budget_exhausted"
    # What the engine has made is charged all the same.
    assert left(site, "tokens_per_day") == 0


async def test_a_long_answer_within_its_budget_is_whole(open_site: Open, keys_file: Path) -> None:
    lines = "sk-one:acme\naccount acme tokens_per_day=2000 tokens_per_minute=100"
    site = await limited(open_site, keys_file, lines, engine={"repeat": 200})
    answer = await send(site, prompt="one two three")
    assert answer.json()["token_usage"]["completion"] == 600
    assert left(site, "tokens_per_day") == 2000 - 603
    assert left(site, "tokens_per_minute") == 0


async def test_limits_are_set_and_read_over_http(open_site: Open, tmp_path: Path) -> None:
    at: Keyed = await keyed(open_site, f"sqlite:///{tmp_path}/store.sqlite3")
    given = {"requests_per_minute": 600, "cost_per_month": "25.50"}
    made = await at.admin("POST", "/accounts", {"id": "acme", "quota": given})
    assert made["quota"] == given
    changed = await at.admin(
        "PATCH", "/accounts/acme", {"quota": {"tokens_per_day": 500, "requests_per_minute": None}}
    )
    assert changed["quota"] == {"cost_per_month": "25.50", "tokens_per_day": 500}
    _, key = await at.make(account_id="acme", quota={"requests_per_minute": 1})
    assert (await at.complete(key)).status_code == 200
    assert (await at.complete(key)).json()["error"]["code"] == "rate_limited"
    async with asyncio.timeout(5):
        while True:
            seen = await at.admin("GET", "/accounts/acme")
            if seen["used"]["tokens_per_day"]["used"] == 4:
                break
            await asyncio.sleep(0.05)
    assert seen["used"]["cost_per_month"]["used"] == "0.00"
    cleared = await at.admin("PATCH", "/accounts/acme", {"quota": None})
    assert (cleared["quota"], cleared["used"]) == (None, None)
    (audit, *_) = (await at.admin("GET", "/audit"))["items"]
    assert audit["detail"] == {"quota": None}
    wrong = await at.send(
        at.admin_key, "PATCH", "/v4/admin/accounts/acme", {"quota": {"cost_per_day": "-1"}}
    )
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "quota.cost_per_day")


@pytest.mark.sdk
@pytest.mark.parametrize(
    ("environment", "module", "client", "base"),
    [
        ("tools", "openai", "OpenAI", "/v1"),
        ("scale-gp", "scale_gp", "SGPClient", ""),
        ("scale-gp-beta", "scale_gp_beta", "SGPClient", ""),
    ],
)
async def test_clients_see_their_own_error_and_back_off_as_told(
    open_site: Open,
    keys_file: Path,
    environment: str,
    module: str,
    client: str,
    base: str,
) -> None:
    """Nobody waits for the end of a day, and a minute's limit is waited for as the answer says."""
    site = await limited(
        open_site, keys_file, "sk-one requests_per_minute=30\nsk-two tokens_per_day=1"
    )
    arguments = {"base_url": f"http://127.0.0.1:{await site.listen()}{base}"}
    if "scale" in module:
        arguments["account_id"] = "acme"
    job = {"module": module, "client": client, "arguments": arguments}
    job |= {"call": {"model": "echo", "prompt": "one"}, "key": "sk-one", "spent": "sk-two"}
    python = await asyncio.to_thread(sdk_python, environment)
    script = Path(__file__).parents[1] / "e2e" / "scripts" / "use_limits.py"
    process = await asyncio.create_subprocess_exec(
        str(python), str(script), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, errors = await process.communicate(json.dumps(job).encode())
    assert process.returncode == 0, errors.decode()[-4000:]
    found = json.loads(out)
    refused = found["refused"]
    assert (refused["error"], refused["is_rate_limit"]) == ("RateLimitError", True)
    assert refused["status"] == 429
    assert "requests_per_minute of key" in refused["message"]
    assert "(30) is reached" in refused["message"]
    assert found["after"] is None
    assert found["waited"], "it was refused at first"
    # The first wait is as long as the first refusal said.
    waited, told = found["waited"][0]
    assert waited >= told >= 1
    spent = found["spent"]
    assert (spent["error"], spent["sent"]) == ("RateLimitError", 1)
    assert "tokens_per_day of key" in spent["message"]
