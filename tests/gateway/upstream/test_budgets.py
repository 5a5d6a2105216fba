"""Budgets and hosted providers: a stream is ended on its way, and one that ended before its
provider has said the usage is charged with a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import KEY, events
from tests.gateway.test_limits import left
from tests.gateway.upstream.conftest import CANARY, Start, World, open_request
from tests.gateway.upstream.test_apis import respond, say
from tests.providers import PROMPT_TOKENS, Step

WORDS = tuple(f"w{number} " for number in range(600))
BUDGET = 200


async def limited(start: Start, tmp_path: Path) -> World:
    """A world whose callers have a budget; providers write a word every 2 ms."""
    file = tmp_path / "keys"
    file.write_text(f"{KEY['x-api-key']}:acme\naccount acme tokens_per_day={BUDGET}")
    world = await start(gateway={"api_keys_file": str(file), "api_keys": ""})
    for double in world.doubles.values():
        double.script = [Step(words=WORDS, pace_s=0.002)]
    return world


async def ask(world: World, api: str, dialect: str, **fields: Any) -> httpx.Response:
    match api:
        case "completion":
            return await world.complete(dialect, **fields)
        case "chat":
            return await world.chat(dialect, **fields)
        case "legacy":
            return await world.legacy(dialect, max_tokens=999, **fields)
        case "responses":
            return await respond(world, **fields)
    return await say(world, **fields)


APIS = [
    *(("completion", dialect) for dialect in ("openai", "anthropic", "gemini")),
    ("chat", "openai"),
    ("chat", "gemini"),
    ("legacy", "openai"),
    ("responses", "openai"),
    ("messages", "anthropic"),
]


@pytest.mark.parametrize(("api", "dialect"), APIS)
async def test_a_stream_ends_where_its_budget_does(
    start: Start, tmp_path: Path, eventually: Eventually, api: str, dialect: str
) -> None:
    world = await limited(start, tmp_path)
    answer = await ask(world, api, dialect, stream=True)
    assert answer.status_code == 200
    _, error = events(answer.text)[-1]
    said = str(error)
    assert api == "messages" or "budget_exhausted" in said, "Anthropic's errors have a type only"
    assert f"tokens_per_day of account 'acme' ({BUDGET}) is used up" in said
    if api == "completion":
        assert events(answer.text)[-2][1]["completion"]["finish_reason"] == "budget_exhausted"
    (seen,) = world.doubles[dialect].requests
    await eventually(lambda: seen.closed_by_client)
    await eventually(lambda: world.site.counted() == 1)
    (line,) = world.log_lines("request")
    assert line["usage_known"] is (dialect == "gemini"), "which says it with every event"
    # One read from the provider may go beyond it.
    assert BUDGET - 40 < line["prompt_tokens"] + line["completion_tokens"] < BUDGET + 40
    assert left(world.site, "tokens_per_day") <= 0
    assert (await ask(world, api, dialect)).status_code == 429


async def test_a_stream_within_its_budget_is_charged_what_the_provider_says(
    start: Start, tmp_path: Path
) -> None:
    world = await limited(start, tmp_path)
    world.openai.script = [Step(words=WORDS[:100], pace_s=0.001)]
    answer = await world.chat(stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert left(world.site, "tokens_per_day") == BUDGET - PROMPT_TOKENS - 100
    (line,) = world.log_lines("request")
    assert line["usage_known"]


async def test_who_leaves_before_the_provider_says_the_usage_pays_a_guess(
    start: Start, tmp_path: Path, eventually: Eventually
) -> None:
    """Else a caller who always leaves just before the end would never pay."""
    world = await limited(start, tmp_path)
    body = {"model": "m-openai", "prompt": CANARY, "stream": True}
    reader, writer = await open_request(world.site, "/v4/completions", body)
    seen = b""
    while b"w50 " not in seen:
        seen += await reader.read(1024)
    writer.close()
    await eventually(lambda: world.site.counted(outcome="cancelled") == 1)
    (line,) = world.log_lines("request")
    assert not line["usage_known"]
    assert 50 < line["completion_tokens"] < BUDGET
    assert left(world.site, "tokens_per_day") == (
        BUDGET - line["prompt_tokens"] - line["completion_tokens"]
    )
    assert world.metric("serving_upstream_without_usage_total", provider="openai") == 1
