"""What is the same for every endpoint that a model answers: which model answers and what it is
called, how a request is refused, counted, limited and sent again, and how it ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.asked import Ability
from serving.api.formed import CHAT_PATH, COMPLETIONS_PATH
from serving.api.openapi.document import JSON
from serving.errors import EngineFailed
from serving.wire.messages import CompletionCall
from tests.asking import ASKED, DOCUMENT, Asking, check
from tests.conftest import Eventually
from tests.gateway.asking import (
    ADAPTER,
    ADAPTER_ALIAS,
    ALIAS,
    BASE,
    NamingEngine,
    ask,
    names,
    serve,
)
from tests.gateway.conftest import Open, events
from tests.gateway.test_keys import keyed
from tests.gateway.test_limits import left, limited, running

# What answers to each name.
TARGETS = {BASE: BASE, ALIAS: BASE, ADAPTER: ADAPTER, ADAPTER_ALIAS: ADAPTER}
KINDS = ("prompt", "completion")
every_endpoint = pytest.mark.parametrize("asking", ASKED, ids=lambda at: at.endpoint.path)


@every_endpoint
async def test_the_model_that_is_named_answers_under_that_name(
    open_site: Open, asking: Asking
) -> None:
    site = await open_site(double=NamingEngine)
    await serve(site, asking.task)
    sent = 0
    for model in names(asking.task):
        target = TARGETS[model]
        for body in asking.bodies:
            answer = await ask(asking, site.client, model, body)
            assert answer.status_code == 200, answer.text
            call = site.engines[0].calls[-1]
            assert call.model == model
            assert (call.adapter.id if call.adapter else BASE) == target
            if not isinstance(call, CompletionCall):
                assert call.path in (asking.engine_path, CHAT_PATH, COMPLETIONS_PATH)
            asking.check_names(answer, model, target)
            sent += 1
            kind = "adapter" if target == ADAPTER else "engine"
            labels = {"model": BASE, "endpoint": asking.endpoint.path}
            assert site.counted(**labels, outcome="ok") == site.counted() == sent
            assert site.counted(**labels, kind=kind) > 0


# refusals


def check_refusal(asking: Asking, answer: httpx.Response, status: int) -> str:
    """The message of a refusal, which is written in the endpoint's dialect."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == JSON
    said = DOCUMENT["paths"][asking.endpoint.path][asking.endpoint.method.lower()]["responses"]
    schema = said[str(status)]["content"][JSON]["schema"]
    check(answer.json(), schema)
    error = answer.json()["error"]
    dialect = asking.endpoint.dialect
    if dialect.id_header:
        assert answer.headers[dialect.id_header.decode()] == answer.headers["x-request-id"]
    assert (answer.json().get("detail") == error["message"]) == ("detail" in answer.json())
    message: str = error["message"]
    return message


def coded(name: str) -> dict[str, str]:
    return {"content-encoding": name}


