"""Budgets on a running service with two routers: real engines stop for them."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from serving.accounts.quota.leased import lease_of
from tests.cluster.test_keys import serving
from tests.live import BASE, INSTRUCT, Server, parse_events, poll

CHAT, COMPLETE = "/v1/chat/completions", "/v4/completions"
BUDGET = 600
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(live: Server, request: pytest.FixtureRequest) -> Ask:
    """`ask(path, stream)`: one long answer for a caller whose account has a budget of `BUDGET`."""
    admin = serving(live, "keys", "bootstrap")
    poll(lambda: known(live, admin), 10, "every router knows the admin's key")
    account = f"{request.node.originalname[5:]}-{request.node.callspec.id}".replace("/", "-")
    serving(live, "accounts", "create", account, key=admin)
    serving(live, "accounts", "quota", account, f"tokens_per_day={BUDGET}", key=admin)
    key = serving(live, "keys", "create", "--account", account, key=admin)

    def send(path: str, *, stream: bool) -> httpx.Response:
        if path == CHAT:
            body = {
                "model": INSTRUCT,
                "messages": [{"role": "user", "content": "Hello!"}],
                "ignore_eos": True,
                "max_tokens": 900,
                "stream": stream,
                "stream_options": {"include_usage": True} if stream else None,
            }
        else:
            more = {"temperature": 0, "frequency_penalty": -2.0, "max_tokens": 900}
            body = {"model": BASE, "prompt": "Hello", "model_parameters": more, "stream": stream}
        headers = {"x-api-key": key}
        return httpx.post(f"{live.url}{path}", json=body, headers=headers, timeout=60)

    poll(lambda: known(live, key), 10, "every router knows the key")
    return send


def known(live: Server, key: str) -> bool:
    pages = [
        httpx.get(f"{router.url}/v1/models", headers={"x-api-key": key}, timeout=10)
        for router in live.routers()
    ]
    return all(page.status_code == 200 for page in pages)


@pytest.mark.parametrize("path", [COMPLETE, CHAT])
def test_a_stream_ends_where_its_budget_does(live: Server, ask: Ask, path: str) -> None:
    before = generated(live)
    answer = ask(path, stream=True)
    assert answer.status_code == 200, answer.text
    (last,) = [event.json for event in parse_events(answer.text) if '"error"' in event.data]
    assert last["error"]["code"] == "budget_exhausted", last
    used = tokens(live, answer)
    assert BUDGET * 0.9 <= used <= BUDGET * 1.1
    poll(live.idle, 10, "the engine was told to stop")
    assert charged(live, answer) == generated(live) - before
    # The other router, if it hears of the account only now, has begun with a lease on credit.
    for _ in range(3):
        answer = ask(path, stream=True)
        if answer.status_code != 200:
            break
        used += tokens(live, answer)
    refused(answer)
    assert used <= BUDGET * 1.1 + lease_of("tokens_per_day", BUDGET, live.router_replicas)


@pytest.mark.parametrize("path", [COMPLETE, CHAT])
def test_a_whole_answer_is_refused_when_its_budget_ends(live: Server, ask: Ask, path: str) -> None:
    before = generated(live)
    answer = ask(path, stream=False)
    refused(answer)
    poll(live.idle, 10, "the engine was told to stop")
    assert charged(live, answer) == generated(live) - before > 0


def tokens(live: Server, answer: httpx.Response) -> int:
    entry = live.record(answer.headers["x-request-id"])
    return int(entry["prompt_tokens"] + entry["completion_tokens"])


def charged(live: Server, answer: httpx.Response) -> int:
    """The completion tokens of one request, as its router has charged them."""
    return int(live.record(answer.headers["x-request-id"])["completion_tokens"])


def generated(live: Server) -> float:
    """The tokens that all engines have made, as vLLM counts them."""
    return sum(live.sample(engine, "vllm:generation_tokens_total") for engine in live.engines())


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 429, answer.text
    assert json.dumps(BUDGET) in answer.text
    assert answer.headers.get("x-should-retry") == "false", answer.text
    assert int(answer.headers["retry-after"]) > 0
