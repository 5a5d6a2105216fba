"""Limits on what is used, through a router: who is refused, in what words, and what is counted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.accounts.quota.hold import BLOCK
from serving.accounts.quota.meter import Unit
from serving.api.guess import prompt_tokens
from tests.conftest import Eventually
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


async def send(
    site: Site, path: str = "/v4/completions", *, key: str = "sk-one", **body: Any
) -> httpx.Response:
    given = {**(CHAT if "chat" in path or "messages" in path else COMPLETION), **body}
    return await site.client.post(path, json=given, headers={"x-api-key": key})


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


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [("requests_per_minute", 2, "rate_limited"), ("tokens_per_day", 140, "budget_exhausted")],
)
async def test_a_limit_of_a_model_is_one_for_all_accounts(
    open_site: Open, keys_file: Path, limit: str, value: int, code: str
) -> None:
    """Whatever it is called, and those of other models are no part of it."""
    site = await limited(
        open_site,
        keys_file,
        "sk-one:acme\nsk-two:other",
        engine={"repeat": 10},
        spec={"quota": {limit: value}},
    )
    for key in ("sk-one", "sk-two"):
        assert (await send(site, key=key, prompt="a b c d")).status_code == 200
    assert left(site, limit, "model", "echo") == (0 if "requests" in limit else 140 - 2 * 44)
    for key, model in (("sk-one", "echo"), ("sk-two", "vendor/echo")):
        refused = await send(site, key=key, model=model)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, code)
        assert f"{limit} of model 'echo' ({value}) is" in refused.json()["error"]["message"]
    assert (await send(site, model="echo.pirate")).status_code == 200


async def test_headers_say_how_many_tokens_remain_by_the_minute(
    open_site: Open, keys_file: Path
) -> None:
    """Of the account's limit, which is nearer to its end than the key's."""
    lines = "sk-one:acme tokens_per_minute=100000\naccount acme tokens_per_minute=150"
    site = await limited(open_site, keys_file, lines)
    answer = await send(site, **LONG)
    assert answer.status_code == 200
    # What is held when the answer begins: a guess of the prompt and a first block.
    held = prompt_tokens(answer.request.content) + BLOCK
    assert answer.headers["x-ratelimit-limit-tokens"] == "150"
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(150 - held)
    assert re.fullmatch(r"\d+(\.\d+)?s", answer.headers["x-ratelimit-reset-tokens"])
    refused = answer
    while refused.status_code == 200:
        refused = await send(site, **LONG)
    assert refused.headers["x-ratelimit-limit-tokens"] == "150"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < held
    assert "tokens_per_minute of account 'acme' (150)" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("tokens_per_day", "200"), ("cost_per_day", "0.397"), ("cost_per_month", "0.397")],
)
async def test_a_stream_ends_where_its_budget_does(
    open_site: Open, keys_file: Path, eventually: Eventually, limit: str, value: str
) -> None:
    """A prompt of 3 tokens and an answer of 197, or what those cost."""
    lines = f"sk-one:acme\naccount acme {limit}={value}"
    site = await limited(
        open_site,
        keys_file,
        lines,
        engine={"interval_s": 0.002, "repeat": 200},
        spec={"price": {"input": "1000", "output": "2000"}},
    )
    answer = await send(site, **LONG)
    assert answer.status_code == 200
    *texts, (_, finish), (name, error) = events(answer.text)
    assert finish["completion"]["finish_reason"] == "budget_exhausted"
    assert name == "error"
    assert error["error"]["code"] == "budget_exhausted"
    words = f"{limit} of account 'acme' ({value}) is used up"
    assert words in error["error"]["message"]
    used = finish["token_usage"]
    assert used["completion"] == len(texts)
    assert used["total"] == 200
    await eventually(lambda: site.counted() == 1)
    assert left(site, limit) == 0
    refused = await send(site)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "budget_exhausted"
    assert refused.json()["error"]["message"] == words
    assert refused.headers["x-should-retry"] == "false"
    days = 31 if limit.endswith("month") else 1
    assert 0 < int(refused.headers["retry-after"]) <= days * 86_400


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
