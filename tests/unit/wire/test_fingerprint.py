from __future__ import annotations

import msgspec
import pytest

from serving.wire.fingerprint import fingerprint, size_of
from serving.wire.messages import (
    AdapterRef,
    Call,
    CompletionCall,
    HttpCall,
    ImageRef,
    PromptFormat,
    Sampling,
)


def completion(**fields: object) -> CompletionCall:
    return CompletionCall(
        **{
            "request_id": "r1",
            "model": "tiny",
            "prompt": "Once",
            "stream": False,
            "sampling": Sampling(),
            "served_model": "tiny-llama",
            **fields,
        }  # type: ignore[arg-type]
    )


def http(**fields: object) -> HttpCall:
    return HttpCall(
        **{"request_id": "r1", "model": "m", "method": "POST", "path": "/v1/completions", **fields}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (completion(), completion(request_id="r2", model="tiny-llama")),
        (http(), http(request_id="r2", model="tiny", query="x=1")),
        (http(), http(headers=(("x-stainless-retry-count", "2"),))),
    ],
)
def test_the_same_request_sent_again_is_known(one: Call, other: Call) -> None:
    assert fingerprint(one, b"{}") == fingerprint(other, b"{}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (completion(), completion(prompt="once")),
        (completion(), completion(stream=True)),
        (completion(), completion(sampling=Sampling(temperature=1.0))),
        (completion(), completion(images=(ImageRef("data:x"),))),
        (completion(), completion(adapter=AdapterRef("a", "/a"))),
        (completion(), completion(prompt_format=PromptFormat("chat"))),
        (http(), http(path="/v1/chat/completions")),
        (http(), http(adapter=AdapterRef("a", "/a"))),
        (http(), completion()),
    ],
)
def test_what_an_engine_runs_tells_requests_apart(one: Call, other: Call) -> None:
    assert fingerprint(one, b"{}").digest != fingerprint(other, b"{}").digest


@pytest.mark.parametrize(
    "call",
    [
        completion(sampling=Sampling(temperature=0, top_p=1, stop=("a", "\N{SKULL}"))),
        completion(images=(ImageRef("data:x"),), adapter=AdapterRef("a", "/a")),
        http(headers=(("a", "b"),), prompt_format=PromptFormat("chat")),
    ],
)
def test_both_ends_of_a_link_find_the_same(call: Call) -> None:
    sent: Call = msgspec.json.decode(msgspec.json.encode(call), type=Call)  # type: ignore[arg-type]
    assert fingerprint(sent, b"{}") == fingerprint(call, b"{}")


def test_bodies_tell_requests_apart() -> None:
    prints = {fingerprint(http(), body) for body in (b"", b"{}", b'{"a":1}', b'{"a":2}')}
    assert len({each.digest for each in prints}) == 4


def test_the_size_is_known_without_the_hash() -> None:
    assert fingerprint(http(), b"12345").size == size_of(http(), b"12345") == 5
    assert fingerprint(completion(), b"").size == size_of(completion(), b"") == len("Once")
