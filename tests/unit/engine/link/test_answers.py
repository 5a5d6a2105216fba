"""What a link carries."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from serving.router import answer as router_answer
from serving.router.replica import ReplicaLink
from serving.wire.messages import End, HttpCall
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import Pair, completion, read


async def test_an_answer(pair: Pair, link: ReplicaLink) -> None:
    answer = link.open(completion())
    data = await read(answer)
    assert data.count(b"data: ") == 4
    assert answer.head is not None
    assert answer.head.status == 200
    assert answer.end == End("stop", 3, 3, 0.0)
    assert link.in_flight == pair.server.in_flight == pair.engine.running == 0
    assert pair.ended == ["ok"]


async def test_an_http_call_and_its_body(link: ReplicaLink) -> None:
    body = b'{"x": "' + b"y" * 300_000 + b'"}'
    answer = link.open(HttpCall("r1", "m", "POST", "/v1/completions"), body)
    assert msgspec.json.decode(await read(answer)) == {"model": "m", "bytes": len(body)}


async def test_many_answers_at_once_do_not_mix(link: ReplicaLink) -> None:
    answers = [link.open(completion(f"n{number} " * 20)) for number in range(50)]
    for number, data in enumerate(await asyncio.gather(*map(read, answers))):
        assert data.count(b"n%d " % number) == 20
        assert data.count(b'"text":"n') == 20


async def test_welcome_tells_who_is_there(link: ReplicaLink) -> None:
    assert link.welcome is not None
    assert (link.welcome.replica, link.welcome.max_model_len) == ("m#1", 1000)


async def test_an_answer_nobody_reads_is_given_up(
    pair: Pair, link: ReplicaLink, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_answer, "MAX_UNREAD", 10_000)
    pair.engine.interval_s, pair.engine.repeat = 0.001, 900
    answer = link.open(completion("x" * 100))
    await eventually(lambda: answer.failed)
    assert answer.failed is not None
    assert not answer.failed.retryable
    assert link.in_flight == 0
    await eventually(lambda: pair.server.in_flight == 0)
