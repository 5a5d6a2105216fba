"""The steps that every request takes: who is let in, what is recorded, what is settled."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serving.accounts.caller import Caller
from serving.catalogue.catalogue import Catalogue
from serving.errors import RateLimited
from serving.store.entry import Entry
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events


class Book:
    """A policy that waits, notes what it is asked and may refuse."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse = refuse
        self.admitted: list[tuple[str | None, str]] = []
        self.settled: list[tuple[str | None, int, int]] = []
        self.entries: list[Entry] = []
        self.settling = asyncio.Event()
        self.settling.set()

    async def admit(self, caller: Caller, account: str | None, model: str) -> None:
        await asyncio.sleep(0)
        self.admitted.append((account, model))
        if self.refuse:
            raise RateLimited("too much", retry_after_s=7)

    async def settle(self, entry: Entry) -> None:
        await self.settling.wait()
        self.entries.append(entry)
        self.settled.append((entry.account or None, entry.prompt_tokens, entry.completion_tokens))


def request_lines(site: Site) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in site.log_text().splitlines()]
    return [line for line in lines if line["event"] == "request"]


PAGES = ["/v1/models", "/v1/models/echo", "/v4/models", "/v4/models/echo", "/user-info", "/status"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_counted_and_logged_like_a_completion(site: Site, path: str) -> None:
    assert (await site.client.get(path)).status_code == 200
    assert (await site.client.get(path, headers={"x-api-key": "wrong"})).status_code == 401
    endpoint = path.replace("/echo", "/{model}")
    assert site.counted(endpoint=endpoint, outcome="ok", model="none") == 1
    assert site.counted(endpoint=endpoint, outcome="rejected") == 1
    assert site.counted() == 2
    lines = request_lines(site)
    assert [line["status"] for line in lines] == [200, 401]
    assert {line["endpoint"] for line in lines} == {endpoint}


@pytest.mark.parametrize("path", ["/health", "/-/healthz", "/ready", "/metrics"])
async def test_a_probe_is_counted_and_not_logged(site: Site, path: str) -> None:
    assert (await site.client.get(path)).status_code == 200
    assert site.counted(endpoint=path, outcome="ok") == 1
    assert request_lines(site) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "endpoint"),
    [
        ("GET", "/nothing", 404, "other"),
        ("POST", "/v1/nothing", 404, "other"),
        ("GET", "/v4/completions", 405, "/v4/completions"),
        ("DELETE", "/v1/models/echo", 405, "/v1/models/{model}"),
        ("POST", "/health", 405, "/health"),
    ],
)
async def test_what_no_endpoint_takes_is_counted_once(
    site: Site, method: str, path: str, status: int, endpoint: str
) -> None:
    assert (await site.client.request(method, path)).status_code == status
    assert site.counted(endpoint=endpoint, outcome="rejected") == site.counted() == 1
    assert [line["status"] for line in request_lines(site)] == [status]