@every_endpoint
async def test_refusals_are_written_in_the_dialect_and_counted_once(
    open_site: Open, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is large enough to be counted is too large here.
    monkeypatch.setattr("serving.api.structure.SMALL", 500)
    monkeypatch.setattr("serving.router.large_bodies.SMALL", 500)
    site = await open_site(double=NamingEngine, max_body_bytes=20_000, max_body_brackets=100)
    await serve(site, asking.task)
    client, path = site.client, asking.path(BASE)
    is_form = "files" in asking.sent(BASE)
    large: dict[str, Any] = {"content": bytes(20_001)}
    if is_form:  # what is none is refused before its length is known
        large = asking.sent(BASE) | {"files": {"file": ("a.wav", bytes(20_001))}}
    other = {"x-api-key": "sk-acme", "x-selected-account-id": "other"}
    form = "multipart/form-data"
    wrong: dict[str, tuple[httpx.Response, int, str]] = {
        "a wrong key": (await ask(asking, client, headers={"x-api-key": "no"}), 401, "key"),
        "another's account": (await ask(asking, client, headers=other), 403, "account"),
        "an unknown model": (await ask(asking, client, "ecko"), 404, "'echo'"),
        "another method": (await client.delete(path), 405, "takes POST"),
        "an unknown coding": (await ask(asking, client, headers=coded("br")), 415, "'br'"),
        "not in its coding": (await ask(asking, client, headers=coded("gzip")), 400, "gzip"),
        "nothing": (await client.post(path), 400, form if is_form else "JSON"),
        "no object": (await client.post(path, content=b"[]"), 400, form if is_form else "object"),
        "lists": (
            await client.post(path, content=b'{"a": [%s[]]}' % (b"[]," * 200)),
            *((400, form) if is_form else (400, "at most 100 are taken")),
        ),
        "too much": (await client.post(path, **large), 413, "20000 bytes"),
    }
    for name, (answer, status, says) in wrong.items():
        assert says in check_refusal(asking, answer, status), name
        assert answer.headers["x-should-retry"] == "false"
    assert site.engines[0].calls == []
    of = {"outcome": "rejected", "endpoint": asking.endpoint.path}
    assert site.counted(**of) == site.counted() == len(wrong)


@every_endpoint
async def test_a_model_that_is_for_something_else_says_what(
    open_site: Open, asking: Asking
) -> None:
    site = await open_site(double=NamingEngine)
    if asking.answer.needs is Ability.TOKENIZE:  # all have it that run on vLLM
        await serve(site, "generate", runtime="transformers")
    else:
        await serve(site, "transcribe" if asking.task == "generate" else "generate")
    for model in (BASE, ALIAS):
        message = check_refusal(asking, await ask(asking, site.client, model), 422)
        said = f"model '{model}' does not answer at {asking.endpoint.path}; ask it at /v"
        assert message.startswith(said)
    assert site.engines[0].calls == []
    assert site.counted(outcome="rejected") == site.counted() == 2


@every_endpoint
async def test_without_a_replica_it_is_503_and_says_when_to_come_back(
    open_site: Open, asking: Asking
) -> None:
    site = await open_site(replicas=0, hold_s=0, hold_stream_s=0)
    await serve(site, asking.task)
    for body in asking.bodies:
        answer = await ask(asking, site.client, ALIAS, body)
        check_refusal(asking, answer, 503)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert site.counted(outcome="rejected", endpoint=asking.endpoint.path) == site.counted()


# ends


@every_endpoint
async def test_a_dead_engine_costs_a_retry_and_nothing_else(
    open_site: Open, asking: Asking
) -> None:
    site = await open_site(replicas=2, double=NamingEngine)
    await serve(site, asking.task)
    site.engines[0].dead = True
    for body in [*asking.bodies] * 4:
        assert (await ask(asking, site.client, ALIAS, body)).status_code == 200
    retries = site.metrics.registry.get_sample_value("serving_retries_total", {"model": BASE})
    assert retries == len(site.engines[0].calls) > 0
    of = {"outcome": "ok", "endpoint": asking.endpoint.path}
    assert site.counted(**of) == site.counted() == len([*asking.bodies]) * 4


@every_endpoint
async def test_what_takes_too_long_is_504(open_site: Open, asking: Asking) -> None:
    site = await open_site(double=NamingEngine, engine={"interval_s": 60}, request_timeout_s=0.02)
    await serve(site, asking.task)
    for body in asking.bodies:
        check_refusal(asking, await ask(asking, site.client, ALIAS, body), 504)
    of = {"outcome": "error", "endpoint": asking.endpoint.path}
    assert site.counted(**of) == site.counted() == len([*asking.bodies])
    assert site.idle


@every_endpoint
async def test_a_client_that_leaves_is_cancelled_once_and_frees_its_place(
    open_site: Open, asking: Asking, eventually: Eventually
) -> None:
    site = await open_site(double=NamingEngine, engine={"interval_s": 60})
    await serve(site, asking.task)
    async with site.wire() as wire:
        leaving = asyncio.create_task(ask(asking, wire, ALIAS))
        await eventually(lambda: site.running == 1)
        leaving.cancel()
        await eventually(lambda: site.counted())
    await eventually(lambda: site.idle)
    of = {"outcome": "cancelled", "endpoint": asking.endpoint.path, "model": BASE}
    assert site.counted(**of) == site.counted() == 1


class Breaking(NamingEngine):
    """Fails after its first word has left."""

    async def _step(self) -> None:
        if self.said:
            await asyncio.sleep(0.05)
            raise EngineFailed("the engine of this replica failed")
        self.said = True

    said = False


@pytest.mark.parametrize(
    "asking", [at for at in ASKED if at.streamed], ids=lambda at: at.endpoint.path
)
async def test_a_stream_that_breaks_off_says_so_in_the_dialect(
    open_site: Open, asking: Asking
) -> None:
    site = await open_site(double=Breaking)
    await serve(site, asking.task)
    answer = await ask(asking, site.client, ALIAS, asking.streamed)
    assert answer.status_code == 200
    first, (name, last) = events(answer.text)
    assert first[1] != "[DONE]"
    said = json.dumps(last)
    assert "the engine of this replica failed" in said
    assert answer.headers["x-request-id"] in said
    own = asking.endpoint.dialect.event(EngineFailed("x"), "y").decode()
    assert {(name, frozenset(last))} == {(n, frozenset(d)) for n, d in events(own)}
    of = {"outcome": "error", "endpoint": asking.endpoint.path}
    assert site.counted(**of) == site.counted() == 1


# what is kept of each


async def test_each_is_in_the_ledger_once(open_site: Open, tmp_path: Path) -> None:
    at = await keyed(open_site, f"sqlite:///{tmp_path}/store.sqlite3", double=NamingEngine)
    site, sent = at.site, {}
    for asking in ASKED:
        await serve(site, asking.task)
        key_id, key = await at.make()
        asks = [(model, body, 200) for model in (BASE, ALIAS) for body in asking.bodies]
        for model, body, status in [*asks, ("ecko", asking.body, 404)]:
            answer = await ask(asking, site.client, model, body, headers={"x-api-key": key})
            assert answer.status_code == status, answer.text
            streams = bool(body.get("stream")) or body == asking.streamed
            done = ("ok", BASE) if status == 200 else ("rejected", "")
            identity = answer.headers["x-request-id"]
            sent[identity] = (asking.endpoint.path, key_id, model, *done, status, streams)
    await site.router.books.ledger._shipper.ship_all()  # type: ignore[union-attr]
    listed = await at.send(at.admin_key, "GET", "/v4/usage/entries?limit=1000")
    rows = listed.json()["items"]
    fields = ("endpoint", "key", "model", "outcome", "served_model", "status", "stream")
    assert {row["request_id"]: tuple(row[field] for field in fields) for row in rows} == sent
    assert len(rows) == len(sent)
    for row in rows:
        assert row["usage_known"]
        ok = row["status"] == 200
        assert (row["prompt_tokens"] > 0, row["completion_tokens"] > 0) == (ok, ok), row


@every_endpoint
async def test_each_counts_towards_limits(open_site: Open, tmp_path: Path, asking: Asking) -> None:
    lines = "sk-one:acme requests_per_minute=3\naccount acme tokens_per_day=1000"
    site = await limited(open_site, tmp_path / "keys", lines, double=NamingEngine)
    await serve(site, asking.task)
    key, value = {"x-api-key": "sk-one"}, site.metrics.registry.get_sample_value
    for number, (model, status) in enumerate(((BASE, 200), (ALIAS, 200), ("ecko", 404)), 1):
        answer = await ask(asking, site.client, model, headers=key)
        assert answer.status_code == status, answer.text
        assert answer.headers["x-ratelimit-remaining-requests"] == str(3 - number)
    used = [value(f"serving_{kind}_tokens_total", {"model": BASE}) or 0.0 for kind in KINDS]
    assert all(used)
    assert left(site, "tokens_per_day") == 1000 - sum(used)
    for model in (BASE, "ecko"):  # who may not ask is not told which models there are
        refused = await ask(asking, site.client, model, headers=key)
        assert "requests_per_minute of key" in check_refusal(asking, refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert running(site) == 0
