"""Calls that fail, and replicas that die."""

from __future__ import annotations

import msgspec
import pytest

from serving.engine.interface import Emit, Tally
from serving.errors import ContextLengthExceeded, EngineFailed, Overloaded
from serving.router.answer import Answer
from serving.router.replica import ReplicaLink
from serving.wire.frames import Kind, open_payload
from serving.wire.messages import CompletionCall, End, Fail, HttpCall
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import ENDLESS, Pair, completion, read


async def test_a_failure_says_what_was_used(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.01
    answer = link.open(completion(ENDLESS))
    await eventually(lambda: answer.head is not None)
    pair.engine.dead = True
    await read(answer)
    assert answer.failed is not None
    assert answer.failed.used.prompt_tokens == 900
    assert 1 <= answer.failed.used.completion_tokens < 900


async def test_a_bug_says_what_was_used(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(call: CompletionCall, emit: Emit, tally: Tally) -> None:
        tally.prompt_tokens, tally.completion_tokens = 7, 4
        raise KeyError("secret")

    monkeypatch.setattr(pair.engine, "generate", broken)
    await read(answer := link.open(completion()))
    assert answer.failed is not None
    assert answer.failed.used == End(prompt_tokens=7, completion_tokens=4)


def test_a_failure_of_a_neighbouring_version_says_nothing_of_usage() -> None:
    fail = msgspec.json.decode(b'{"status":503,"code":"x","message":"y"}', type=Fail)
    assert (fail.prompt_tokens, fail.completion_tokens) == (0, 0)


async def test_a_replicas_death_fails_its_answers(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    """Retryable: whether their callers have seen anything, the relay knows."""
    pair.engine.interval_s = 60
    answer = link.open(completion("word " * 900))
    await eventually(lambda: pair.engine.running)
    await pair.server.close()
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, EngineFailed)
    assert answer.failed.retryable
    assert not link.up


async def test_an_error_keeps_its_class_param_and_retry_time(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = link.open(completion("word " * 1000))
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, ContextLengthExceeded)
    assert answer.failed.error.param == "prompt"
    assert not answer.failed.retryable

    async def full() -> None:
        raise Overloaded("full", retry_after_s=5)

    monkeypatch.setattr(pair.engine, "check", full)
    answer = link.open(completion())
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, Overloaded)
    assert answer.failed.error.retry_after_s == 5
    assert answer.failed.retryable


async def test_a_bug_in_one_call_ends_only_that_call(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = link.open(HttpCall("r1", "m", "POST", "/v1/completions"), b'["no object"]')
    await read(answer)
    assert answer.failed is not None
    assert answer.failed.error.status == 500
    assert "object" not in answer.failed.error.message
    await read(again := link.open(completion()))
    assert again.end is not None


async def test_a_call_that_cannot_be_written_leaves_nothing_behind(link: ReplicaLink) -> None:
    with pytest.raises(UnicodeEncodeError):
        link.open(completion("\ud800"))
    assert link.in_flight == 0


async def test_a_call_that_is_not_understood_ends_only_itself(
    pair: Pair, link: ReplicaLink
) -> None:
    other = link.open(completion())
    strange = Answer(link, 77)
    link._streams[77] = strange
    link._outbox.send(Kind.OPEN, 77, open_payload(b'{"type": "from the future"}', b""))
    await read(strange)
    assert strange.failed is not None
    assert strange.failed.error.status == 500
    await read(other)
    assert other.end is not None
    assert link.up