async def test_the_policy_knows_who_asks_for_what(open_site: Open) -> None:
    book = Book()
    site = await open_site(policy=book)
    await site.client.post(
        "/v4/completions",
        json={"model": "latest", "prompt": "one two"},
        headers={"x-api-key": "sk-acme"},
    )
    assert book.admitted == [("acme", "latest")]
    assert book.settled == [("acme", 2, 2)]


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
async def test_who_is_not_admitted_reaches_no_engine(open_site: Open, path: str) -> None:
    book = Book(refuse=True)
    site = await open_site(policy=book)
    # Refused before the ID is looked up: such an account is not told which models there are.
    for model in ("echo", "unknown"):
        answer = await site.client.post(path, json={"model": model, "prompt": "one"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"]["code"] == "rate_limited"
    assert site.engines[0].calls == []
    assert book.settled == []
    assert site.counted(outcome="rejected") == 2


async def test_an_admitted_request_that_is_refused_is_settled_with_nothing(
    open_site: Open,
) -> None:
    book = Book()
    site = await open_site(policy=book)
    assert (await site.complete(model="unknown")).status_code == 404
    assert book.settled == [(None, 0, 0)]


async def test_it_is_settled_before_its_last_byte(open_site: Open, eventually: Eventually) -> None:
    book = Book()
    book.settling.clear()
    site = await open_site(policy=book)
    whole = asyncio.create_task(site.complete())
    reader, writer = await site.send(stream=True)
    await reader.readuntil(b"one")
    await eventually(lambda: site.running == 0)
    await asyncio.sleep(0.05)
    assert not whole.done()
    book.settling.set()
    assert (await whole).status_code == 200
    rest = (await reader.readuntil(b"0\r\n\r\n")).decode()
    assert '"token_usage":{"prompt":3' in rest
    writer.close()
    assert book.settled == [(None, 3, 3)] * 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_left_pays_for_what_was_made(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    book = Book()
    site = await open_site(policy=book, engine={"interval_s": 0.02, "repeat": 100})
    _, writer = await site.send(stream=stream)
    await eventually(lambda: site.running == 1)
    await asyncio.sleep(0.15)
    writer.close()
    await eventually(lambda: book.settled)
    ((_, prompt, completion),) = book.settled
    assert prompt == 3
    assert 1 <= completion < 100
    (line,) = request_lines(site)
    assert line["outcome"] == "cancelled"
    assert (line["prompt_tokens"], line["completion_tokens"]) == (prompt, completion)
    assert line["usage_known"]
    value = site.metrics.registry.get_sample_value
    assert value("serving_completion_tokens_total", {"model": "echo"}) == completion


async def test_a_deadline_is_charged_for_what_was_made(open_site: Open) -> None:
    book = Book()
    site = await open_site(
        policy=book, engine={"interval_s": 0.02, "repeat": 100}, request_timeout_s=0.2
    )
    answer = await site.complete(stream=True)
    assert events(answer.text)[-1][0] == "error"
    ((_, prompt, completion),) = book.settled
    assert (prompt, 1 <= completion < 100) == (3, True)


async def test_a_replica_that_dies_cannot_say_what_was_used(
    open_site: Open, eventually: Eventually
) -> None:
    book = Book()
    site = await open_site(policy=book, engine={"interval_s": 0.02, "repeat": 100})
    reader, _ = await site.send(stream=True)
    await reader.readuntil(b"one")
    await site.kill(0)
    await eventually(lambda: book.settled)
    assert book.settled == [(None, 0, 0)]
    (line,) = request_lines(site)
    assert (line["outcome"], line["usage_known"]) == ("error", False)
    name = "serving_requests_without_usage_total"
    assert site.metrics.registry.get_sample_value(name, {"model": "echo"}) == 1


async def test_an_endpoint_that_needs_another_kind_of_model_says_which_answer(site: Site) -> None:
    answer = await site.client.post("/v1/embeddings", json={"model": "echo", "input": "one"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_field", "model")
    assert "'echo' does not answer at /v1/embeddings; ask it at /v4/completions" in error["message"]
    assert site.engines[0].calls == []


async def test_the_engine_s_app_answers_at_one_line_of_the_table(site: Site) -> None:
    body = {"model": "latest", "prompt": "one two"}
    answer = await site.client.post("/tokenize", json=body)
    assert answer.status_code == 200
    assert answer.json()["model"] == "latest"
    assert answer.headers["x-served-model"] == "echo.pirate"
    (call,) = site.engines[0].calls
    assert getattr(call, "path", None) == "/tokenize"
    assert call.adapter is not None


@pytest.mark.parametrize(
    ("path", "label", "body"),
    [
        ("/v5/completions", "/v5/completions", {"model": "vectors", "prompt": "x"}),
        (
            "/v4/chat-completions",
            "/v4/chat-completions",
            {"model": "vectors", "messages": [{"content": "x"}]},
        ),
        ("/v4/models/vectors/completions", "/v4/models/{model}/completions", {"prompt": "x"}),
        (
            "/v4/models/vectors/chat-completions",
            "/v4/models/{model}/chat-completions",
            {"prompt": "x", "chat_history": []},
        ),
        (
            "/v1/llm/completions-sync?model_endpoint_name=vectors",
            "/v1/llm/completions-sync",
            {"prompt": "x", "max_new_tokens": 1},
        ),
    ],
)
async def test_a_model_of_another_kind_is_told_where_it_answers(
    site: Site, path: str, label: str, body: dict[str, object]
) -> None:
    data = site.catalogue.model_dump()
    vectors = {"kind": "engine", "id": "vectors", "weights": "w", "context": 64, "task": "embed"}
    data["models"] = [*data["models"], vectors]
    await site.router.set_catalogue(Catalogue.model_validate(data))
    answer = await site.client.post(path, json=body)
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert f"'vectors' does not answer at {label}; ask it at /v1/embeddings" in message
